"""The checker of the simulated Multcall finds each kind of violation."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.request import CallRequest
from dialer.errors import DialerError
from dialer.multcall.answers import ack, response_parts
from dialer.multcall.request import parse_request
from dialer.simulation.multcall.checker import Checker, percentile
from dialer.simulation.multcall.requests import (
    AWKWARD_DATA,
    KINDS,
    Asked,
    Script,
    expected_results,
    parse_mix,
)

CELL = "ura-novo-2"
CREATED = datetime(2026, 5, 4, 12, 30, 0, tzinfo=UTC)
DIALED = CREATED + timedelta(seconds=1)
ANSWERED = CREATED + timedelta(seconds=6)
ENDED = CREATED + timedelta(seconds=30)
UP = {"answered_at": ANSWERED}

ASKED = Asked(
    cell=CELL,
    request_id="a-1",
    request_id_json='"a-1"',
    element=b"",
    number="+551190000000012",
    created_at_json='"2026-05-04T09:30:00-03:00"',
    data_json='{ "b": 1.10 }',
    code_json='"lig-7"',
)


def request(asked: Asked) -> CallRequest:
    return CallRequest(
        cell=asked.cell,
        request_id=asked.request_id,
        request_id_json=asked.request_id_json,
        number=asked.number,
        created_at_json=asked.created_at_json,
        data_json=asked.data_json,
    )


def acked(asked: Asked = ASKED, pbx: str = "pbx01", uniqueid: str = "ura-novo-2:a-1") -> bytes:
    return ack(request=request(asked), pbx=pbx, uniqueid=uniqueid, at=DIALED).encode()


def response(
    asked: Asked = ASKED,
    result: Result = Result.ANSWERED,
    *,
    code_json: str | None = None,
    dialed_at: datetime | None = DIALED,
    answered_at: datetime | None = ANSWERED,
    ended_at: datetime = ENDED,
    attempts: int = 1,
    error: CallError | None = None,
) -> bytes:
    parts = response_parts(
        request=request(asked),
        pbx="pbx01",
        uniqueid="ura-novo-2:a-1",
        attempts=attempts,
        dialed_at=dialed_at,
        answered_at=answered_at if result is Result.ANSWERED else None,
        ending=Ending(result=result, ended_at=ended_at, error=error),
    )
    return f"{parts.head}{asked.code_json if code_json is None else code_json}{parts.tail}".encode()


def play(
    *,
    asked: Asked = ASKED,
    acks: tuple[bytes, ...] | None = None,
    responses: tuple[bytes, ...] | None = None,
    code_at: float | None = 0.3,
    disturbed: bool = False,
    more: Callable[[Checker], None] = lambda _: None,
) -> list[str]:
    """The kinds of violation of one call that is correct except for what is given."""
    checker = Checker(disturbed=disturbed)
    checker.pushed(asked, 0.0)
    for raw in acks if acks is not None else (acked(asked),):
        checker.acked(asked.cell, raw, 0.2)
    if code_at is not None:
        checker.code_sent(asked, code_at)
    for raw in responses if responses is not None else (response(asked),):
        checker.responded(asked.cell, raw, 31.0)
    more(checker)
    return [violation.kind for violation in checker.violations()]


def with_field(raw: bytes, name: str, value: object) -> bytes:
    return json.dumps({**json.loads(raw), name: value}).encode()


def test_correct_call_has_no_violation() -> None:
    assert play() == []


def test_a_request_without_a_response_is_found() -> None:
    assert play(responses=()) == ["no_response"]


def test_a_second_response_is_found() -> None:
    assert play(responses=(response(), response())) == ["second_response"]


def test_a_second_ack_is_found_and_gets_no_second_code() -> None:
    checker = Checker()
    checker.pushed(ASKED, 0.0)
    assert checker.acked(CELL, acked(), 0.1) is ASKED
    assert checker.acked(CELL, acked(), 0.2) is None
    assert [v.kind for v in checker.violations()] == ["second_ack", "no_response"]


def test_an_ack_for_a_call_that_was_never_made_is_found() -> None:
    stranger = replace(ASKED, request_id="b", request_id_json='"b"')
    assert play(acks=(acked(), acked(stranger))) == ["unknown"]


def test_a_response_for_a_call_that_was_never_made_is_found() -> None:
    stranger = replace(ASKED, request_id="b", request_id_json='"b"')
    assert play(responses=(response(), response(stranger))) == ["unknown"]


def test_an_ack_on_another_cells_list_is_found() -> None:
    kinds = play(more=lambda checker: void(checker.acked("other", acked(), 0.2)))
    assert kinds == ["unknown"]


def void(_: object) -> None:
    """Ignore what a lambda returns."""


def test_an_answer_that_names_another_cell_is_found() -> None:
    assert "cell" in play(responses=(with_field(response(), "Celula", "other"),))


def test_an_answered_call_without_an_ack_is_found() -> None:
    assert play(acks=(), code_at=None, responses=(response(code_json="null"),)) == ["no_ack"]


def test_ack_with_another_pbx_than_the_response_is_found() -> None:
    assert play(acks=(acked(pbx="pbx02"),)) == ["ack"]


def test_ack_with_another_channel_is_found() -> None:
    assert play(acks=(acked(uniqueid="1234.5"),)) == ["ack"]


def test_an_ack_of_a_call_that_was_never_dialed_is_found() -> None:
    error = CallError(code="expired", message="too late")
    asked = replace(ASKED, results=frozenset({Result.EXPIRED}))
    late = response(asked, Result.EXPIRED, error=error, dialed_at=None, attempts=0)
    assert play(asked=asked, responses=(late,)) == ["ack", "ack"]


@pytest.mark.parametrize("came", ["null", '"lig-8"', "7"])
def test_a_code_that_is_not_the_one_sent_is_found(came: str) -> None:
    assert play(responses=(response(code_json=came),)) == ["code"]


def test_a_code_that_nobody_sent_is_found() -> None:
    assert play(code_at=None) == ["code"]


def test_a_code_that_was_sent_late_need_not_come_back() -> None:
    assert play(code_at=9.5, responses=(response(code_json="null"),)) == []


def test_a_code_that_was_sent_late_must_not_change() -> None:
    assert play(code_at=9.5, responses=(response(code_json="8"),)) == ["code"]


def test_a_result_that_the_number_does_not_lead_to_is_found() -> None:
    assert play(responses=(response(result=Result.BUSY),)) == ["result"]


def test_answered_call_without_answer_time_is_found() -> None:
    assert play(responses=(response(answered_at=None),)) == ["result"]


def test_a_busy_call_with_the_time_of_an_answer_is_found() -> None:
    asked = replace(ASKED, results=frozenset({Result.BUSY}))
    raw = with_field(response(asked), "Resultado", "BUSY").replace(b'"b": 1.1}', b'"b": 1.10 }')
    assert "result" in play(asked=asked, responses=(raw,))


def test_a_failed_call_without_an_error_is_found() -> None:
    asked = replace(ASKED, results=frozenset({Result.FAILED}))
    assert play(asked=asked, responses=(response(asked, Result.FAILED),)) == ["error"]


def test_an_answered_call_with_an_error_is_found() -> None:
    error = CallError(code="odd", message="odd")
    assert play(responses=(response(error=error),)) == ["error"]


@pytest.mark.parametrize("came", ['{"b":1.10}', '{ "b": 1.1 }', "null"])
def test_data_that_came_back_changed_are_found(came: str) -> None:
    changed = replace(ASKED, data_json=came)
    assert play(responses=(response(changed),)) == ["changed"]
    assert play(acks=(acked(changed),)) == ["changed"]


def test_a_time_of_creation_that_came_back_changed_is_found() -> None:
    changed = replace(ASKED, created_at_json='"2026-05-04T12:30:00Z"')
    assert play(responses=(response(changed),)) == ["changed"]


def test_id_returned_as_number_instead_of_text_is_found() -> None:
    text = replace(ASKED, request_id="7", request_id_json='"7"')
    number = replace(text, request_id_json="7")
    assert play(asked=text, responses=(response(number),)) == ["changed"]


def test_an_answer_before_the_dialing_is_found() -> None:
    early = DIALED - timedelta(seconds=0.2)
    assert play(responses=(response(answered_at=early),)) == ["times"]


def test_a_dialing_before_the_request_is_found() -> None:
    early = CREATED - timedelta(seconds=2)
    assert play(responses=(response(dialed_at=early),)) == ["times"]


def test_an_end_before_the_answer_is_found() -> None:
    early = ANSWERED - timedelta(seconds=1)
    assert play(responses=(response(ended_at=early),)) == ["times"]


@pytest.mark.parametrize("name", ["DuracaoSeg", "FaladoSeg"])
@pytest.mark.parametrize("length", [0.0, 1e6, None])
def test_a_duration_that_does_not_fit_the_times_is_found(name: str, length: float | None) -> None:
    assert "times" in play(responses=(with_field(response(), name, length),))


def test_a_dialed_call_without_attempts_is_found() -> None:
    assert play(responses=(response(attempts=0),)) == ["times"]


@pytest.mark.parametrize("missing", ["Operador", "Erro", "Dados", "Uniqueid"])
def test_a_response_that_lacks_a_field_is_found(missing: str) -> None:
    fields = json.loads(response())
    del fields[missing]
    assert "schema" in play(responses=(json.dumps(fields).encode(),))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"IdRequisicao":"a-1"}'])
def test_an_answer_that_is_not_whole_is_found(raw: bytes) -> None:
    assert play(responses=(raw,)) == ["schema", "no_response"]
    assert "schema" in play(acks=(raw,), code_at=None)


def test_a_counter_that_did_not_come_back_to_zero_is_found() -> None:
    assert play(more=lambda checker: checker.counted(CELL, "1", "0")) == ["counter"]
    assert play(more=lambda checker: checker.counted(CELL, "-1", "2")) == ["counter", "counter"]
    assert play(more=lambda checker: checker.counted(CELL, None, "0")) == []


def test_a_number_that_rang_twice_is_found() -> None:
    assert play(more=lambda checker: checker.rang({ASKED.number: 2})) == ["rang_twice"]


def test_a_number_that_rang_unasked_is_found() -> None:
    rings = {ASKED.number: 1, "190": 1}
    assert play(more=lambda checker: checker.rang(rings)) == ["rang_twice"]


def test_an_answered_call_whose_number_never_rang_is_found() -> None:
    assert play(more=lambda checker: checker.rang({})) == ["never_rang"]


def test_unseen_end_is_correct_only_with_disturbance() -> None:
    error = CallError(code="pbx_lost", message="gone")
    unseen = response(result=Result.UNKNOWN, error=error, code_json="null")
    assert play(responses=(unseen,), disturbed=True) == []
    assert play(responses=(unseen,)) == ["code", "result"]


def test_disturbance_excuses_no_wrong_response() -> None:
    assert play(responses=(response(), response()), disturbed=True) == ["second_response"]
    assert play(responses=(response(result=Result.BUSY),), disturbed=True) == ["result"]
    assert play(responses=(), disturbed=True) == ["no_response"]


def test_a_violation_is_one_sentence_with_the_id_of_its_call() -> None:
    checker = Checker()
    checker.pushed(ASKED, 0.0)
    assert [str(v) for v in checker.violations()] == ["a-1: no Response arrived"]


def test_summary_counts_and_measures_push_to_ack() -> None:
    checker = Checker()
    for n in range(100):
        asked = replace(ASKED, request_id=f"{n}", request_id_json=f"{n}")
        checker.pushed(asked, n / 10)
        checker.acked(CELL, acked(asked), n / 10 + (n + 1) / 1000)
        checker.code_sent(asked, n / 10 + 0.1)
        checker.responded(CELL, response(asked), n / 10 + 20)
    summary = checker.summary()
    assert summary.is_right
    assert (summary.calls, summary.acks, summary.codes, summary.responses) == (100,) * 4
    assert (summary.results, summary.pbxs) == ({Result.ANSWERED: 100}, {"pbx01": 100})
    assert summary.ack_p50_s == pytest.approx(0.050)
    assert summary.ack_p99_s == pytest.approx(0.099)
    assert summary.ack_max_s == pytest.approx(0.100)
    assert summary.pushing_s == pytest.approx(9.9)
    assert summary.duration_s == pytest.approx(29.9)


def test_a_run_without_acks_has_no_latency() -> None:
    summary = Checker().summary()
    assert (summary.ack_p50_s, summary.ack_p99_s, summary.duration_s) == (None, None, 0.0)


def test_percentiles_are_values_that_occurred() -> None:
    values = sorted(random.Random(1).sample(range(1000), 50))
    assert all(percentile(values, p) in values for p in (0, 1, 50, 99, 100))
    assert percentile([], 50) is None


# --- requests --------------------------------------------------------------------------


def script(calls: int = 200, **fields: object) -> list[Asked]:
    made = Script(run="abc123", cells=("ASR_TIM", CELL), calls=calls, **fields)  # type: ignore[arg-type]
    return list(made.requests(CREATED, 100.0))


def test_every_other_request_is_valid_on_the_wire() -> None:
    for asked in script(400, mix=dict.fromkeys(KINDS.keys() - {"malformed"}, 1)):
        read = parse_request(asked.element, cell=asked.cell)
        assert (read.number, read.request_id_json) == (asked.number, asked.request_id_json)
        assert (read.data_json, read.created_at_json) == (asked.data_json, asked.created_at_json)
    assert {asked.data_json for asked in script()} == set(AWKWARD_DATA)


def test_a_malformed_request_is_refused_with_an_id_to_answer_to() -> None:
    for asked in script(20, mix={"malformed": 1}):
        with pytest.raises(DialerError) as refused:
            parse_request(asked.element, cell=asked.cell)
        assert getattr(refused.value, "request_id_json", None) == asked.request_id_json
        assert asked.results == {Result.INVALID_REQUEST}


def test_no_two_requests_of_a_run_share_an_id_or_a_number() -> None:
    asked = script(2000)
    assert len({(a.cell, a.request_id) for a in asked}) == 2000
    assert len({a.number for a in asked}) == 2000
    assert {a.cell for a in asked} == {"ASR_TIM", CELL}


def test_the_ids_of_two_runs_differ() -> None:
    one, two = (
        Script(run=run, cells=(CELL,), calls=50).requests(CREATED, 1.0) for run in ("a1", "b2")
    )
    assert not {a.request_id for a in one} & {a.request_id for a in two}


def test_each_kind_leads_to_the_result_of_its_name() -> None:
    for kind in ("answered", "busy", "rejected", "invalid_number", "congestion", "no_answer"):
        for digits in KINDS[kind]:
            assert expected_results(f"+5511900{digits:02d}") == {Result(kind.upper())}
    assert expected_results("85") == expected_results("86") == {Result.FAILED}
    assert expected_results("87") == {Result.FAILED, Result.UNKNOWN}


def test_fields_of_every_request_can_be_given() -> None:
    (asked,) = script(1, ring_timeout_s=3, valid_for_s=60, extra={"Tronco": "tim"})
    read = parse_request(asked.element, cell=asked.cell)
    assert (read.ring_timeout_s, read.valid_for_s, read.trunk) == (3, 60, "tim")


def test_a_mix_is_read_as_shares() -> None:
    assert parse_mix("answered=80, busy=20,long") == {"answered": 80, "busy": 20, "long": 1}


@pytest.mark.parametrize("text", ["", "answered=0", "answered=x", "engaged=1", "busy=-1"])
def test_empty_mix_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(DialerError, match=r"mix"):
        parse_mix(text)
