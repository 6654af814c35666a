"""Which requests are refused, with which answer, and where they go."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisGone

from dialer.bridge import refusals
from dialer.bridge.refusals import INTERNAL_ERROR, Candidate, Element, Refusals, expiry
from dialer.domain.call import CallError, Result
from dialer.domain.request import CallRequest
from dialer.errors import InvalidRequest
from dialer.multcall.wire import STRICT
from tests.unit.stand_ins import Notes, a

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BUSY = CallError(code="a_code", message="a message")
REPEAT = "Duplicate request, not dialed again"


def request(name: str, **fields: Any) -> CallRequest:
    given = {"number": f"55{name}", "request_id_json": json.dumps(name), **fields}
    return CallRequest(cell="C", request_id=name, **given)


def candidate(name: str, **fields: Any) -> Candidate:
    return Candidate(Element(name.encode(), f"list of {name}"), request(name, **fields))


class Site:
    """A cell of stand-ins. `counts`: calls to each request's number, None for a used id."""

    def __init__(self, **limits: Any) -> None:
        self.notes = Notes()
        self.reply = "refused"
        self.counts: list[int | None] = []
        self.listed: list[bool] = []
        self.is_open = True
        its: dict[str, Any] = {
            "do_not_call": False,
            "max_attempts_per_number": None,
            "attempts_window_hours": 2.5,
            "outside_hours": "hold",
            "is_open": lambda at: self.is_open and at == NOW,
        }
        ledger = a(
            keys=a(number=lambda text: text.lstrip("+")),
            check=self.notes.of("check", lambda *_, **__: self.counts),
            refuse=self.notes.of("refuse", lambda *_, **__: self.reply),
            bury=self.notes.of("bury", lambda *_: self.reply != "void"),
        )
        self.cell = a(
            name="C",
            settings=a(limits=a(**(its | limits)), allowed="what may pass"),
            trunks="its trunks",
            ledger=ledger,
            registry=a(dnc_contains=self.notes.of("dnc", lambda _: self.listed)),
            wire=STRICT,
            clock=a(now=lambda: NOW),
        )
        self.refusals = Refusals(self.cell)

    @property
    def refused(self) -> list[tuple[Any, ...]]:
        """List, element, id, code in the Response, reason on the dead list, result."""
        return [
            (
                *note[1:3],
                note[3]["request_id"],
                json.loads(note[3]["response"])["Erro"]["Codigo"] if note[3]["response"] else None,
                json.loads(note[3]["dead"])["reason"] if "dead" in note[3] else None,
                note[3]["result"],
            )
            for note in self.notes
            if note[0] == "refuse"
        ]

    @property
    def buried(self) -> list[tuple[Any, ...]]:
        return [(*n[1:3], json.loads(n[3])["reason"]) for n in self.notes if n[0] == "bury"]

    async def allowed(self, *asked: Candidate, **more: bool) -> tuple[list[str], int]:
        found, refused = await self.refusals.allowed(asked, **more)
        return [one.request.request_id for one in found], refused


# --- reading --------------------------------------------------------------------------------


async def test_a_request_that_stayed_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    site, parsed = Site(), list[bytes]()

    def parse(raw: bytes, **_: Any) -> CallRequest:
        parsed.append(raw)
        return request(raw.decode())

    monkeypatch.setattr(refusals, "admissible_request", parse)
    rounds = [[b"a", b"b"], [b"b", b"c"], [b"a"]]
    for raws in rounds:
        found = await site.refusals.read([Element(raw, "hand") for raw in raws])
        assert [one.element.raw for one in found] == raws
        assert [one.request for one in found] == [request(raw.decode()) for raw in raws]
    assert parsed == [b"a", b"b", b"c", b"a"]


async def test_elements_are_read_or_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site, given = Site(), []

    def parse(raw: bytes, **more: Any) -> CallRequest:
        given.append(more)
        match raw:
            case b"good":
                return request("good")
            case b"named":
                raise InvalidRequest("wrong", request_id_json='"n1"')
            case b"nameless":
                raise InvalidRequest("unreadable")
        raise ValueError("a defect")

    monkeypatch.setattr(refusals, "admissible_request", parse)
    raws = [b"named", b"good", b"nameless", b'{"IdRequisicao": "d1"}', b"defect"]
    found = await site.refusals.read([Element(raw, "hand") for raw in raws])
    assert found == [Candidate(Element(b"good", "hand"), request("good"))]
    assert given[0] == {
        "cell": "C",
        "allowed": "what may pass",
        "trunks": "its trunks",
        "wire": STRICT,
    }
    invalid, internal = "invalid_request", "internal_error"
    assert site.refused == [
        ("hand", b"named", "n1", invalid, invalid, Result.INVALID_REQUEST),
        ("hand", b"nameless", None, None, invalid, Result.INVALID_REQUEST),
        ("hand", raws[3], "d1", internal, internal, Result.FAILED),
        ("hand", b"defect", None, None, internal, Result.FAILED),
    ]
    assert site.buried == []
    assert [r.message.partition(";")[0] for r in caplog.records] == [
        *["Request refused"] * 2,
        *["Internal error on a request"] * 2,
    ]
    assert vars(caplog.records[0])["reason"] == "wrong"
    assert vars(caplog.records[2])["cell"] == "C"


async def test_an_error_of_redis_is_not_the_request_s() -> None:
    site = Site()
    with pytest.raises(RedisGone):
        await site.refusals.fail(Element(b"raw", "hand"), RedisGone("lost"))
    assert site.notes == []


@pytest.mark.parametrize("raw", [b'{"IdRequisicao": "d1"}', b"no id"])
async def test_a_refused_request_with_a_used_id_is_a_repeat(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    site.reply = "duplicate"
    await site.refusals.fail(Element(raw, "hand"), ValueError("a defect"))
    assert site.buried == [("hand", raw, "duplicate_request")]
    assert vars(caplog.records[-1])["call_id"] == ("C:d1" if b"d1" in raw else "C:")


# --- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_repeat", [True, False])
async def test_a_request_is_answered_once(
    is_repeat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()
    site.reply = "duplicate" if is_repeat else "refused"
    await site.refusals.answer(candidate("r1"), Result.CANCELLED, BUSY)
    assert site.refused == [("list of r1", b"r1", "r1", "a_code", None, Result.CANCELLED)]
    response = json.loads(site.notes.given("refuse")[0][2]["response"])
    assert (response["IdRequisicao"], response["Tentativas"]) == ("r1", 0)
    assert response["Pbx"] is response["Uniqueid"] is None
    assert caplog.messages == ([REPEAT] if is_repeat else [])
    repeat = ("list of r1", b"r1", "duplicate_request")
    assert site.buried == ([repeat] if is_repeat else [])


async def test_a_repeat_that_another_bridge_buried_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site()
    site.reply = "void"
    await site.refusals.bury_repeat(Element(b"r", "hand"), "C:r")
    assert caplog.messages == []
    site.reply = "refused"
    await site.refusals.bury_repeat(Element(b"r", "hand"), "C:r")
    assert (caplog.messages, vars(caplog.records[0])["call_id"]) == ([REPEAT], "C:r")


async def test_a_response_that_fails_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site()
    failed = site.notes.of("fail")
    monkeypatch.setattr(Refusals, "fail", lambda _, *given: failed(*given))

    def broken(**_: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(refusals, "response_parts", broken)
    one = candidate("r1")
    await site.refusals.answer(one, Result.CANCELLED, BUSY)
    assert site.notes.names == ["fail"]
    assert site.notes[0][1] == one.element


# --- what may be dialed ---------------------------------------------------------------------


async def test_requests_without_a_limit_are_allowed() -> None:
    site = Site()
    site.counts = [5, 0]
    assert await site.allowed(candidate("r1"), candidate("r2")) == (["r1", "r2"], 0)
    assert site.notes.names == ["check"], "no do-not-call set is read"
    asked, more = site.notes.given("check")[0]
    assert [one.request_id for one in asked] == ["r1", "r2"]
    assert more == {"number_window_s": 0}


async def test_a_number_on_the_list_is_refused() -> None:
    site = Site(do_not_call=True)
    site.counts, site.listed = [0, 0], [True, False]
    assert await site.allowed(candidate("r1"), candidate("r2")) == (["r2"], 1)
    assert site.notes.given("dnc") == [["55r1", "55r2"]]
    assert [(n[2], n[3], n[5]) for n in site.refused] == [
        ("r1", "do_not_call", Result.CANCELLED),
    ]


async def test_a_used_id_is_a_repeat() -> None:
    site = Site()
    site.counts = [None, 0]
    assert await site.allowed(candidate("r1"), candidate("r2")) == (["r2"], 1)
    assert site.buried == [("list of r1", b"r1", "duplicate_request")]
    assert site.refused == []


async def test_a_second_request_with_the_same_id_waits() -> None:
    site = Site()
    site.counts = [0, 0]
    one = candidate("r1")
    other = Candidate(Element(b"again", "hand"), replace(one.request, number="other"))
    assert await site.allowed(one, other) == (["r1"], 0)


async def test_requests_count_for_those_behind_them() -> None:
    site = Site(max_attempts_per_number=2)
    site.counts = [0, 0, 0, 1, 0]
    numbers = ["55", "+55", "55", "66", "77"]
    asked = [candidate(f"r{n}", number=number) for n, number in enumerate(numbers)]
    assert await site.allowed(*asked) == (["r0", "r1", "r3", "r4"], 0)
    assert site.notes.given("check")[0][1] == {"number_window_s": 9000}


async def test_a_number_called_too_often_is_refused() -> None:
    site = Site(max_attempts_per_number=2)
    site.counts = [2, 3, 1]
    assert await site.allowed(*map(candidate, ("r1", "r2", "r3"))) == (["r3"], 2)
    assert {(n[3], n[5]) for n in site.refused} == {("number_limit", Result.CANCELLED)}
    response = json.loads(site.notes.given("refuse")[0][2]["response"])
    said = "the number was called 2 times within 2.5 hours"
    assert response["Erro"]["Mensagem"] == said


async def test_a_parked_request_is_not_counted() -> None:
    site = Site(max_attempts_per_number=1)
    site.counts = []
    both = candidate("r1", number="55"), candidate("r2", number="55")
    assert await site.allowed(*both, before_lease=False) == (["r1"], 0)
    assert site.notes.given("check")[0][0] == []


@pytest.mark.parametrize(("age_s", "is_expired"), [(59, False), (60, True), (61, True)])
async def test_an_expired_request_is_refused(age_s: int, is_expired: bool) -> None:
    site = Site()
    site.counts = [0]
    one = candidate("r1", created_at=NOW - timedelta(seconds=age_s), valid_for_s=60)
    assert await site.allowed(one) == (([], 1) if is_expired else (["r1"], 0))
    expired = ("expired", Result.EXPIRED)
    assert [(n[3], n[5]) for n in site.refused] == ([expired] if is_expired else [])


@pytest.mark.parametrize("policy", ["expire", "hold"])
@pytest.mark.parametrize("is_open", [True, False])
async def test_hours_that_are_over_may_end_a_request(policy: str, is_open: bool) -> None:
    site = Site(outside_hours=policy)
    site.counts, site.is_open = [0], is_open
    ends = policy == "expire" and not is_open
    assert await site.allowed(candidate("r1")) == (([], 1) if ends else (["r1"], 0))
    over = ("outside_hours", Result.EXPIRED)
    assert [(n[3], n[5]) for n in site.refused] == ([over] if ends else [])


async def test_a_request_that_fails_does_not_stop_others(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    site.counts = [0, 0]

    def broken(given: CallRequest) -> None:
        if given.request_id == "r1":
            raise ValueError("a defect")

    monkeypatch.setattr(refusals, "expiry", broken)
    assert await site.allowed(candidate("r1"), candidate("r2")) == (["r2"], 1)
    assert [n[4] for n in site.refused] == [INTERNAL_ERROR.code]


def test_expiry_is_known_with_both_times() -> None:
    assert expiry(request("r", created_at=NOW)) is None
    assert expiry(request("r", valid_for_s=5)) is None
    at = expiry(request("r", created_at=NOW, valid_for_s=5))
    assert at == NOW + timedelta(seconds=5)
