from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dialer.domain.allowed import Allowed
from dialer.domain.call import Ending, Result
from dialer.domain.channel import channel_id
from dialer.errors import InvalidRequest
from dialer.multcall.answers import ack, dead, invalid_response, response_parts
from dialer.multcall.code import parse_code
from dialer.multcall.keys import CellKeys
from dialer.multcall.request import admissible_request, parse_request
from dialer.multcall.schema import MESSAGES, schema_of

ROOT = Path(__file__).parents[2]
WIRE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^```json ([a-z-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELL = "ASR_TIM"


def examples(kind: str) -> list[str]:
    return [text.strip() for found, text in EXAMPLE.findall(WIRE) if found == kind]


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", WIRE, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[1]


def first_column(title: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", section(title), re.MULTILINE)


def test_every_json_block_names_its_message() -> None:
    kinds = {kind for kind, _ in EXAMPLE.findall(WIRE)}
    assert kinds == {"request", "ack", "codligacao", "response", "bad-request", "dead"}
    assert WIRE.count("```json") == len(EXAMPLE.findall(WIRE))


@pytest.mark.parametrize("kind", ["request", "ack", "codligacao", "response", "dead"])
def test_every_example_is_valid_by_its_schema(kind: str) -> None:
    check = jsonschema.Draft202012Validator(schema_of(MESSAGES[f"{kind}.schema.json"]))
    for text in examples(kind):
        check.validate(json.loads(text))


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("Request", "request"),
        ("ACK", "ack"),
        ("CODLIGACAO", "codligacao"),
        ("Response", "response"),
    ],
)
def test_tables_list_every_field_in_wire_order(title: str, kind: str) -> None:
    assert first_column(title) == list(schema_of(MESSAGES[f"{kind}.schema.json"])["properties"])


def test_dead_list_table_has_every_reason_and_field() -> None:
    properties = schema_of(MESSAGES["dead.schema.json"])["properties"]
    names = first_column("Bad input and the dead list")
    assert names == [*properties["reason"]["enum"], *properties]


def test_the_result_table_names_every_result() -> None:
    assert first_column("Resultado") == [str(result) for result in Result]


def test_error_table_lists_every_code() -> None:
    given = re.compile(r'CallError\(\s*code="([a-z_]+)"|_fail\([^"]*"([a-z_]+)"')
    sources = [*(ROOT / "dialer").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    found = {
        "".join(codes)
        for source in sources
        for codes in given.findall(source.read_text(encoding="utf-8"))
    }
    assert found <= set(first_column("Erro.Codigo"))


def test_the_key_table_names_every_key() -> None:
    keys = CellKeys("<cell>")
    assert first_column("Keys") == [
        keys.request,
        keys.ack,
        keys.code,
        keys.response,
        keys.counter,
        keys.counter_ack,
        keys.agents,
    ]


def same(composed: str, example: str) -> bool:
    def exact(text: str) -> Any:
        return json.loads(text, parse_float=str, object_pairs_hook=list)

    return bool(exact(composed) == exact(example))


def test_the_examples_of_one_call_belong_together() -> None:
    allowed = Allowed(contexts=("dialer-ura",), extensions=("s",), priorities=(1,))
    raw = examples("request")[0].encode()
    request = admissible_request(raw, cell=CELL, allowed=allowed)
    code = parse_code(examples("codligacao")[0].encode())
    dialed = datetime(2026, 5, 4, 12, 30, 1, tzinfo=UTC)
    uniqueid = channel_id(request.call_id)
    accepted = ack(
        request=request, pbx="pbx01", uniqueid=uniqueid, at=dialed + timedelta(milliseconds=42)
    )
    parts = response_parts(
        request=request,
        pbx="pbx01",
        uniqueid=uniqueid,
        attempts=1,
        dialed_at=dialed,
        answered_at=dialed + timedelta(seconds=8.25),
        ending=Ending(
            result=Result.ANSWERED,
            ended_at=dialed + timedelta(minutes=2),
            cause=16,
            cause_text="Normal Clearing",
            amd="HUMAN",
            agent="PJSIP/2001",
            wait_s=1.25,
        ),
    )
    assert code.request_id == request.request_id
    assert same(accepted, examples("ack")[0])
    assert same(parts.head + code.code_json + parts.tail, examples("response")[0])


def test_smallest_documented_request_is_accepted() -> None:
    assert parse_request(examples("request")[1].encode(), cell=CELL).request_id == "124"


def test_documented_bad_request_is_answered_as_shown() -> None:
    raw = examples("bad-request")[0].encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_request(raw, cell=CELL)
    error = refused.value
    at = datetime(2026, 5, 4, 12, 30, 1, tzinfo=UTC)
    assert error.request_id_json is not None
    answer = invalid_response(cell=CELL, request_id_json=error.request_id_json, error=error, at=at)
    entry = dead(raw=raw, source="request", reason="invalid_request", message=str(error), at=at)
    assert same(answer, examples("response")[1])
    assert same(entry, examples("dead")[0])
