"""`[multcall.fields]`: the site's names in both directions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dialer.domain.allowed import Allowed
from dialer.domain.call import CallError, Ending, Result
from dialer.domain.channel import channel_id
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.answers import (
    Ack,
    ErrorDetail,
    Response,
    ack,
    invalid_response,
    response_parts,
)
from dialer.multcall.code import parse_code
from dialer.multcall.fields import Fields
from dialer.multcall.identity import readable_id
from dialer.multcall.refusals import known
from dialer.multcall.renames import FIELDS, clashes
from dialer.multcall.request import Request, admissible_request, parse_request
from dialer.multcall.samples import samples
from dialer.multcall.wire import Wire

AT = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)

#: Every field has another name.
OTHER = Fields({name: f'{name}É"' for name in FIELDS})
WIRE = Wire(fields=OTHER)


def renamed(values: dict[str, Any]) -> bytes:
    return json.dumps({OTHER.name(name): value for name, value in values.items()}).encode()


REQUEST = {
    "IdRequisicao": "a-1",
    "Telefone": "5511987654321",
    "CallerID": "Loja <1140041234>",
    "Contexto": "ura",
    "Extensao": "s",
    "Prioridade": 1,
    "Tronco": "tim",
    "TempoToque": 30,
    "CriadaEm": "2026-05-04T09:30:00.000-03:00",
    "ValidadeSeg": 600,
    "Variaveis": {"MC_A": "1"},
    "Dados": {"Telefone": [1]},
}


def test_a_renamed_request_reads_as_ours() -> None:
    raw = renamed(REQUEST)
    ours = parse_request(json.dumps(REQUEST).encode(), cell="c")
    assert parse_request(raw, cell="c", wire=WIRE) == ours
    assert readable_id(raw, WIRE) == '"a-1"'
    assert parse_code(renamed({"IdRequisicao": 7, "CodLigacao": "x"}), WIRE).code_json == '"x"'


def test_the_old_name_of_a_renamed_field_is_unknown() -> None:
    wire = Wire(fields=Fields({"Dados": "D"}))
    raw = json.dumps({**REQUEST, "D": 7}).encode()
    assert parse_request(raw, cell="c", wire=wire).data_json == "7"


def answers(fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    request = parse_request(json.dumps(REQUEST).encode(), cell="c")
    accepted = ack(request=request, pbx="p", uniqueid="u", at=AT, fields=fields)
    parts = response_parts(
        request=request,
        pbx="p",
        uniqueid="u",
        attempts=1,
        dialed_at=AT,
        answered_at=AT,
        ending=Ending(
            result=Result.FAILED, ended_at=AT, error=CallError(code="x", message="Telefone")
        ),
        fields=fields,
    )
    return json.loads(accepted), json.loads(parts.head + "7" + parts.tail)


def test_answers_have_the_sites_names_in_the_same_order() -> None:
    plain_ack, plain = answers(Fields())
    other_ack, other = answers(OTHER)
    assert list(other_ack) == [OTHER.name(name) for name in known(Ack)]
    assert list(other) == [OTHER.name(name) for name in known(Response)]
    assert list(plain_ack.values()) == list(other_ack.values())
    error = other.pop(OTHER.name("Erro"))
    assert list(error) == [OTHER.name(name) for name in known(ErrorDetail)]
    assert list(error.values()) == ["x", "Telefone"]  # the words of a sentence stay
    del plain["Erro"]
    assert list(plain.values()) == list(other.values())


def test_names_may_be_exchanged() -> None:
    fields = Fields({"Telefone": "CallerID", "CallerID": "Telefone"})
    raw = b'{"IdRequisicao": 1, "CallerID": "5511", "Telefone": "Loja <190>"}'
    request = parse_request(raw, cell="c", wire=Wire(fields=fields))
    assert (request.number, request.caller_id) == ("5511", "Loja <190>")
    with pytest.raises(InvalidRequest, match=r"^CallerID must be 3 to 20 digits .* \| Telefone mu"):
        parse_request(
            b'{"IdRequisicao":1,"CallerID":"x","Telefone":"y"}', cell="c", wire=Wire(fields=fields)
        )


def test_refusals_use_the_sites_names() -> None:
    fields = Fields({"IdRequisicao": "Id", "Telefone": "Fone", "Variaveis": "Vars"})
    raw = b'{"Id": 7, "Fone": "x", "Vars": {"A B": "1", "CPF": "1"}, "Contexto": "z"}'
    with pytest.raises(InvalidRequest) as refused:
        admissible_request(raw, cell="c", allowed=Allowed(), wire=Wire(fields=fields))
    error = refused.value
    assert [problem.split(" must")[0].split(":")[0] for problem in error.problems] == [
        "Fone",
        "a name in Vars",
        "Vars.CPF",
        "Contexto z is not allowed",
    ]
    assert (error.field, error.request_id_json) == ("Fone", "7")
    answer = json.loads(
        invalid_response(cell="c", request_id_json="7", error=error, at=AT, fields=fields)
    )
    assert answer["Id"] == 7
    assert answer["Erro"] == {"Codigo": "invalid_request", "Mensagem": str(error)}


def test_a_missing_renamed_field_is_asked_for_by_its_name() -> None:
    wire = Wire(fields=Fields({"Telefone": "Fone"}))
    with pytest.raises(InvalidRequest) as refused:
        parse_request(b'{"IdRequisicao": 7, "Telefone": "190"}', cell="c", wire=wire)
    assert str(refused.value) == (
        "Fone is missing; the element has Telefone, which [multcall.fields] renames to Fone"
    )
    with pytest.raises(InvalidRequest, match=r"^Fone is missing; the element has FONE: capital"):
        parse_request(b'{"IdRequisicao": 7, "FONE": "190"}', cell="c", wire=wire)


def test_every_field_of_every_message_can_be_renamed() -> None:
    assert set(known(Request)) < set(FIELDS)
    assert {"Codigo", "Mensagem", "CodLigacao", "Em", "FaladoSeg"} < set(FIELDS)
    assert list(clashes(OTHER, any_case=True)) == []
    assert list(clashes(Fields(), any_case=True)) == []


def test_one_name_in_different_messages_is_no_clash() -> None:
    assert list(clashes(Fields({"Tronco": "Em", "Codigo": "Dados"}), any_case=True)) == []


@pytest.mark.parametrize("fields", [Fields(), OTHER], ids=["plain", "renamed"])
def test_samples_are_accepted_and_complete(fields: Fields) -> None:
    wire = Wire(fields=fields)
    found = list(samples("ASR_TIM", fields, pbx="pbx01", trunk="tim"))
    titles = [title.partition(",")[0] for title, _, _ in found]
    assert titles == ["Request", "ACK", "CODLIGACAO", "Response", "Response to a refused request"]
    texts = [text for _, _, text in found]
    request = admissible_request(
        texts[0].encode(), cell="ASR_TIM", allowed=Allowed(), trunks={"tim"}, wire=wire
    )
    code = parse_code(texts[2].encode(), wire)
    assert isinstance(request, CallRequest)
    assert code.request_id == request.request_id
    assert list(json.loads(texts[1])) == [fields.name(name) for name in known(Ack)]
    for text in texts[3:]:
        assert list(json.loads(text)) == [fields.name(name) for name in known(Response)]
    assert [key for _, key, _ in found][:2] == [
        "ZancURA2.0-Request-ASR_TIM",
        "ZancURA2.0-ACK-ASR_TIM",
    ]


def test_samples_have_the_uniqueid_of_a_real_call() -> None:
    found = [json.loads(text) for _, _, text in samples("ASR_TIM", Fields(), pbx="p", trunk="t")]
    expected = channel_id(f"ASR_TIM:{found[0]['IdRequisicao']}")
    assert [message["Uniqueid"] for message in (found[1], found[3])] == [expected, expected]


def test_an_element_is_renamed_as_text() -> None:
    fields = Fields({"Telefone": "Fone", "Erro": "E", "Codigo": "C", "Dados": "Telefone"})
    ours = b'{"Telefone":"190","Dados":{"Telefone":1.10},"Erro":{"Codigo":"x"}}'
    theirs = b'{"Fone":"190","Telefone":{"Telefone":1.10},"E":{"C":"x"}}'
    assert fields.to_ours(theirs) == ours
    assert fields.to_wire(ours) == theirs.replace(b'"C"', b'"Codigo"')
    for broken in (b"", b"{", b"\xff", b"[]"):
        assert fields.to_wire(broken) == fields.to_ours(broken) == broken
    assert Fields().to_wire(ours) == Fields().to_ours(ours) == ours
