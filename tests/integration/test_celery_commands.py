"""`celery -A dialer …` with settings that are wrong: one sentence, exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.stack import BIN, ROOT

SOUND = (ROOT / "deploy" / "dialer.toml").read_text(encoding="utf-8")


def missing(path: Path) -> None: ...


def broken_toml(path: Path) -> None:
    path.write_text("[multcall\n")


def wrong_value(path: Path) -> None:
    path.write_text(SOUND.replace("threads = ", "threads = -", 1))


def unknown_key(path: Path) -> None:
    path.write_text("color = 1\n" + SOUND)


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" + SOUND.encode())


def a_folder(path: Path) -> None:
    path.mkdir()


def not_readable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # root may read every file; this one cannot be read


FAULTS = [missing, broken_toml, wrong_value, unknown_key, not_utf8, a_folder, not_readable]
COMMANDS = (["worker", "-Q", "pbx01"], ["flower"], ["inspect", "ping"], ["control", "shutdown"])


def celery(
    folder: Path, arguments: list[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "celery", "-A", "dialer", *arguments],
        cwd=ROOT,
        env={**os.environ, "DIALER_CONFIG": str(folder / "dialer.toml"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def the_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("dialer: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    fault(tmp_path / "dialer.toml")
    said = the_sentence(celery(tmp_path, COMMANDS[0]))
    assert "dialer.toml" in said


@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: command[0])
def test_every_command_says_it(tmp_path: Path, command: list[str]) -> None:
    assert "there is no such file" in the_sentence(celery(tmp_path, command))


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    (tmp_path / "dialer.toml").write_text(SOUND)
    said = the_sentence(celery(tmp_path, COMMANDS[0], DIALER_BROKER__URL="http://x"))
    assert "DIALER_BROKER__URL" in said


def test_a_credential_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "dialer.toml").write_text(SOUND)
    folder = tmp_path / "credentials"
    (folder / "DIALER_PBX01_SECRET").mkdir(parents=True)
    said = the_sentence(celery(tmp_path, COMMANDS[0], CREDENTIALS_DIRECTORY=str(folder)))
    assert "DIALER_PBX01_SECRET cannot be read" in said


def test_a_log_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "dialer.toml").write_text(SOUND)
    done = celery(tmp_path, COMMANDS[0], DIALER_LOG__LOCATION="/proc/nowhere")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]  # Celery may warn of root before
    assert last.startswith("dialer: log.location: nothing can be written in")
    assert "Traceback" not in done.stderr
