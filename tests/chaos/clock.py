"""A wrong clock for one process, by `skew.c`; needs a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("skew.c")


def compiler() -> str | None:
    """The C compiler of this machine; None if it has none."""
    return shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of the process that is started with `environment`."""

    folder: Path
    name: str

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.clock"

    def environment(self) -> dict[str, str]:
        """The variables to start the process with; none if there is no compiler."""
        cc, library = compiler(), self.folder / "skew.so"
        if cc is None:
            return {}
        if not library.exists():
            command = [cc, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True)
        self._file.write_bytes(bytes(8))
        return {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._file)}

    def set(self, skew_s: int) -> None:
        """Let the clock be off by so many seconds from now on; 0 is right again."""
        file = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(file, skew_s.to_bytes(8, "little", signed=True), 0)
        finally:
            os.close(file)
