"""`dialer wire check` and `dialer wire sample`: output and exit codes, without Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.errors import ConfigError, DialerError
from tests.unit.sound_settings import clean, tables, write

NUMBER = "5511987654321"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def settings(**multcall: Any) -> None:
    content = tables()
    content["multcall"].update(multcall)
    write(content)


def wire(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, ["wire", *arguments], input=stdin)


def test_a_good_request_is_shown_as_it_is_read() -> None:
    settings()
    element = {
        "IdRequisicao": "a-1",
        "Telefone": NUMBER,
        "CallerID": "Loja <1140041234>",
        "Variaveis": {"MC_CPF": "12345678909"},
        "Dados": {"x": 1},
        "Outro": 1,
        "prioridade": 5,
    }
    ran = wire("check", json.dumps(element))
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "IdRequisicao  a-1",
        "Telefone      *********4321",
        "CallerID      Loja <******1234>",
        "Contexto      not given",
        "Extensao      not given",
        "Prioridade    not given",
        "Tronco        not given",
        "TempoToque    not given",
        "CriadaEm      not given",
        "ValidadeSeg   not given",
        "Variaveis     MC_CPF (11 characters)",
        "Dados         8 bytes, which go back unchanged",
        "ignored: Outro, prioridade",
        "note: Prioridade is missing; the element has prioridade: capital and small letters "
        "differ, write Prioridade",
        "Request of ASR_TIM: read without a problem",
    ]


def test_all_problems_are_shown_at_once_with_exit_code_2() -> None:
    settings()
    bad = '{"IdRequisicao": 1, "Telefone": "(11) 90000-0010", "TempoToque": 0, "Contexto": "x"}'
    ran = wire("check", bad)
    assert ran.exit_code == 2
    lines = ran.stdout.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["Telefone", "TempoToque", "Contexto"]
    assert lines[3:] == ["Request of ASR_TIM: refused, 3 problems"]
    assert "90000" not in ran.stdout


def test_lenient_reading_is_offered_if_it_would_help() -> None:
    settings()
    bad = '{"IdRequisicao": 1, "Telefone": "(11) 90000-0010"}'
    assert "with all = true under [multcall.lenient] in dialer.toml it would be read" in (
        wire("check", bad).stdout
    )
    settings(lenient={"phone_signs": True}, fields={"Telefone": "Fone"})
    ran = wire("check", bad.replace("Telefone", "Fone"))
    assert ran.exit_code == 0
    assert "Fone          *******0010" in ran.stdout


def test_an_element_comes_from_a_file_or_standard_input(tmp_path: Path) -> None:
    settings()
    raw = f'{{"IdRequisicao": 1, "Telefone": "{NUMBER}"}}\r\n'.encode()
    (tmp_path / "one.json").write_bytes(b"\xef\xbb\xbf" + raw)
    assert wire("check", "one.json").exit_code == 0
    assert wire("check", "-", stdin=raw).exit_code == 0
    assert wire("check", "-", stdin=b"\xff").exit_code == 2
    assert wire("check", "-", stdin=b"x" * 70_000).stdout.startswith(
        "wrong: The element has 70000 bytes; at most 65536 are allowed"
    )
    for name in ("gone.json", ".", "a\x00b"):
        ran = wire("check", name)
        assert isinstance(ran.exception, ConfigError)
        assert "name a file with one element, or give the element itself" in str(ran.exception)


def test_a_code_is_checked_too() -> None:
    settings(fields={"CodLigacao": "Code"})
    good = wire("check", "--code", '{"IdRequisicao": 1, "Code": "L-1"}')
    assert (good.exit_code, good.stdout.splitlines()[:2]) == (
        0,
        ["IdRequisicao  1", 'Code          "L-1"'],
    )
    bad = wire("check", "--code", '{"idRequisicao": 1, "Code": ""}')
    assert bad.exit_code == 2
    assert [line.split()[1] for line in bad.stdout.splitlines()[:2]] == ["IdRequisicao", "Code"]
    lower = wire("check", "--code", '{"idRequisicao": 1, "code": 1}')
    assert "it would be read" in lower.stdout


def test_a_cell_has_its_own_rules() -> None:
    settings()
    element = f'{{"IdRequisicao": 1, "Telefone": "{NUMBER}", "Tronco": "backup"}}'
    assert wire("check", element).exit_code == 0
    ran = wire("check", element, "--cell", "ura-novoteste2")
    assert ran.stdout.splitlines()[0] == (
        "wrong: Tronco names no trunk of this cell's PBXs; known are tim"
    )
    assert isinstance(wire("check", element, "--cell", "X").exception, DialerError)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"\xed\xa0\x80",
        b'{"\\ud800":1}',
        b"9" * 9999,
    ],
)
def test_hostile_bytes_are_refused_without_a_traceback(raw: bytes) -> None:
    settings()
    for code in ((), ("--code",)):
        ran = wire("check", "-", *code, stdin=raw)
        assert (ran.exit_code, type(ran.exception)) == (2, SystemExit)


def test_samples_have_the_settings_names() -> None:
    settings(fields={"Telefone": "Fone", "Codigo": "Code"})
    ran = wire("sample", "--cell", "ura-novoteste2")
    titles = [line for line in ran.stdout.splitlines() if line.startswith("#")]
    assert titles == [
        "# Request, from Multcall: ZancURA2.0-Request-ura-novoteste2",
        "# ACK, to Multcall: ZancURA2.0-ACK-ura-novoteste2",
        "# CODLIGACAO, from Multcall: ZancURA2.0-CODLIGACAO-ura-novoteste2",
        "# Response, to Multcall: ZancURA2.0-Response-ura-novoteste2",
        "# Response to a refused request: ZancURA2.0-Response-ura-novoteste2",
    ]
    request, *_, refusal = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    assert json.loads(request)["Fone"] == NUMBER
    assert json.loads(refusal)["Erro"]["Code"] == "invalid_request"
    assert wire("check", request, "--cell", "ura-novoteste2").exit_code == 0
