"""The variables in effect: the environment, and beneath it a folder of secrets.

systemd (`LoadCredential=`) and Docker (`secrets:`) both hand secrets over as files of one
folder. A file there counts as the variable that it is named like. Owns how such a folder is
read and how an error names where a value came from; knows no setting. It is told the
environment and never changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dialer.errors import ConfigError
from dialer.settings_file import line_in
from dialer.settings_tables import PREFIX

#: Names the folder. systemd sets it for LoadCredential=; for Docker it is /run/secrets.
FOLDER_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


def effective(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the folder's files named DIALER_... for what it does not set itself.

    Raises:
        ConfigError: the folder or one of those files cannot be read.
    """
    folder = environment.get(FOLDER_VARIABLE)
    files = _files_in(Path(folder)) if folder else ()
    # A file whose variable is set is not even read: setting it is a way past an unreadable one.
    beneath = {file.name: line_in(file) for file in files if file.name not in environment}
    return {**beneath, **environment}


def source(variable: str, environment: Mapping[str, str]) -> str:
    """What an error calls the place where a variable in effect was set."""
    folder = environment.get(FOLDER_VARIABLE)
    if variable in environment or not folder:
        return variable
    return f"the file {Path(folder) / variable}"


def _files_in(folder: Path) -> list[Path]:
    """The files that may be variables of ours; none where the folder is not there."""
    try:
        return sorted(file for file in folder.iterdir() if file.name.startswith(PREFIX))
    except FileNotFoundError:
        return []  # Docker makes /run/secrets only for a service that is given a secret
    except OSError as error:
        problem = error.strerror
    raise ConfigError(
        f"{FOLDER_VARIABLE} names {folder}, which cannot be read: {problem}; it takes a folder "
        "that the user of this program can read, or must not be set"
    )
