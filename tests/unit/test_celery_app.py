"""Importing the Celery application, which every bridge, worker and Flower does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

PASSWORD = "supervisor:secret"

#: Imports the application and prints what a child process gets from this one.
IMPORT = "import os, subprocess, dialer.celery; subprocess.run(['env'], check=True)"


def test_importing_the_app_leaves_the_environment_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "FLOWER_BASIC_AUTH").write_text(PASSWORD)
    given = {name: value for name, value in os.environ.items() if not name.startswith("FLOWER_")}
    given["DIALER_CONFIG"] = str(ROOT / "deploy" / "dialer.toml")
    given["CREDENTIALS_DIRECTORY"] = str(tmp_path)
    seen = subprocess.run(
        [sys.executable, "-c", IMPORT], env=given, check=True, capture_output=True, text=True
    ).stdout
    assert PASSWORD not in seen
    assert "FLOWER_" not in seen
