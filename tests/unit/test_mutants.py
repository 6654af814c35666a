from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.mutants import lua_faults, python_faults
from tests.mutants.config import Config, Explained
from tests.mutants.coverage_map import FileMap, TestChoice
from tests.mutants.mutant import Edit, Mutant, apply, mutants_of
from tests.mutants.run import Run, outcome_of
from tests.mutants.sandbox import TOO_LONG, Sandbox

CODE = """def is_full(used, most):
    return used >= most
"""
TESTED = """from held.rooms import is_full


def test_a_room_fills_up():
    assert is_full(3, 2)
    assert not is_full(1, 2)
"""
PYTEST_INI = """[pytest]
pythonpath = .
addopts =
    --import-mode=importlib --disable-plugin-autoload
    -p pytest_cov -p _hypothesis_pytestplugin
"""
BOUNDARY = "a test of the boundary is what this example lacks"


def python_faults_of(text: str) -> set[str]:
    return {apply(text, edit) for edit in python_faults.edits_of(text)}


def lua_faults_of(text: str) -> set[str]:
    return {apply(text, edit) for edit in lua_faults.edits_of(text)}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("a = b < c", "a = b <= c"),
        ("a = b is not None", "a = b is None"),
        ("a = (b) and (c)", "a = (b) or (c)"),
        ("a = b and c()", "a = b and not c()"),
        ("a = not b", "a = b"),
        ("a = b - 1", "a = b + 1"),
        ("a = b - 1", "a = b - 2"),
        ("a = b * 1000", "a = b * 2000"),
        ("a(True)", "a(False)"),
        ("if a:\n    b()", "if False:\n    b()"),
        ("if a:\n    b()", "if a:\n    pass"),
        ("a = [b for b in c if d]", "a = [b for b in c if True]"),
        ("a.b = c", "pass"),
        ("a += 1", "pass"),
        ("def f():\n    return a", "def f():\n    return None"),
        ("async def f():\n    await a", "async def f():\n    pass"),
        ("raise E('é', 1 if a else 2)", "pass"),
        ("a = {b, c}", "a = {b}"),
        ("a = {b: 'é', c: d,}", "a = {c: d,}"),
        ("a = b in ('é', c)", "a = b in (c)"),
        ("try:\n    a()\nexcept (B, C):\n    pass", "try:\n    a()\nexcept (B):\n    pass"),
    ],
)
def test_a_fault_is_planted_in_python(code: str, fault: str) -> None:
    assert fault in python_faults_of(code)


def test_a_factor_of_units_is_not_changed_by_a_thousandth() -> None:
    assert python_faults_of("a = b * 1000") == {"a = b / 1000", "a = b * 2000"}


@pytest.mark.parametrize(
    "code",
    [
        '"""A docstring with 1 and 2."""',
        'logger.info("said", extra={"a": 1, "b": 2})',
        "a: Literal[1] | None",
        "def f(a: Literal[1]) -> Literal[2]: ...",
        "@dataclass(frozen=True)\nclass A: ...",
        "def __repr__(self):\n    return self.a + 1",
        "if TYPE_CHECKING:\n    import a",
        "PAUSE_S: Final = 0.5",
        "PAUSES_S: Final = (0.25, 5.0)",
        '__all__ = ["a", "b"]',
        "A = B | C",
        'a = f"{b + 1}"',
    ],
)
def test_what_no_test_can_notice_is_left_alone(code: str) -> None:
    assert python_faults_of(code) == set()


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("if a == 'b' then c = d end", "if a ~= 'b' then c = d end"),
        ("if a == 'b' then c = d end", "if true then c = d end"),
        ("if a == 'b' then c = d end", "if a == 'b' then  end"),
        ("if not a or b < 2 then", "if a or b < 2 then"),
        ("if not a or b < 2 then", "if not a or b <= 2 then"),
        ("if not a or b < 2 then", "if not a and b < 2 then"),
        ("local n = t[1] * 1000 + m", "local n = t[1] * 2000 + m"),
        ("local n = t[1] * 1000 + m", "local n = t[2] * 1000 + m"),
        ("local n = t[1] * 1000 + m", "local n = t[1] * 1000 - m"),
        ("while n > 0 do", "while  false do"),
        (
            "local a = redis.call('LMOVE', b, c, 'LEFT', 'RIGHT')",
            "local a = redis.call('LMOVE', b, c, 'LEFT', 'LEFT')",
        ),
        ("redis.call(ARGV[3], a, b)", "redis.call('RPUSH', a, b)"),
        ("redis.call('SET', a,\n  f(b))\nreturn 1", "\nreturn 1"),
        ("redis.call('SET', a,\n  f(b))\nreturn 1", "redis.call('SET', a,\n  f(b))\nreturn 0"),
    ],
)
def test_a_fault_is_planted_in_a_lua_step(step: str, fault: str) -> None:
    assert fault.split() in [found.split() for found in lua_faults_of(step)]


def test_text_and_comments_of_lua_stay_whole() -> None:
    assert lua_faults_of("-- 1 == 2\nlocal a = '3 < 4' .. \"5 - 6\"") == set()


def test_an_argument_of_a_lua_call_is_not_dropped() -> None:
    assert "f(a,\n  )" not in lua_faults_of("f(a,\n  g(b))")


def mutant_of(code: str, change: str) -> Mutant:
    found = mutants_of("held/rooms.py", code, python_faults.edits_of(code))
    return next(mutant for mutant in found if mutant.change == change)


def test_a_mutant_says_where_it_is() -> None:
    mutant = mutant_of("a = f(\n    b + 1,\n)\n", "+ -> -")

    assert mutant.where == "held/rooms.py:2"
    assert mutant.source == "b + 1,"
    assert (mutant.first_line, mutant.last_line) == (1, 2)


def test_a_mutant_counts_the_equal_places_before_it() -> None:
    found = mutants_of("a.py", "a = b + c + d", python_faults.edits_of("a = b + c + d"))
    assert {mutant.change for mutant in found} == {"+#1 -> -", "+#2 -> -"}


def test_tests_that_run_the_line_come_first() -> None:
    seconds = {"t.py::slow": 9.0, "t.py::other": 1.0, "t.py::quick": 2.0, "t.py::far": 0.1}
    lines = {"a.py": {"1": [""], "5": ["t.py::slow", "t.py::quick"], "6": ["", "t.py::slow"]}}
    choice = TestChoice({"t.py": FileMap(seconds=seconds, lines=lines)})

    assert [test for test, _ in choice.tests("a.py", [5], 60)] == ["t.py::quick", "t.py::slow"]
    assert [test for test, _ in choice.tests("a.py", [5], 10)] == ["t.py::quick"]
    imported = [test for test, _ in choice.tests("a.py", [1], 60)]
    assert imported == ["t.py::quick", "t.py::slow", "t.py::far", "t.py::other"]
    assert choice.tests("a.py", [6], 60)[0] == ("t.py::slow", 9.0)
    assert choice.tests("a.py", [7], 60) == []


def test_a_step_has_the_tests_that_call_it(tmp_path: Path) -> None:
    for folder in ("lua", "ledger"):
        (tmp_path / "store" / folder).mkdir(parents=True)
    (tmp_path / "store/ledger/bridge.py").write_text('run(\n"take"\nrun("take_all")\n')
    (tmp_path / "worker.py").write_text('run("take")\nsay("take")\n')
    lines = {
        "store/ledger/bridge.py": {"2": ["t.py::a"], "3": ["t.py::b"]},
        "worker.py": {"1": ["t.py::c"], "2": ["t.py::d"]},
    }
    seconds = {f"t.py::{name}": 1.0 for name in "abcd"}
    choice = TestChoice({"t.py": FileMap(seconds=seconds, lines=lines)})

    tests = choice.tests_of_step("store/lua/take.lua", tmp_path, 60)
    assert [test for test, _ in tests] == ["t.py::a", "t.py::c"]


def test_an_included_file_has_the_tests_of_its_steps(tmp_path: Path) -> None:
    (tmp_path / "store/lua").mkdir(parents=True)
    (tmp_path / "store/lua/_time.lua").write_text("local function now_ms() end\n")
    (tmp_path / "store/lua/take.lua").write_text("-- Take.\n-- Include: _list _time\n")
    (tmp_path / "store/lua/put.lua").write_text("-- Include: _timeout\n")
    (tmp_path / "store/bridge.py").write_text('run("take")\nrun("put")\n')
    lines = {"store/bridge.py": {"1": ["t.py::a"], "2": ["t.py::b"]}}
    choice = TestChoice({"t.py": FileMap(seconds={"t.py::a": 1.0, "t.py::b": 1.0}, lines=lines)})

    tests = choice.tests_of_step("store/lua/_time.lua", tmp_path, 60)
    assert [test for test, _ in tests] == ["t.py::a"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one function, whose test lacks the boundary and one branch."""
    root = tmp_path / "project"
    (root / "held").mkdir(parents=True)
    (root / "tests/mutants").mkdir(parents=True)
    (root / "pytest.ini").write_text(PYTEST_INI)
    (root / "tests/mutants/coverage.ini").write_text("[run]\nsource = held\n")
    (root / "held/rooms.py").write_text(CODE)
    (root / "tests/test_rooms.py").write_text(TESTED)
    return root


def tried(root: Path, *explained: Explained, sample: int | None) -> tuple[Run, float, str]:
    said: list[str] = []
    config = Config({"held": ["tests"]}, list(explained))
    run = Run(root=root, config=config, folders=["held"], out=said.append)
    return run, run.run(seed=1, sample=sample), "".join(said)


def test_a_fault_is_noticed_or_survives(project: Path) -> None:
    run, share, said = tried(project, sample=None)

    assert (run.counts["held"].noticed, run.counts["held"].survived) == (2, 1)
    assert share == pytest.approx(2 / 3)
    assert "survived: held/rooms.py:2: return used >= most   [>= -> >]" in said
    assert (project / "held/rooms.py").read_text() == CODE


def test_an_explained_fault_is_not_tried(project: Path) -> None:
    boundary = Explained(
        file="held/*", source="return used >= most", change=">= -> >", reason=BOUNDARY
    )
    run, _, said = tried(project, boundary, sample=0)

    assert run.counts["held"].explained == 1
    assert "0 of 2 mutants tried" in said


def test_an_explanation_of_nothing_is_reported(project: Path) -> None:
    gone = Explained(file="held/rooms.py", source="return 1", change="*", reason=BOUNDARY)

    assert "explains a fault that does not exist" in tried(project, gone, sample=0)[2]


def test_code_that_no_test_runs_is_not_noticed(project: Path) -> None:
    (project / "tests/test_rooms.py").write_text("def test_nothing():\n    pass\n")
    run, share, _ = tried(project, sample=1)

    assert run.counts["held"].untested == 1
    assert share == 0


class Scripted(Sandbox):
    """A sandbox whose runs of pytest return the given codes."""

    def __init__(self, folder: Path, *codes: int) -> None:
        self.folder = folder
        self.codes = list(codes)

    @contextlib.contextmanager
    def planted(self, path: str, edit: Edit) -> Iterator[None]:
        yield

    def pytest(self, arguments: Sequence[str], *, within_s: float) -> int:
        return self.codes.pop(0)


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ((0,), "survived"),
        ((1,), "noticed"),
        ((4,), "noticed"),
        ((TOO_LONG, 0), "noticed"),
        ((TOO_LONG, TOO_LONG), "untested"),
    ],
)
def test_tests_that_hang_without_the_fault_notice_nothing(
    tmp_path: Path, codes: tuple[int, ...], outcome: str
) -> None:
    mutant = mutant_of("a = b + 1", "+ -> -")
    box = Scripted(tmp_path, *codes)

    assert outcome_of(box, mutant, [("t.py::test", 1.0)]) == outcome
    assert box.codes == []


def test_a_file_of_two_folders_is_mutated_once(project: Path) -> None:
    config = Config({"held": ["tests"], "held/rooms.py": ["tests"]}, [])
    said: list[str] = []
    Run(root=project, config=config, folders=list(config.tests), out=said.append).run(
        seed=1, sample=0
    )

    assert "0 of 3 mutants tried" in "".join(said)
    assert config.folder_of("held/rooms.py") == "held/rooms.py"


def test_a_folder_without_named_tests_is_refused() -> None:
    with pytest.raises(LookupError, match="add its folder"):
        Config({"held": ["tests"]}).folder_of("free/rooms.py")


def test_every_pattern_of_the_config_matches_tests() -> None:
    root = Path(__file__).resolve().parents[2]
    config = Config.read(root / "tests/mutants/mutants.toml")

    assert all(config.test_files(folder, root) for folder in config.tests)


def test_a_map_depends_on_the_code_wherever_the_project_lies(tmp_path: Path) -> None:
    root = tmp_path / "mutants"  # the name of a folder that is left out inside the project
    for name in ("dialer/a.py", "tests/parts.py", "tests/test_a.py", "tests/mutants/run.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    found = Config({"dialer": []}).shared_files(root)
    assert {file.relative_to(root).as_posix() for file in found} == {
        "dialer/a.py",
        "tests/parts.py",
    }
