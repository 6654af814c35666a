"""Effective variables: the environment, then the files of a credentials folder.

systemd (`LoadCredential=`) and Docker (`secrets:`) both provide secrets as files in one folder.
A file there defines the variable with the file's name. Owns the reading of that folder and how
errors name the source of a value. The environment is passed in and never changed.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dialer.errors import ConfigError
from dialer.settings.problems import line_in
from dialer.settings.tables import PREFIX

#: Variable with the folder's path. systemd sets it for LoadCredential=; for Docker it is
#: /run/secrets.
FOLDER_VARIABLE: Final = "CREDENTIALS_DIRECTORY"

#: Prefix that LoadCredential=dialer:FOLDER in our systemd units adds to the file names.
UNIT_PREFIX: Final = "dialer_"


#: Prefixes of variables that a file may define: ours, and Flower's (FLOWER_BASIC_AUTH).
PREFIXES: Final = (PREFIX, "FLOWER_")


def effective(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, extended by variables that only the folder's files define.

    Raises:
        ConfigError: the folder or one of those files cannot be read.
    """
    files = _files(environment)
    # A file is not read if its variable is set: so a variable can replace an unreadable file.
    from_files = {name: line_in(file) for name, file in files.items() if name not in environment}
    return {**from_files, **environment}


def source(variable: str, environment: Mapping[str, str]) -> str:
    """Return how an error names the origin of a value: the variable, or the file that set it."""
    file = None if variable in environment else _files(environment).get(variable)
    return f"the file {file}" if file else variable


def public_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the folder's files that every user of this host can read.

    Raises:
        ConfigError: the folder or one of those files cannot be read.
    """
    files = _files(environment).values()
    return [
        file for file in files if _mode(file) & stat.S_IROTH and _mode(file.parent) & stat.S_IXOTH
    ]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _files(environment: Mapping[str, str]) -> dict[str, Path]:
    """Return the folder's files by the variable they define; empty if there is no folder."""
    folder = environment.get(FOLDER_VARIABLE)
    if not folder:
        return {}
    try:
        files = {file.name.removeprefix(UNIT_PREFIX): file for file in Path(folder).iterdir()}
    except FileNotFoundError:
        return {}  # Docker creates /run/secrets only for services that have secrets
    except OSError as error:
        problem = error.strerror
    else:
        return {name: file for name, file in sorted(files.items()) if name.startswith(PREFIXES)}
    raise ConfigError(
        f"{FOLDER_VARIABLE} names {folder}, which cannot be read: {problem}; it takes a folder "
        "that the user of this program can read, or must not be set"
    )
