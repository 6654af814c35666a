"""What a cell lets a request say to Asterisk, and the names that Asterisk itself reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.allowed import (
    ALWAYS,
    Allowed,
    Refusal,
    asterisk_name_in,
    extension_regex,
    is_extension_in,
)
from dialer.domain.asterisk_names import ASTERISK_NAMES
from dialer.domain.request import CallRequest
from tests.unit.hostile_requests import MEANT_BY_ASTERISK

NAMES = [name.rstrip("*#") + ("1" if name.endswith("#") else "") for name in ASTERISK_NAMES.split()]

DEFAULT = Allowed(contexts=("dialer-ura",), extensions=("s",), priorities=(1,))


def request(**fields: object) -> CallRequest:
    known = {"cell": "c", "request_id": "1", "request_id_json": "1", "number": "190"}
    return CallRequest(**{**known, **fields})  # type: ignore[arg-type]


def with_variable(name: str) -> CallRequest:
    return request(variables=((name, "x"),))


def sentence(allowed: Allowed, asked: CallRequest) -> str:
    refusal = allowed.refusal(asked)
    assert refusal is not None
    return refusal.sentence


@pytest.mark.parametrize("name", [*MEANT_BY_ASTERISK, "DIALER_ID"])
def test_a_name_of_asterisk_is_known_by_its_list(name: str) -> None:
    assert asterisk_name_in(name)


@given(name=st.sampled_from(NAMES), underscores=st.integers(0, 4), lower=st.booleans())
def test_no_cell_can_let_a_name_of_asterisk_pass(name: str, underscores: int, lower: bool) -> None:
    asked = "_" * underscores + (name.lower() if lower else name)
    anything = Allowed(variables=("*", name, name.lower()))
    assert "Asterisk gives" in sentence(anything, with_variable(asked))


def test_a_refused_variable_is_named_with_the_cure() -> None:
    allowed = Allowed(variables=("CPF", "X_*"))
    assert allowed.refusal(with_variable("NOME")) == Refusal(
        field="Variaveis",
        sentence="Variaveis.NOME: this cell takes only MC_*, CPF, X_*; rename it, or add it to "
        "the cell's variables in dialer.toml",
    )
    assert sentence(allowed, with_variable("__monitor_exec")) == (
        "Variaveis.__monitor_exec: Asterisk gives MONITOR_EXEC a meaning of its own; rename it"
    )


@pytest.mark.parametrize("name", ["MC_", "MC_CPF", "_MC_A", "__MC_A"])
def test_a_cell_without_a_list_takes_multcalls_own(name: str) -> None:
    assert Allowed().refusal(with_variable(name)) is None


@pytest.mark.parametrize("name", ["CPF", "MC", "mc_a", "XMC_A", "_", "__"])
def test_a_cell_without_a_list_takes_nothing_else(name: str) -> None:
    assert Allowed().refusal(with_variable(name)) is not None


@pytest.mark.parametrize(
    ("name", "passes"),
    [("CPF", True), ("__CPF", True), ("cpf", False), ("CPFX", False), ("X_", True), ("X_1", True)],
)
def test_a_list_takes_names_and_prefixes(name: str, passes: bool) -> None:
    allowed = Allowed(variables=("CPF", "X_*"))
    assert (allowed.refusal(with_variable(name)) is None) is passes


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        ("MONITOR_EXEC", "MONITOR_EXEC"),
        ("monitor_exec", "MONITOR_EXEC"),
        ("MONITOR_ANY", "MONITOR_*"),
        ("MON*", "MONITORED"),
        ("M*", "MAC"),
        ("SIPX*", "SIP*"),
        ("ARG7", "ARG7"),
        ("ARGUMENT", None),
        ("ARG*", "ARG1"),
        ("*", "ABANDONED"),
        ("X_*", None),
        ("CPF", None),
        ("VALOR", None),
        (ALWAYS, None),
    ],
)
def test_an_entry_covers_names_of_asterisk_or_none(entry: str, covered: str | None) -> None:
    assert asterisk_name_in(entry) == covered


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"context": "internal"}, "Contexto"),
        ({"context": "Dialer-ura"}, "Contexto"),
        ({"exten": "0044123456789"}, "Extensao"),
        ({"exten": "S"}, "Extensao"),
        ({"priority": 2}, "Prioridade"),
    ],
)
def test_a_target_outside_the_cells_is_refused(fields: dict[str, object], field: str) -> None:
    refusal = DEFAULT.refusal(request(**fields))
    assert refusal is not None
    assert refusal.field == field
    assert refusal.sentence.startswith(f"{field} {next(iter(fields.values()))} is not allowed")


def test_a_target_of_the_cells_is_taken() -> None:
    asked = request(context="dialer-ura", exten="s", priority=1)
    assert DEFAULT.refusal(asked) is None
    assert DEFAULT.refusal(request()) is None


def test_a_cell_without_a_target_takes_none() -> None:
    assert sentence(Allowed(), request(context="x")) == (
        "Contexto x is not allowed: this cell takes none; "
        "add it to the cell's contexts in dialer.toml"
    )


@pytest.mark.parametrize(
    ("pattern", "takes", "refuses"),
    [
        ("s", ["s"], ["S", "ss", ""]),
        ("1.0", ["1.0"], ["110"]),
        ("*72#", ["*72#"], ["72#"]),
        ("_2XXX", ["2000", "2999"], ["200", "20000", "200a", "2\u0660\u0660\u0660", "2000\n"]),
        ("_xzn", ["012"], ["002", "011"]),
        ("_0[1-35]X.", ["01234", "0512"], ["0412", "012"]),
        ("_9!", ["9", "9123"], ["8", ""]),
        ("_*[*#]1", ["**1", "*#1"], ["*11"]),
    ],
)
def test_extensions_match_as_in_extensions_conf(
    pattern: str, takes: list[str], refuses: list[str]
) -> None:
    assert [one for one in takes if not is_extension_in(one, [pattern])] == []
    assert [one for one in refuses if is_extension_in(one, [pattern])] == []


@pytest.mark.parametrize("pattern", ["_", "_.X", "_[", "_[]", "_[9-0]", "_1.2", "_a-b", "__X"])
def test_a_wrong_extension_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a pattern of"):
        extension_regex(pattern)


@given(st.text("_XZN[]0129-.!*#+a^", max_size=12))
def test_a_pattern_is_compiled_or_refused(pattern: str) -> None:
    try:
        compiled = extension_regex(pattern)
    except ValueError:
        return  # the only error there is
    assert pattern.startswith("_") or compiled.fullmatch(pattern)
