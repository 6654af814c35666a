"""`dialer dnc add|remove|import|check` on a real Redis: output and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.cli.groups import EXIT_NO
from tests.processes import PbxPlace, site_toml

Dnc = Callable[..., Result]


@pytest.fixture
def dnc(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dnc:
    """Run `dialer dnc ...` with settings whose registry is `redis_url`."""
    config = tmp_path / "dialer.toml"
    pbx = PbxPlace(name="pbx01", port=5038, secret="x")
    config.write_text(site_toml(redis_url, redis_url, [pbx], cells={"ASR_TIM": {}}))
    monkeypatch.setenv("DIALER_CONFIG", str(config))
    return lambda *arguments: CliRunner().invoke(app, ["dnc", *arguments])


def test_dnc_add_ignores_separators_and_repetitions(dnc: Dnc) -> None:
    assert dnc("add", "+55 (11) 99999-0000", "5511999990001").stdout == (
        "2 added, 0 were on the list\n"
    )
    assert dnc("add", "+5511999990000").stdout == "0 added, 1 were on the list\n"


def test_dnc_check_exits_with_1_if_a_number_is_not_listed(dnc: Dnc) -> None:
    dnc("add", "5511999990000")
    listed = dnc("check", "5511999990000")
    assert (listed.exit_code, listed.stdout) == (0, "5511999990000 is on the list\n")
    mixed = dnc("check", "5511999990000", "190")
    assert mixed.exit_code == EXIT_NO
    assert mixed.stdout.splitlines()[1] == "190 is not on the list"


def test_dnc_remove_takes_numbers_off_the_list(dnc: Dnc) -> None:
    dnc("add", "5511999990000")
    assert dnc("remove", "5511999990000", "190").stdout == "1 removed, 1 were not on the list\n"
    assert dnc("check", "5511999990000").exit_code == EXIT_NO


def test_dnc_import_adds_every_number_of_a_long_file(dnc: Dnc, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.txt"
    lines = [f"5511{n:09d}" for n in range(2500)]  # more than two batches
    numbers.write_text("\n".join(["# comment", "", f"{lines[0]}  # first", *lines]))
    assert dnc("import", str(numbers)).stdout == "2500 added, 0 were on the list\n"
    assert dnc("check", lines[0], lines[-1]).exit_code == 0
