"""Real workers, bridges and a broker, and PBXs that do what real ones do on bad days."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from dialer.domain.channel import channel_id
from dialer.multcall.keys import CellKeys
from tests.celery_events import heard_events
from tests.integration.stack import CELL, Program, Stack
from tests.waiting import SOON_S, wait_until

Response = dict[str, Any]


def tally(responses: list[Response]) -> Counter[str]:
    return Counter(response["Resultado"] for response in responses)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def each_once(
    stack: Stack, requests: list[dict[str, Any]], *, slots: bool = True
) -> dict[str, Response]:
    """Wait until every request has its Response and all is at rest; none came twice."""
    responses = await stack.responses(len(requests))
    await stack.at_rest(slots=slots)
    ids = [response["IdRequisicao"] for response in responses]
    assert sorted(ids) == sorted(request["IdRequisicao"] for request in requests)
    assert max(stack.rings.values(), default=0) <= 1, "a call was dialed twice"
    acks = Counter(ack["IdRequisicao"] for ack in stack.multcall.acks)
    assert max(acks.values(), default=0) <= 1, "a call was acknowledged twice"
    return {response["IdRequisicao"]: response for response in responses}


# --- one call of every kind -----------------------------------------------------------


@dataclass(slots=True)
class Day:
    """What came of one call of every kind; calls go by the last two digits of their number."""

    responses: dict[int, Response]
    acks: dict[int, Response]
    events: dict[int, list[dict[str, Any]]]
    numbers: dict[int, str]
    all_events: list[dict[str, Any]]
    written: str
    rings: Counter[str]
    ids: dict[int, str]
    early: list[str]


#: Last two digits: Resultado, cause on Asterisk 22, whether Asterisk accepted it, Erro.Codigo.
KINDS: Mapping[int, tuple[str, int | None, bool, str | None]] = {
    10: ("ANSWERED", 16, True, None),
    60: ("ANSWERED", 16, True, None),
    70: ("BUSY", 17, True, None),
    75: ("REJECTED", 21, True, None),
    77: ("INVALID_NUMBER", 1, True, None),
    79: ("CONGESTION", 34, True, None),
    81: ("NO_ANSWER", 19, True, None),
    85: ("FAILED", None, False, "originate_refused"),
    86: ("FAILED", None, True, "no_channel"),
    87: ("FAILED", None, False, "no_word"),
}


async def play(folder: Path) -> Day:
    logs = folder / "logs"
    settings = {"log": {"level": "DEBUG", "location": str(logs)}}
    cell = {"timeout_command_response": 0.5, "timeout_command_ack": 5.0}
    async with Stack(folder, cell=cell, settings=settings) as stack:
        stack.add_pbx("pbx01", talk_time=(2.0, 2.1))
        await stack.start(bridges=0)
        with heard_events(Celery(broker=stack.broker_url)) as flower:
            await stack.start_bridge(wait=False)
            pushed = {
                kind: (await stack.push(1, last_two=kind, TempoToque=1, Dados={"k": kind}))[0]
                for kind in KINDS
            }
            ids = {kind: f"{CELL}:{request['IdRequisicao']}" for kind, request in pushed.items()}
            await stack.until_live(1)
            await wait_until(lambda: stack.pbxs["pbx01"].exchange.floor.answered, "one is answered")
            await wait_until(lambda: len(flower.of(ids[10])) >= 2, "Flower has heard of it")
            early = [e["type"] for e in flower.of(ids[10])]
            responses = await each_once(stack, list(pushed.values()))
            over = ("task-succeeded", "task-failed")
            await wait_until(
                lambda: all(any(e["type"] in over for e in flower.of(i)) for i in ids.values()),
                "Flower has heard of every end",
            )
        await stack.workers["pbx01"].stop()
        by_request = {ack["IdRequisicao"]: ack for ack in stack.multcall.acks}
        return Day(
            responses={k: responses[request["IdRequisicao"]] for k, request in pushed.items()},
            acks={
                k: by_request[request["IdRequisicao"]]
                for k, request in pushed.items()
                if request["IdRequisicao"] in by_request
            },
            events={k: flower.of(call_id) for k, call_id in ids.items()},
            numbers={k: request["Telefone"] for k, request in pushed.items()},
            all_events=flower.events,
            written=stack.logs() + "".join(p.read_text() for p in sorted(logs.iterdir())),
            rings=stack.rings,
            ids=ids,
            early=early,
        )


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return asyncio.run(play(tmp_path_factory.mktemp("day")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_every_kind_gets_its_response(day: Day, kind: int) -> None:
    result, cause, _, error = KINDS[kind]
    response = day.responses[kind]
    assert (response["Resultado"], response["CausaQ850"]) == (result, cause)
    assert (response["Erro"] or {}).get("Codigo") == error
    assert response["Pbx"] == "pbx01"
    assert response["Dados"] == {"k": kind}
    assert (response["AtendidaEm"] is not None) == (result == "ANSWERED")


@pytest.mark.parametrize("kind", KINDS)
def test_accepted_call_is_acknowledged_and_gets_its_code(day: Day, kind: int) -> None:
    accepted = KINDS[kind][2]
    assert (kind in day.acks) == accepted
    response = day.responses[kind]
    assert response["CodLigacao"] == (f"C-{response['IdRequisicao']}" if accepted else None)
    if accepted:
        assert day.acks[kind]["Uniqueid"] == response["Uniqueid"] == channel_id(day.ids[kind])


def test_an_originate_that_asterisk_refuses_is_tried_three_times(day: Day) -> None:
    assert day.responses[85]["Tentativas"] == 3
    assert "Extension does not exist" in day.responses[85]["Erro"]["Mensagem"]
    assert {day.responses[kind]["Tentativas"] for kind in KINDS if kind != 85} == {1}


def test_an_originate_without_a_reply_is_not_sent_again(day: Day) -> None:
    assert day.rings[day.numbers[87]] == 0


def test_flower_hears_a_calls_end_only_when_it_is_over(day: Day) -> None:
    assert day.early == ["task-received", "task-started"]
    for kind in KINDS:
        types = [event["type"] for event in day.events[kind]]
        end = "task-failed" if KINDS[kind][0] == "FAILED" else "task-succeeded"
        assert sorted(types) == sorted(["task-received", "task-started", end]), kind


def test_flower_shows_the_outcome_and_the_length_of_a_call(day: Day) -> None:
    for kind, (result, cause, _, _) in KINDS.items():
        end = day.events[kind][-1]
        if result == "FAILED":
            assert end["exception"].startswith("FAILED: ")
        else:
            assert end["result"].startswith(f"{result} cause={cause} ")
            assert end["runtime"] == pytest.approx(day.responses[kind]["DuracaoSeg"], abs=0.01)
    assert day.events[10][-1]["runtime"] > 1.9


def test_flower_shows_of_a_number_its_last_four_digits_only(day: Day) -> None:
    told = json.dumps(day.all_events, default=str)
    for kind, number in day.numbers.items():
        assert number not in told
        received = next(e for e in day.events[kind] if e["type"] == "task-received")
        assert f"*******{number[-4:]}" in received["args"]


def test_no_log_holds_a_number_even_when_everything_is_logged(day: Day) -> None:
    assert "DEBUG" in day.written
    assert len(day.written) > 2000
    for number in day.numbers.values():
        assert number not in day.written


# --- starting -------------------------------------------------------------------------


def the_sentence(program: Program) -> str:
    """The one sentence that a program left which could not start."""
    said = [line for line in program.log.splitlines() if line.startswith("dialer: ")]
    assert len(said) == 1, program.log
    assert "Traceback" not in program.log, program.log
    return said[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"no -Q was given.*celery -A dialer worker -Q pbx01.*known PBXs are pbx01, pbx02"),
        (["-Q", "pbx99"], r"-Q pbx99 was given.*known PBXs are pbx01, pbx02"),
        (["-Q", "pbx01,pbx02"], r"exactly one PBX, and -Q .*pbx0\d,pbx0\d was given"),
    ],
)
async def test_a_worker_without_exactly_one_pbx_says_so_and_ends(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        stack.add_pbx("pbx02")
        await stack.start(bridges=0, workers=False)
        worker = await stack.run_celery(*arguments)
        assert await worker.exit_code() == 2
        assert re.search(said, the_sentence(worker))


async def test_a_worker_with_a_wrong_secret_says_so_and_ends(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx(table={"secret": "not-the-secret"})
        await stack.start(bridges=0, workers=False)
        worker = await stack.run_celery("-Q", "pbx01")
        assert await worker.exit_code() == 2
        assert "refused the AMI login of 'dialer' for pbx01" in the_sentence(worker)
        assert "not-the-secret" not in worker.log
        assert "ended unexpectedly" not in worker.log  # it is no fault of ours


async def test_a_worker_without_redis_says_so_and_ends(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        stack.valkey.stop()
        worker = await stack.run_celery("-Q", "pbx01")
        assert await worker.exit_code() == 2
        assert "Redis at redis://127.0.0.1" in the_sentence(worker)


async def test_worker_waits_for_an_absent_pbx_and_logs_it_once(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx()
        await stack.start(workers=False)
        pbx.refuse_connections(True)
        worker = await stack.start_worker(wait=False)
        requests = await stack.push(3)
        await stack.until_link("pbx01", "down")
        # A second heartbeat: it has tried again by then.
        seen = await stack.redis.hget("dialer:pbx:pbx01", "seen_ms")

        async def later() -> bool:
            return await stack.redis.hget("dialer:pbx:pbx01", "seen_ms") != seen

        await wait_until(later, "another heartbeat")
        pbx.refuse_connections(False)
        await stack.until_link("pbx01", "up")
        assert tally(list((await each_once(stack, requests)).values())) == {"ANSWERED": 3}
        assert worker.log.count("AMI link is down") == 1
        assert worker.log.count("AMI link is back") == 1


# --- the worker dies ------------------------------------------------------------------

TALK_S = 6.0

#: systemd kills a worker after 15 s.
STOPS_WITHIN_S = 14.0


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_a_new_worker_adopts_fifty_calls_of_the_old_one(tmp_path: Path, how: str) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx(long_talk=TALK_S, talk_time=(TALK_S, TALK_S))
        await stack.start()
        requests = await stack.push(40, last_two=90)
        requests += await stack.push(10, last_two=95)  # these ring for two seconds
        await stack.until_live(50)
        await wait_until(lambda: pbx.exchange.floor.answered >= 40, "forty are answered")
        if how == "SIGTERM":
            began = time.monotonic()
            assert await stack.workers["pbx01"].stop() == 0
            assert time.monotonic() - began < STOPS_WITHIN_S
        else:
            await stack.workers["pbx01"].kill()
        assert pbx.live == 50
        await stack.start_worker()
        responses = await each_once(stack, requests)
        assert tally(list(responses.values())) == {"ANSWERED": 50}
        assert len(stack.multcall.acks) == 50
        for response in responses.values():
            assert (response["CausaQ850"], response["Erro"]) == (16, None)
            assert response["FaladoSeg"] == pytest.approx(TALK_S, abs=1.0)
            assert response["CodLigacao"] == f"C-{response['IdRequisicao']}"
        assert pbx.astdb == {}


async def test_worker_stopped_while_it_dials_leaves_every_call_whole(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        requests = await stack.push(300)
        for dialed in (40, 120):
            await stack.until_dialed(dialed)
            began = time.monotonic()
            assert await stack.workers["pbx01"].stop() == 0
            assert time.monotonic() - began < STOPS_WITHIN_S
            await stack.start_worker()
        results = tally(list((await each_once(stack, requests)).values()))
        assert results["ANSWERED"] >= 295
        assert set(results) <= {"ANSWERED", "FAILED"}
        assert len(stack.multcall.acks) >= results["ANSWERED"]


async def test_worker_killed_while_it_dials_leaves_no_call_open(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        await stack.start()
        requests = await stack.push(200)
        for dialed in (30, 90):
            await stack.until_dialed(dialed)
            await stack.workers["pbx01"].kill()
            await stack.start_worker()
        await each_once(stack, requests, slots=False)


# --- the link breaks ------------------------------------------------------------------


@pytest.mark.parametrize("include", [True, False])
async def test_calls_that_end_while_the_link_is_down_are_answered_for(
    tmp_path: Path, include: bool
) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx(long_talk=3.0, include=include)
        await stack.start()
        answered = await stack.push(5, last_two=90)
        unanswered = await stack.push(3, last_two=81, TempoToque=3)
        await stack.until_live(8)
        await wait_until(lambda: len(stack.multcall.acks) == 8, "all are acknowledged")
        pbx.refuse_connections(True)
        pbx.drop_links()
        await stack.until_link("pbx01", "down")
        await stack.until_live(0)
        over = time.time()
        pbx.refuse_connections(False)
        responses = await each_once(stack, answered + unanswered)
        ends = [responses[request["IdRequisicao"]] for request in answered]
        others = [responses[request["IdRequisicao"]] for request in unanswered]
        if include:
            assert tally(ends) == {"ANSWERED": 5}
            for end in ends:
                assert (end["CausaQ850"], end["Erro"]) == (16, None)
                assert 2.5 < end["FaladoSeg"] < 15
                assert moment(end["EncerradaEm"]) <= over
        else:
            assert tally(ends) == {"UNKNOWN": 5}
        assert tally(others) == {"FAILED" if include else "UNKNOWN": 3}
        assert {end["Erro"]["Codigo"] for end in others} == {"end_not_seen"}
        assert pbx.astdb == {}


async def test_a_pbx_that_lacks_a_cells_target_takes_none_of_its_calls(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"queue": "ASR_TIM"}) as stack:
        lacking = stack.add_pbx("pbx01", include=False)
        stack.add_pbx("pbx02")
        await stack.start()
        responses = await each_once(stack, await stack.push(30))
        assert tally(list(responses.values())) == {"ANSWERED": 30}
        assert {response["Pbx"] for response in responses.values()} == {"pbx02"}
        assert not lacking.rings
        assert "pbx01 lacks the dialplan include, or has an old one" in stack.workers["pbx01"].log


async def test_requests_wait_while_no_pbx_has_the_cells_context(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path, cell={"context": "not-there"}) as stack:
        stack.add_pbx("pbx01")
        stack.add_cell("OTHER", threads=10, pbxs=["pbx01"])
        await stack.start()
        await stack.push(3)
        await stack.push(1, cell="OTHER")
        answered = stack.multcalls["OTHER"].responses
        await wait_until(lambda: answered, "the other cell's call is over")
        assert await stack.redis.llen(CellKeys(CELL).request) == 3
        assert stack.rings.total() == 1
        said = "pbx01 has no context not-there: add it to the dialplan, or correct context of cell"
        assert said in stack.workers["pbx01"].log


async def test_calls_that_outlive_a_lost_link_are_followed_again(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx(long_talk=2.0)
        await stack.start()
        requests = await stack.push(20, last_two=90)
        await stack.until_live(20)
        for _ in range(3):
            pbx.drop_links()
            await wait_until(lambda: pbx.connections, "the link is remade")
        responses = await each_once(stack, requests)
        assert tally(list(responses.values())) == {"ANSWERED": 20}
        assert {response["Erro"] is None for response in responses.values()} == {True}


async def test_asterisk_that_hangs_while_dialing_rings_nobody_twice(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx()
        await stack.start()
        pbx.hang()
        requests = await stack.push(10)
        await stack.until_link("pbx01", "down")
        pbx.unhang()
        results = tally(list((await each_once(stack, requests)).values()))
        assert set(results) <= {"ANSWERED", "FAILED"}


async def test_calls_of_an_asterisk_that_restarted_are_over(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        pbx = stack.add_pbx()
        await stack.start()
        answered = await stack.push(20, last_two=90)
        ringing = await stack.push(5, last_two=81)
        await stack.until_live(25)
        await wait_until(lambda: pbx.exchange.floor.answered == 20, "twenty are answered")
        began = time.monotonic()
        pbx.restart()
        responses = await each_once(stack, answered + ringing)
        assert {response["Erro"]["Codigo"] for response in responses.values()} == {"pbx_restarted"}
        assert tally([responses[r["IdRequisicao"]] for r in answered]) == {"ANSWERED": 20}
        assert tally([responses[r["IdRequisicao"]] for r in ringing]) == {"UNKNOWN": 5}
        await stack.until_link("pbx01", "up")
        assert time.monotonic() - began < SOON_S, "the PBX stood idle"
        more = await stack.push(2)
        await each_once(stack, answered + ringing + more)


# --- several PBXs ---------------------------------------------------------------------


async def test_pbx_takes_the_waiting_calls_of_one_that_died(
    tmp_path: Path,
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        stack.add_pbx("pbx02")
        await stack.start()
        requests = await stack.push(40)
        responses = await each_once(stack, requests)
        shares = Counter(response["Pbx"] for response in responses.values())
        assert min(shares["pbx01"], shares["pbx02"]) >= 15, shares

        stack.workers["pbx02"].freeze()  # its heartbeat is still fresh, so it gets its share
        more = await stack.push(20)

        async def queued() -> bool:
            waiting: Any = await stack.redis.zcard(f"dialer:queued:{CELL}")
            request: Any = await stack.redis.llen(CellKeys(CELL).request)
            return int(request) == 0 and int(waiting) >= 5

        await wait_until(queued, "some calls wait for pbx02")
        await stack.workers["pbx02"].kill()
        responses = await each_once(stack, requests + more)
        moved = [responses[request["IdRequisicao"]] for request in more]
        assert Counter(response["Pbx"] for response in moved) == {"pbx01": 20}
        assert tally(moved) == {"ANSWERED": 20}
