from __future__ import annotations

from dialer.cli import main

main()
