"""Start of a long-running command: read the settings, configure the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dialer.settings import Settings


def settings_with_log(program: str) -> Settings:
    """Read the settings and configure this process's log; `program` names the log file.

    Raises:
        ConfigError: the settings are wrong, or the log folder cannot be written.
    """
    from dialer.logs import configure
    from dialer.settings import settings

    configure(settings().log, program)
    return settings()
