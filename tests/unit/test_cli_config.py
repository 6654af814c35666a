"""Command line: output and exit codes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from dialer import cli
from dialer.settings import load
from tests.unit.sound_settings import MARK, cell, clean, pbx, tables, write

OLD = "SETTINGS = {'redis_host': '10.0.0.5', 'queues': {'ASR_TIM': 100}, 'extra': 1}"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


class Dialer:
    """Run `dialer` in this process through its entry point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["dialer", *arguments])
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            with pytest.raises(SystemExit) as exited:
                cli.main()
        finally:
            # The bridge blocks SIGHUP while it starts; processes of later tests would inherit that.
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        out, err = self._capsys.readouterr()
        return Ran(code=int(exited.value.code or 0), out=out, err=err)


@pytest.fixture
def dialer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dialer:
    return Dialer(monkeypatch, capsys)


# --- config check and show ----------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("config", "check"), ("config", "show"), ("config", "import"), ("dnc", "import")]
)
def test_unreadable_file_is_one_sentence_with_the_cure(
    dialer: Dialer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    # os.access answers as for a user without the right; the tests may run as root.
    monkeypatch.setattr(os, "access", lambda *_: False)
    ran = dialer(*command, str(tmp_path))
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("dialer: ")
    assert ran.err.count("\n") == 1
    assert "read" in ran.err.partition(";")[2]


def test_check_accepts_a_valid_file(dialer: Dialer) -> None:
    write(tables()).chmod(0o600)
    assert dialer("config", "check") == Ran(
        code=0, out="dialer.toml is valid: 2 PBXs, 2 cells\n", err=""
    )


def test_check_rejects_a_wrong_file_without_a_traceback(dialer: Dialer) -> None:
    content = tables()
    cell("threads", 0)(content)
    write(content)
    assert dialer("config", "check") == Ran(
        code=2,
        out="",
        err="dialer: dialer.toml: cells[ASR_TIM].threads: 0 is wrong; "
        "it takes a whole number from 1 to 10000\n",
    )


def test_check_accepts_another_file_name(dialer: Dialer) -> None:
    write(tables()).rename("other.toml").chmod(0o600)
    assert dialer("config", "check", "other.toml").out.startswith("other.toml is valid")


def test_check_warns_about_doubtful_values(dialer: Dialer, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tables()
    pbx("trunks", {"tim": "Local/{number}@out"})(content)
    write(content).chmod(0o644)
    monkeypatch.setenv("DIALER_PBX01_SECRT", MARK)
    ran = dialer("config", "check")
    assert ran.code == 0
    assert ran.err.splitlines() == [
        "warning: pbxs[pbx01].trunks.tim: a Local channel without /n vanishes when Asterisk "
        "optimises it away, and its call ends as UNKNOWN; write Local/{number}@CONTEXT/n",
        "warning: DIALER_PBX01_SECRT has no effect; did you mean DIALER_PBX01_SECRET?",
        "warning: every user can read the secrets in dialer.toml: chmod o-r dialer.toml",
    ]


def test_check_accepts_a_readable_file_without_secrets(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tables()
    content["multcall"]["redis_url"] = content["broker"]["url"] = "redis://127.0.0.1/0"
    del content["registry"], content["cells"][1]["redis_url"]
    for table in content["pbxs"]:
        del table["secret"]
        monkeypatch.setenv(f"DIALER_{table['name'].upper()}_SECRET", MARK)
    monkeypatch.setenv("DIALER_MULTCALL__REDIS_URL", f"redis://:{MARK}@127.0.0.1/0")
    write(content).chmod(0o644)
    assert dialer("config", "check").err == ""


def test_commands_report_a_missing_file_with_the_cure(dialer: Dialer) -> None:
    for command in (("config", "check"), ("config", "show"), ("cells",), ("bridge",)):
        ran = dialer(*command)
        assert ran.code == 2
        assert ran.err.startswith(
            "dialer: dialer.toml: there is no such file. Set DIALER_CONFIG to yours"
        )
        assert "dialer config import" in ran.err


def test_show_prints_effective_settings_as_toml(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tables())
    monkeypatch.setenv("DIALER_ASR_TIM_THREADS", "7")
    shown = tomllib.loads(dialer("config", "show").out)
    assert shown["multcall"]["redis_url"] == "redis://:***@127.0.0.1:6379/0"
    assert shown["pbxs"][0]["secret"] == "**********"
    assert shown["pbxs"][0]["port"] == 5038
    assert shown["cells"][0]["threads"] == 7
    assert shown["cells"][0]["limits"]["calling_hours"][0]["from"] == "08:00"


def test_cells_lists_pbxs_and_redis_of_each_cell(dialer: Dialer) -> None:
    write(tables())
    assert dialer("cells").out.splitlines() == [
        f"{'CELL            THREADS  PBXS         REDIS':<88}STATE",
        "ASR_TIM         100      pbx01 pbx02  redis://:***@127.0.0.1:6379/0",
        "ura-novoteste2  5        pbx02        sentinel://:***@h1,h2/main?sentinel_password=***",
    ]


def test_commands_print_no_secret(dialer: Dialer, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, wrong = tables(), tables()
    wrong["pbxs"][0] |= {"secert": MARK, "port": MARK, "trunks": {"secret": MARK}}
    wrong["multcall"]["redis_url"] = f"redis://:{MARK}/x@h/0"
    monkeypatch.setenv("DIALER_PBX02_SECRET", MARK)
    for content in (sound, wrong):
        write(content)
        for command in (("config", "check"), ("config", "show"), ("cells",)):
            ran = dialer(*command)
            assert ran.code == (0 if content is sound else 2)
            assert MARK not in ran.out + ran.err


# --- config import ------------------------------------------------------------------------


def test_import_prints_new_file_and_unknown_keys(dialer: Dialer) -> None:
    Path("settings.py").write_text(OLD, encoding="utf-8")
    ran = dialer("config", "import", "settings.py")
    assert ran.code == 0
    assert tomllib.loads(ran.out)["cells"][0]["nome"] == "ASR_TIM"
    assert ran.err == "not imported: 'extra' is unknown\n"


def test_import_writes_a_file_that_lacks_only_the_secret(
    dialer: Dialer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("settings.py").write_text(OLD, encoding="utf-8")
    ran = dialer("config", "import", "settings.py", "--output", "dialer.toml")
    assert ran.out == (
        "dialer.toml is written; correct the PBX, then: dialer config check dialer.toml\n"
    )
    assert stat.S_IMODE(Path("dialer.toml").stat().st_mode) == 0o600
    assert dialer("config", "check").err == (
        "warning: pbxs[pbx01].secret: is missing; set DIALER_PBX01_SECRET, or set "
        "secret_file. Only the worker of pbx01 needs it; it does not start without it\n"
    )
    monkeypatch.setenv("DIALER_PBX01_SECRET", "x")
    assert dialer("config", "check") == Ran(
        code=0, out="dialer.toml is valid: 1 PBX, 1 cell\n", err=""
    )


def test_import_overwrites_only_with_force(dialer: Dialer) -> None:
    Path("settings.py").write_text(OLD, encoding="utf-8")
    Path("dialer.toml").write_text("mine " * 1000, encoding="utf-8")
    arguments = ("config", "import", "settings.py", "--output", "dialer.toml")
    assert dialer(*arguments) == Ran(
        code=2, out="", err="dialer: dialer.toml exists; use --force to overwrite it\n"
    )
    assert Path("dialer.toml").read_text(encoding="utf-8").startswith("mine")
    assert dialer(*arguments, "--force").code == 0
    assert load().cells[0].name == "ASR_TIM"


def test_import_lists_values_to_correct(dialer: Dialer) -> None:
    Path("settings.py").write_text("SETTINGS = {'queues': {'a b': 1}}", encoding="utf-8")
    ran = dialer("config", "import", "settings.py")
    assert ran.code == 0
    assert ran.err.splitlines()[1:] == [
        "to correct: cells[#1].nome: is wrong; it takes 1 to 64 letters, digits, _ . and -",
    ]


def test_import_rejects_a_computed_value(dialer: Dialer) -> None:
    Path("settings.py").write_text("SETTINGS = load()", encoding="utf-8")
    assert dialer("config", "import", "settings.py") == Ran(
        code=2,
        out="",
        err="dialer: settings.py: line 1: SETTINGS is computed, but the old file is never "
        "executed; write it as SETTINGS = {...}\n",
    )


# --- the whole program --------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("config",), ("simulate",), ("dnc",), ("wire",)])
def test_groups_without_a_command_show_help(dialer: Dialer, arguments: tuple[str, ...]) -> None:
    ran = dialer(*arguments)
    assert "Usage: dialer" in ran.out + ran.err


def test_commands_of_the_design_exist(dialer: Dialer) -> None:
    for command in (
        ("bridge",),
        ("demo",),
        ("monitor",),
        ("cells",),
        ("config", "check"),
        ("config", "import"),
        ("config", "show"),
        ("simulate", "pbx"),
        ("simulate", "multcall"),
        ("dnc", "add"),
        ("dnc", "remove"),
        ("dnc", "import"),
        ("dnc", "check"),
        ("wire", "check"),
        ("wire", "sample"),
    ):
        assert dialer(*command, "--help").code == 0


def test_dnc_rejects_what_is_not_a_telephone_number(dialer: Dialer) -> None:
    for number in ("12", "abc", "1" * 21, "5511x"):
        assert dialer("dnc", "add", number) == Ran(
            code=2,
            out="",
            err=f"dialer: {number!r} is not a telephone number: "
            "3 to 20 digits with an optional leading +\n",
        )


def test_dnc_hides_the_password_if_redis_is_down(dialer: Dialer) -> None:
    content = tables()
    content["registry"] = {"redis_url": f"redis://:{MARK}@127.0.0.1:1/0"}
    write(content)
    ran = dialer("dnc", "check", "551112345678")
    assert ran.code == 2
    assert ran.err.startswith("dialer: the registry's Redis at redis://:***@127.0.0.1:1/0 cannot")
    assert MARK not in ran.err


def test_help_imports_no_heavy_module() -> None:
    code = (
        "import sys; sys.argv = ['dialer', '--help']\nfrom dialer import cli\ntry:\n cli.main()\n"
    )
    code += "finally:\n print('HEAVY', {'celery', 'redis', 'pydantic'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[2],
    )
    assert ran.stdout.splitlines()[-1] == "HEAVY set()"


def test_ctrl_c_exits_quietly_with_code_130() -> None:
    code = "import sys, time; from dialer import cli\n"
    code += "def start(program): print('up', flush=True); time.sleep(60)\n"
    code += "cli.programs.settings_with_log = start\n"
    code += "sys.argv = ['dialer', 'monitor']; cli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(cli.__file__).parents[2],
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert err == ""
