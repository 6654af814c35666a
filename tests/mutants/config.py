"""mutants.toml: which tests hold which folder, and the faults that no test can notice."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Faults that no test can notice, and why. In all but `reason`, `*` stands for any text.

    `file` and `source` (the line's text) say where, `change` is as the report prints it.
    """

    file: str
    source: str
    change: str
    reason: str

    def fits(self, mutant: Mutant) -> bool:
        """True if this explains the mutant."""
        pairs = (
            (self.file, mutant.path),
            (self.source, mutant.source),
            (self.change, mutant.change),
        )
        return all(_fits(pattern, text) for pattern, text in pairs)


@dataclass(slots=True)
class Config:
    """`tests` names the test files or folders by the folder they hold (patterns are allowed)."""

    tests: dict[str, list[str]]
    explained: list[Explained] = field(default_factory=list)
    _used: set[Explained] = field(default_factory=set)

    @classmethod
    def read(cls, file: Path) -> Config:
        """Read mutants.toml.

        Raises:
            TypeError: an explanation lacks a field, or has one too many.
        """
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        explained = [Explained(**entry) for entry in content.get("explained", [])]
        return cls(content["tests"], explained)

    def is_explained(self, mutant: Mutant) -> bool:
        """True if an entry explains why no test can notice the mutant. Notes that it was used."""
        fitting = [entry for entry in self.explained if entry.fits(mutant)]
        self._used.update(fitting)
        return bool(fitting)

    def unused(self, folders: Sequence[str]) -> list[Explained]:
        """Return the entries for files of these folders that explained nothing so far."""
        return [
            entry
            for entry in self.explained
            if entry not in self._used and entry.file.startswith(tuple(f"{f}/" for f in folders))
        ]

    def folder_of(self, path: str) -> str:
        """Return the innermost folder of `tests` that a file is in.

        Raises:
            LookupError: no tests are named for it.
        """
        folder = innermost(path, self.tests)
        if folder is None:
            raise LookupError(f"mutants.toml names no tests for {path}: add its folder to [tests]")
        return folder

    def test_files(self, folder: str, root: Path) -> list[str]:
        """Return the test files for a folder, relative to `root`.

        Raises:
            LookupError: a pattern matches no test file.
        """
        found: set[str] = set()
        for pattern in self.tests[folder]:
            files = [
                file
                for match in root.glob(pattern)
                for file in (match.rglob("test_*.py") if match.is_dir() else [match])
            ]
            if not files:
                raise LookupError(f"mutants.toml: no test file matches {pattern}")
            found |= {file.relative_to(root).as_posix() for file in files}
        return sorted(found)

    def shared_files(self, root: Path) -> Iterable[Path]:
        """Return the files, other than test files, that the result of a test depends on."""
        for top in {Path(folder).parts[0] for folder in [*self.tests, "tests"]}:
            for file in (root / top).rglob("*"):
                parts = file.relative_to(root).parts
                is_test = file.name.startswith("test_") or "mutants" in parts
                if file.suffix in (".py", ".lua") and not is_test:
                    yield file


def innermost(path: str, folders: Iterable[str]) -> str | None:
    """Return the innermost of the folders that the file is in (or is), None if it is in none."""
    fitting = [folder for folder in folders if f"{path}/".startswith(f"{folder}/")]
    return max(fitting, key=len, default=None)


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
