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
from dialer.settings.problems import line_in
from dialer.settings.tables import PREFIX

#: Names the folder. systemd sets it for LoadCredential=; for Docker it is /run/secrets.
FOLDER_VARIABLE: Final = "CREDENTIALS_DIRECTORY"

#: What our units' LoadCredential=dialer:FOLDER makes the names of the folder's files begin with.
UNIT_PREFIX: Final = "dialer_"


#: What variables begin with that a file may stand for: ours, and Flower's (FLOWER_BASIC_AUTH).
PREFIXES: Final = (PREFIX, "FLOWER_")


def effective(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the folder's files named as PREFIXES for what it does not set itself.

    Raises:
        ConfigError: the folder or one of those files cannot be read.
    """
    files = _files(environment)
    # A file whose variable is set is not even read: setting it is a way past an unreadable one.
    beneath = {name: line_in(file) for name, file in files.items() if name not in environment}
    return {**beneath, **environment}


def source(variable: str, environment: Mapping[str, str]) -> str:
    """What an error calls the place where a variable in effect was set."""
    file = None if variable in environment else _files(environment).get(variable)
    return f"the file {file}" if file else variable


def _files(environment: Mapping[str, str]) -> dict[str, Path]:
    """The folder's files by the variable they stand for; none where the folder is not there."""
    folder = environment.get(FOLDER_VARIABLE)
    if not folder:
        return {}
    try:
        files = {file.name.removeprefix(UNIT_PREFIX): file for file in Path(folder).iterdir()}
    except FileNotFoundError:
        return {}  # Docker makes /run/secrets only for a service that is given a secret
    except OSError as error:
        problem = error.strerror
    else:
        return {name: file for name, file in sorted(files.items()) if name.startswith(PREFIXES)}
    raise ConfigError(
        f"{FOLDER_VARIABLE} names {folder}, which cannot be read: {problem}; it takes a folder "
        "that the user of this program can read, or must not be set"
    )
