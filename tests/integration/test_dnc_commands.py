"""`dialer dnc add|remove|import|check` on a real Redis: output and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.cli.groups import EXIT_NO
from dialer.errors import StoreUnavailable
from dialer.store.registry import Registry
from tests.processes import PbxPlace, site_toml

Dnc = Callable[..., Result]


@pytest.fixture
def dnc(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dnc:
    """Run `dialer dnc ...` with settings whose registry is `redis_url`."""
    configure(tmp_path, redis_url)
    monkeypatch.setenv("DIALER_CONFIG", str(tmp_path / "dialer.toml"))
    return lambda *arguments, stdin=b"": CliRunner().invoke(app, ["dnc", *arguments], input=stdin)


def configure(folder: Path, redis_url: str, extra: str = "") -> None:
    pbx = PbxPlace(name="pbx01", port=5038, secret="x")
    text = site_toml(redis_url, redis_url, [pbx], cells={"ASR_TIM": {}}, extra=extra)
    (folder / "dialer.toml").write_text(text)


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


# --- import of CSV --------------------------------------------------------------------------

CSV = "nome;telefone\nAna;(11) 90000-0010\nB;abc\nC;+5511900000020\nD;12\nE;5511900000020\n"


def test_a_wrong_line_is_named_and_nothing_is_added(dnc: Dnc, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(CSV)
    ran = dnc("import", str(file))
    reason = "is not a telephone number: 3 to 20 digits with an optional leading +"
    assert ran.stderr.splitlines() == [
        f"{file} line 3: 'abc' {reason}",
        f"{file} line 5: '12' {reason}",
    ]
    assert str(ran.exception) == (
        "nothing was added: 2 of 5 lines are wrong (above); correct them, or add the others with "
        "--skip-invalid"
    )
    assert dnc("check", "5511900000020").exit_code == EXIT_NO


def test_the_other_lines_can_be_imported(dnc: Dnc, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text(CSV)
    ran = dnc("import", str(file), "--skip-invalid", "--column", "telefone")
    assert ran.stdout == "2 added, 1 were on the list, 2 lines skipped\n"
    assert "line 3: 'abc'" in ran.stderr
    assert dnc("check", "11900000010", "+5511900000020").exit_code == 0


def test_standard_input_is_imported_all_or_nothing(dnc: Dnc) -> None:
    assert dnc("import", "-", stdin=CSV.encode()).exception is not None
    assert dnc("check", "5511900000020").exit_code == EXIT_NO
    ran = dnc("import", "-", "--column", "2", "--delimiter", ",", stdin=b"a,190\nb,191\n")
    assert ran.stdout == "2 added, 0 were on the list\n"


def test_a_long_list_of_wrong_lines_is_cut(dnc: Dnc) -> None:
    ran = dnc("import", "-", stdin=b"Telefone\n" + b"x\n" * 100)
    assert len(ran.stderr.splitlines()) == 21
    assert ran.stderr.splitlines()[-1] == "... and 80 more"


def test_what_cannot_be_read_is_refused_with_a_sentence(dnc: Dnc, tmp_path: Path) -> None:
    for file in (str(tmp_path / "gone"), str(tmp_path), "a\x00b"):
        assert "name a file that you can read" in str(dnc("import", file).exception)
    ran = dnc("import", "-", "--delimiter", "ab")
    assert str(ran.exception) == "--delimiter takes one of ; , | : and tab"


def test_a_country_makes_spellings_one_number(dnc: Dnc, redis_url: str, tmp_path: Path) -> None:
    dnc("add", "11900000010", "55912345678")
    assert dnc("check", "5511900000010").exit_code == EXIT_NO
    configure(tmp_path, redis_url, '[numbers]\ncountry = "55"')
    same = ["5511900000010", "+5511900000010", "011900000010", "5555912345678"]
    assert dnc("check", *same).exit_code == 0
    assert dnc("check", "5512345678").exit_code == EXIT_NO  # area 55, another number
    assert dnc("add", "5511900000010", "1140041234").stdout == "1 added, 1 were on the list\n"
    assert dnc("remove", "+551140041234").stdout == "1 removed, 0 were not on the list\n"
    configure(tmp_path, redis_url)  # without it again: what was added is found as it was added
    assert dnc("check", "11900000010", "55912345678").exit_code == 0


def test_an_import_that_stops_says_what_is_done(dnc: Dnc, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Registry.dnc_add
    calls = 0

    async def failing(registry: Registry, numbers: Sequence[str]) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StoreUnavailable("the registry's Redis cannot be reached")
        return await add(registry, numbers)

    monkeypatch.setattr(Registry, "dnc_add", failing)
    numbers = "".join(f"119{n:08d}\n" for n in range(2500)).encode()
    assert str(dnc("import", "-", stdin=numbers).exception) == (
        "stopped after 1000 numbers, 1000 of them new; run it again to add the rest: "
        "the registry's Redis cannot be reached"
    )
