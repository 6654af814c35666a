"""The main job: a Request rings a telephone on real Asterisk, and everything comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from dialer.domain.call import Result
from dialer.domain.channel import channel_id
from dialer.multcall.keys import CellKeys
from dialer.simulation.multcall.checker import Checker, Played, Summary
from dialer.simulation.multcall.player import play, report
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab

MIX = {"answered": 55, "busy": 10, "rejected": 8, "invalid_number": 8, "congestion": 8,
       "no_answer": 8, "repeated": 3}  # fmt: skip

#: Q.850 causes that each outcome may have, by Asterisk version (seen: tests/captures).
CAUSES: Mapping[str, Mapping[Result, set[int]]] = {
    "pbx22": {
        Result.ANSWERED: {0, 16},  # 0 where the carrier's BYE gives no reason
        Result.BUSY: {17},
        Result.REJECTED: {21},
        Result.INVALID_NUMBER: {1},
        Result.CONGESTION: {34},
        Result.NO_ANSWER: {19},
    },
    "pbx16": {
        Result.ANSWERED: {0, 16},  # 0 if the BYE comes while a busy Asterisk handles the answer
        Result.BUSY: {17},
        Result.REJECTED: {21},
        Result.INVALID_NUMBER: {1},
        Result.CONGESTION: {34},
        Result.NO_ANSWER: {0},
    },
}


def prefix() -> str:
    """What every number of one test begins with: the carrier's log is kept between tests."""
    return f"+55{int(time.time() * 10) % 10**8:08d}"


def played(
    lab: Lab, redis_url: str, calls: int, rate: float, **more: Any
) -> tuple[Summary, list[Played]]:
    """Plays Multcall against the site; return the summary and every call."""
    book: list[Checker] = []
    start = prefix()

    def rings() -> Mapping[str, int]:
        return Counter({n: c for n, c in lab.rings().items() if n.startswith(start)})

    summary = asyncio.run(
        play(
            redis_url,
            [CELL],
            calls,
            rate,
            number_prefix=start,
            rings=rings if more.pop("count_rings", True) else None,
            watch=book.append,
            answered_within_s=60.0,
            **more,
        )
    )
    return summary, list(book[-1].calls.values())


def test_a_thousand_mixed_calls_get_one_right_response_each(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site()
    summary, calls = played(lab, redis_url, 1000, 50.0, mix=MIX)
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert summary.calls == summary.responses == 1000
    assert set(summary.pbxs) == {"pbx22", "pbx16"}
    for call in calls:
        response, ack = call.response, call.ack
        assert response is not None
        assert ack is not None, call.asked.request_id
        assert response.cause in CAUSES[response.pbx or ""][response.result], response
        assert response.uniqueid == channel_id(f"{CELL}:{call.asked.request_id}")
        assert response.attempts == 1
    repeated = sum(call.asked.pushes - 1 for call in calls)
    _nothing_is_left(redis_url, dead=repeated)


def test_calls_over_local_channels_come_out_the_same(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site()
    mix = {"answered": 60, "busy": 20, "congestion": 20, "no_answer": 10}
    summary, _ = played(
        lab, redis_url, 120, 20.0, mix=mix, extra={"Tronco": "local"}, count_rings=False
    )
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert set(summary.results) == {
        Result.ANSWERED, Result.BUSY, Result.CONGESTION, Result.NO_ANSWER
    }  # fmt: skip


@pytest.mark.parametrize("trunk", ["carrier", "local"])
def test_the_response_has_the_amd_result_and_the_agent(
    trunk: str, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    make_site(context="dialer-ura-amd")
    variables = {"LAB_TALK_S": "1", "LAB_AMD": "MACHINE", "MC_NOTE": 'Silva, "João" [x](y)\\'}
    extra = {"Tronco": trunk, "Variaveis": variables}
    _, calls = played(lab, redis_url, 4, 10.0, mix={"answered": 1}, extra=extra, count_rings=False)
    for call in calls:
        assert call.response is not None
        assert (call.response.amd, call.response.agent) == ("MACHINE", "1001")


def _is_answered(redis: Redis, request_id: str) -> bool:
    return bool(redis.hget(f"dialer:call:{CELL}:{request_id}", "state") == b"answered")


def _nothing_is_left(redis_url: str, *, dead: int) -> None:
    """Counters at 0, no call's index left, and every key but design §2's has a lifetime."""
    wire = CellKeys(CELL)
    named = {key.encode() for key in (wire.request, wire.ack, wire.code, wire.response)}
    named |= {wire.counter.encode(), wire.counter_ack.encode(), f"dialer:dead:{CELL}".encode()}
    with Redis.from_url(redis_url) as redis:
        assert int(redis.get(wire.counter) or 0) == 0
        assert int(redis.get(wire.counter_ack) or 0) == 0
        without = {key for key in redis.scan_iter() if redis.ttl(key) < 0}
        assert without <= named
        entries = redis.lrange(f"dialer:dead:{CELL}", 0, -1)
        reasons = Counter(json.loads(entry)["reason"] for entry in entries)
        assert reasons == ({"duplicate_request": dead} if dead else {})


@pytest.mark.parametrize("pbx", ["pbx22", "pbx16"])
def test_ids_that_differ_in_case_alone_are_two_calls(
    pbx: str, redis_url: str, make_site: MakeSite
) -> None:
    """Asterisk does not tell `aB1` and `Ab1` apart; while the one is up the other is dialed."""
    site = make_site(pbxs=[pbx], timeout_command_ack=1)
    wire, start = CellKeys(CELL), prefix()
    with Redis.from_url(redis_url) as redis:
        for n, request_id in enumerate(["aB1", "Ab1"]):
            request = {
                "IdRequisicao": request_id,
                "Telefone": f"{start}{n:03d}90",
                "Tronco": "local",
                "Variaveis": {"LAB_TALK_S": "4"},
            }
            redis.rpush(wire.request, json.dumps(request))
            is_up = partial(_is_answered, redis, request_id)
            site.wait_until(is_up, "the call is up")
        site.wait_until(lambda: redis.llen(wire.response) == 2, "two Responses")
        responses = [json.loads(one) for one in redis.lrange(wire.response, 0, -1)]
    assert {(r["IdRequisicao"], r["Resultado"]) for r in responses} == {
        ("aB1", "ANSWERED"),
        ("Ab1", "ANSWERED"),
    }
    assert {r["Uniqueid"] for r in responses} == {
        channel_id(f"{CELL}:aB1"),
        channel_id(f"{CELL}:Ab1"),
    }


@pytest.mark.parametrize("pbx", ["pbx22", "pbx16"])
@pytest.mark.parametrize(("last_two", "result"), [("81", "CANCELLED"), ("90", "ANSWERED")])
def test_an_operator_hangs_a_call_up(
    pbx: str, last_two: str, result: str, redis_url: str, make_site: MakeSite
) -> None:
    """The one rings, the other talks."""
    site = make_site(pbxs=[pbx], timeout_command_ack=1)
    wire, control = CellKeys(CELL), Celery(broker=redis_url.removesuffix("/0") + "/1").control
    request = {"IdRequisicao": "up", "Telefone": f"{prefix()}{last_two}", "TempoToque": 120}
    state = "answered" if result == "ANSWERED" else "accepted"
    with Redis.from_url(redis_url) as redis:
        redis.rpush(wire.request, json.dumps(request))
        key = f"dialer:call:{CELL}:up"
        site.wait_until(lambda: redis.hget(key, "state") == state.encode(), f"it is {state}")
        asked = {"task_id": f"{CELL}:up"}
        reply = control.broadcast("hangup", arguments=asked, reply=True, timeout=30, limit=1)
        assert "is being hung up" in str(reply)
        site.wait_until(lambda: redis.llen(wire.response) == 1, "its Response")
        response = json.loads(redis.lrange(wire.response, 0, 0)[0])
    assert (response["Resultado"], response["Erro"]["Codigo"]) == (result, "hung_up")
