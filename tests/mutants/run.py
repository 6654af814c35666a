"""Plants small faults one at a time and reports those that no test notices.

    python -m tests.mutants.run --seed 1 --sample 200 --minutes 30 --jobs 2 dialer/domain

mutates the Python and Lua files of the given folders (default: all of mutants.toml), each in a
copy of the project, and runs the tests that execute the mutated line. It prints a line for each
fault that no test noticed and a table, and exits 1 if less than 95 % were noticed. A fault by
which the tests hang counts as noticed; one that no test executes, or that a busy machine has no
time for, is *untested* and does not. On a busy machine tests also fail without a fault: the
share that an idle machine shows is the true one. No tool on PyPI mutates Lua, hence this one.
"""

from __future__ import annotations

import argparse
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from tests.mutants import lua_faults, python_faults
from tests.mutants.config import Config, innermost
from tests.mutants.coverage_map import FileMap, TestChoice, read_map, shared_digest
from tests.mutants.mutant import Mutant, mutants_of
from tests.mutants.sandbox import ROOT, TOO_LONG, Sandbox

HERE: Final = Path(__file__).parent

#: Share of the faults that tests have to notice.
NOTICED_AT_LEAST: Final = 0.95

#: Tests of one mutant take at most this long without the fault, in seconds.
TESTS_WITHIN_S: Final = 120.0

#: With the fault, tests may take this long and so many times as long as without it.
STARTS_WITHIN_S: Final = 20.0
SLOWER: Final = 3

#: Pause between two reports of how far it is, in seconds.
REPORT_EVERY_S: Final = 60.0

#: pytest's exit code for tests that all passed. Any other one means that the fault was noticed:
#: a failed test, an import that fails, a crash.
PASSED: Final = 0

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Count:
    """The outcome of one folder's mutants. `untested` ones count as not noticed."""

    noticed: int = 0
    survived: int = 0
    untested: int = 0
    explained: int = 0

    @property
    def tried(self) -> int:
        """All but the explained ones."""
        return self.noticed + self.survived + self.untested

    @property
    def share(self) -> float:
        """Noticed ones among those tried; 1 if none was tried."""
        return self.noticed / self.tried if self.tried else 1.0


@dataclass(slots=True, kw_only=True)
class Run:
    """One run over some folders."""

    root: Path
    config: Config
    folders: Sequence[str]
    jobs: int = 1
    deadline: float = float("inf")  # by time.monotonic(); no mutant is begun after it
    out: Callable[[str], object] = sys.stdout.write
    counts: dict[str, Count] = field(default_factory=dict)
    _sandboxes: queue.Queue[Sandbox] = field(default_factory=queue.Queue)
    _next_report: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, *, seed: int, sample: int | None) -> float:
        """Try the mutants, or a sample of them; return the share that was noticed."""
        self.counts = {folder: Count() for folder in self.folders}
        mutants = self._mutants()
        random.Random(seed).shuffle(mutants)
        chosen = mutants[:sample]
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            for n in range(self.jobs):
                self._sandboxes.put(Sandbox(self.root, Path(folder) / str(n)))
            choices = self._choices({self.config.folder_of(mutant.path) for mutant in chosen})
            self._each(lambda box, mutant: self._try(box, mutant, choices, len(chosen)), chosen)
        self.out(f"{_total(self.counts.values()).tried} of {len(mutants)} mutants tried\n")
        for line in self._table():
            self.out(f"{line}\n")
        return _total(self.counts.values()).share

    def _mutants(self) -> list[Mutant]:
        """Return all mutants but the explained ones, which are counted."""
        found = []
        for file in self._files():
            for mutant in self._of_file(file):
                if self.config.is_explained(mutant):
                    self._count(mutant).explained += 1
                else:
                    found.append(mutant)
        for entry in self.config.unused(self.folders):
            self.out(
                "mutants.toml explains a fault that does not exist: "
                f"{entry.file}: {entry.source}   [{entry.change}]\n"
            )
        return found

    def _files(self) -> list[Path]:
        """Return the files of the folders, each once."""
        files: set[Path] = set()
        for folder in self.folders:
            base = self.root / folder
            if not base.exists():
                raise LookupError(f"there is no {folder}")
            files.update([base] if base.is_file() else base.rglob("*"))
        return sorted(files)

    def _count(self, mutant: Mutant) -> Count:
        """Return where a mutant is counted: at the innermost of the folders."""
        folder = innermost(mutant.path, self.folders)
        assert folder is not None
        return self.counts[folder]

    def _of_file(self, file: Path) -> list[Mutant]:
        finders = {".py": python_faults.edits_of, ".lua": lua_faults.edits_of}
        if file.suffix not in finders:
            return []
        text = file.read_text(encoding="utf-8")
        path = file.relative_to(self.root).as_posix()
        return mutants_of(path, text, finders[file.suffix](text))

    def _choices(self, folders: Iterable[str]) -> dict[str, TestChoice]:
        """Learn what the tests of each folder of mutants.toml execute."""
        tests = {folder: self.config.test_files(folder, self.root) for folder in sorted(folders)}
        files = sorted({file for of_folder in tests.values() for file in of_folder})
        shared = shared_digest(self.root, self.config.shared_files(self.root))
        cache = self.root / ".mutants"
        learned = self._each(lambda box, file: read_map(box, file, shared, cache), files)
        maps: dict[str, FileMap] = dict(zip(files, learned, strict=True))
        for test in sorted({test for map_ in maps.values() for test in map_.failed}):
            self.out(f"left out, for it fails without any fault: {test}\n")
        return {
            folder: TestChoice({file: maps[file] for file in of_folder})
            for folder, of_folder in tests.items()
        }

    def _try(
        self, box: Sandbox, mutant: Mutant, choices: dict[str, TestChoice], total: int
    ) -> None:
        """Try one mutant, unless the time is over, and count it."""
        if time.monotonic() > self.deadline:
            return
        choice = choices[self.config.folder_of(mutant.path)]
        if mutant.path.endswith(".lua"):
            tests = choice.tests_of_step(mutant.path, self.root, TESTS_WITHIN_S)
        else:
            lines = range(mutant.first_line, mutant.last_line + 1)
            tests = choice.tests(mutant.path, lines, TESTS_WITHIN_S)
        outcome = "untested" if not tests else outcome_of(box, mutant, tests)
        with self._lock:
            count = self._count(mutant)
            setattr(count, outcome, getattr(count, outcome) + 1)
            if outcome != "noticed":
                self.out(f"{outcome}: {mutant.where}: {mutant.source}   [{mutant.change}]\n")
            self._report_progress(total)

    def _report_progress(self, total: int) -> None:
        """Say once a minute how far it is."""
        tried = _total(self.counts.values()).tried
        if time.monotonic() > self._next_report:
            self._next_report = time.monotonic() + REPORT_EVERY_S
            self.out(f"... {tried} of {total}\n")

    def _each(self, work: Callable[[Sandbox, T], R], items: Sequence[T]) -> list[R]:
        """Do the work for each item, as many at a time as there are sandboxes."""

        def with_sandbox(item: T) -> R:
            box = self._sandboxes.get()
            try:
                return work(box, item)
            finally:
                self._sandboxes.put(box)

        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(with_sandbox, items))

    def _table(self) -> Iterable[str]:
        yield f"{'':32}noticed  survived  untested  explained   share"
        rows = {**self.counts, "all": _total(self.counts.values())}
        for folder, count in rows.items():
            yield (
                f"{folder:32}{count.noticed:7}{count.survived:10}{count.untested:10}"
                f"{count.explained:11}{count.share:8.1%}"
            )


def outcome_of(box: Sandbox, mutant: Mutant, tests: Sequence[tuple[str, float]]) -> str:
    """Run tests, given with their seconds, with the fault; return the field of `Count` to raise.

    If they hang, they run once more without the fault.
    """
    within_s = STARTS_WITHIN_S + SLOWER * sum(seconds for _, seconds in tests)
    chosen = box.folder / ".mutants-tests"
    chosen.write_text("\n".join(test for test, _ in tests))
    with box.planted(mutant.path, mutant.edit):
        code = box.pytest(["-x", f"@{chosen}"], within_s=within_s)
    if code == PASSED:
        return "survived"
    if code == TOO_LONG and box.pytest([f"@{chosen}"], within_s=within_s) == TOO_LONG:
        return "untested"  # the machine is too busy
    return "noticed"


def _total(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total.noticed += count.noticed
        total.survived += count.survived
        total.untested += count.untested
        total.explained += count.explained
    return total


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", help="folders or files to mutate; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample and its order")
    parser.add_argument("--sample", type=int, help="how many to try; default: all")
    parser.add_argument("--minutes", type=float, default=60, help="begin none after this time")
    parser.add_argument("--jobs", type=int, default=2, help="how many to try at a time")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    given = parsed(arguments)
    config = Config.read(HERE / "mutants.toml")
    run = Run(
        root=ROOT,
        config=config,
        folders=[folder.rstrip("/") for folder in given.folders] or list(config.tests),
        jobs=given.jobs,
        deadline=time.monotonic() + given.minutes * 60,
        out=lambda text: sys.stdout.write(text) and sys.stdout.flush(),
    )
    return int(run.run(seed=given.seed, sample=given.sample) < NOTICED_AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())
