"""Which tests execute a line, learned by running each test file once with coverage.

The result of a test file is cached and used again until the file, or code that tests share,
changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from coverage import CoverageData

from tests.mutants.sandbox import Sandbox

#: What is executed outside of a test: imports, session fixtures, other processes.
NO_TEST: Final = ""

#: The longest time one test file may take, in seconds.
TEST_FILE_WITHIN_S: Final = 900.0


@dataclass(slots=True, kw_only=True)
class FileMap:
    """What one test file executes.

    `seconds` is the duration of each test that passed, by `file::test` without parameters.
    `lines` names the tests by source file and line (as text, for JSON); `NO_TEST` stands for
    what ran outside of a test.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def read_map(sandbox: Sandbox, test_file: str, shared: str, cache: Path) -> FileMap:
    """Return the map of a test file from the cache, or run the file and keep its map.

    `shared` is the digest of everything outside of the test file that its result depends on.
    """
    key = hashlib.sha256(f"{shared}{(sandbox.folder / test_file).read_text()}".encode()).hexdigest()
    kept = cache / f"{test_file.replace('/', '.')}.json"
    if kept.exists():
        content = json.loads(kept.read_text())
        if content.pop("key") == key:
            return FileMap(**content)
    found = _run(sandbox, test_file)
    cache.mkdir(exist_ok=True)
    content = {"seconds": found.seconds, "failed": found.failed, "lines": found.lines}
    kept.write_text(json.dumps({"key": key} | content))
    return found


def shared_digest(folder: Path, files: Iterable[Path]) -> str:
    """Return a digest of the code that every test file depends on."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _run(sandbox: Sandbox, test_file: str) -> FileMap:
    report = sandbox.folder / ".mutants.xml"
    data = sandbox.folder / ".coverage"
    for left in (report, data):
        left.unlink(missing_ok=True)
    config = ("--cov", "--cov-config=tests/mutants/coverage.ini", "--cov-fail-under=0")
    options = (*config, "--cov-context=test", "--cov-report=")
    sandbox.pytest([*options, f"--junitxml={report}", test_file], within_s=TEST_FILE_WITHIN_S)
    found = FileMap()
    if report.exists():
        _read_durations(report, test_file, found)
    if data.exists():
        _read_lines(data, sandbox.folder, found)
    return found


def _read_durations(report: Path, test_file: str, found: FileMap) -> None:
    module = test_file.removesuffix(".py").replace("/", ".")
    seconds: dict[str, float] = defaultdict(float)
    failed = set()
    for case in ET.parse(report).iter("testcase"):
        classes = case.get("classname", "").removeprefix(module).strip(".")
        parts = [*filter(None, classes.split(".")), case.get("name", "").partition("[")[0]]
        test = "::".join([test_file, *parts])
        seconds[test] += float(case.get("time", 0))
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(test)
    found.seconds = {test: took for test, took in seconds.items() if test not in failed}
    found.failed = sorted(failed)


def _read_lines(data: Path, folder: Path, found: FileMap) -> None:
    coverage = CoverageData(str(data))
    coverage.read()
    for measured in coverage.measured_files():
        path = Path(measured)
        if not path.is_relative_to(folder):
            continue
        found.lines[path.relative_to(folder).as_posix()] = {
            str(line): sorted({_test_of(context) for context in contexts})
            for line, contexts in coverage.contexts_by_lineno(measured).items()
        }


def _test_of(context: str) -> str:
    """Turn `file::test[parameters]|call` into `file::test`."""
    return context.partition("|")[0].partition("[")[0]


@dataclass(slots=True)
class TestChoice:
    """Chooses the tests for a mutant out of the maps of the test files that hold its folder."""

    __test__ = False  # not a test, though its name begins like one
    maps: dict[str, FileMap]

    def tests(self, path: str, lines: Iterable[int], within_s: float) -> list[tuple[str, float]]:
        """Return tests with their durations, those that execute the lines first, quickest first.

        A line that was executed outside of a test may be noticed by any test of that file. Tests
        that would take the sum of the durations above `within_s` are left out.
        """
        named: set[str] = set()
        loose: set[str] = set()
        for map_ in self.maps.values():
            hit = {t for n in lines for t in map_.lines.get(path, {}).get(str(n), ())}
            named |= hit - {NO_TEST}
            if NO_TEST in hit:
                loose |= map_.seconds.keys()
        near = {t for m in self.maps.values() for ts in m.lines.get(path, {}).values() for t in ts}
        seconds = {t: s for m in self.maps.values() for t, s in m.seconds.items()}
        ranked = sorted(
            (test for test in named | loose if test in seconds),
            key=lambda test: (test not in named, test not in near, seconds[test]),
        )
        return list(_bounded([(test, seconds[test]) for test in ranked], within_s))

    def tests_of_step(self, path: str, folder: Path, within_s: float) -> list[tuple[str, float]]:
        """Return the tests of a Lua step: those that execute Python code that names the step.

        Below the folder above the step's, the name may be alone on a line; elsewhere it is that of
        a step only in `run("name"`. A file that steps include has the tests of all of them.
        """
        steps = _steps_of(folder / path)
        below = (folder / path).parent.parent
        tests: dict[str, float] = {}
        for source in sorted({file for map_ in self.maps.values() for file in map_.lines}):
            named = '"{}"' if (folder / source).is_relative_to(below) else 'run("{}"'
            names = [named.format(step) for step in steps]
            lines = (folder / source).read_text().splitlines()
            naming = [n for n, line in enumerate(lines, 1) if any(name in line for name in names)]
            tests |= dict(self.tests(source, naming, within_s))
        return list(_bounded(sorted(tests.items(), key=lambda item: item[1]), within_s))


def _steps_of(file: Path) -> list[str]:
    """Return the names of the steps that include a Lua file; its own if it is a step."""
    if not file.stem.startswith("_"):
        return [file.stem]
    includes = re.compile(rf"^-- Include:.*\b{file.stem}\b", re.MULTILINE)
    others = sorted(file.parent.glob("[!_]*.lua"))
    return [other.stem for other in others if includes.search(other.read_text())]


def _bounded(tests: list[tuple[str, float]], within_s: float) -> Iterable[tuple[str, float]]:
    total = 0.0
    for test, seconds in tests:
        if total == 0 or total + seconds <= within_s:
            total += seconds
            yield test, seconds
