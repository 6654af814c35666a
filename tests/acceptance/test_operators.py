"""Asterisk's queue on both versions: who took the call and how long the customer waited."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime

import pytest
from redis import Redis

from dialer.domain.call import Result
from dialer.domain.channel import channel_id
from dialer.multcall.answers import Response
from dialer.multcall.keys import CellKeys
from dialer.simulation.multcall.checker import Checker
from dialer.simulation.multcall.player import play, report
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab, Version
from tests.acceptance.test_dial_path import prefix
from tests.acceptance.test_recovery import STAYS, asked
from tests.processes import Site

#: The lab's operator answers after 0.3 s and clears after 1 s (asterisk/extensions.conf).
OPERATOR = "Maria José"
#: Asterisk's two events are a few milliseconds nearer to each other at times (0.297 s seen).
ANSWERS_AFTER_S = 0.29

#: Last two digits of a number whose customer clears 1 s after the answer.
GIVES_UP = "10"

on_both = pytest.mark.parametrize("pbx", ["pbx22", "pbx16"])


def responses(redis_url: str, site: Site, ends: list[str]) -> list[Response]:
    """Calls numbers with these ends, one after the other, and returns what Multcall is told."""
    book: list[Checker] = []
    start = prefix()
    requests = [asked(n, f"{start}{n:05d}{end}") for n, end in enumerate(ends)]
    summary = asyncio.run(
        play(redis_url, [CELL], len(ends), 2.0, requests=requests, watch=book.append)
    )
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    found = [played.response for played in book[-1].calls.values()]
    assert {r.result for r in found if r} == {Result.ANSWERED}
    return [r for r in found if r is not None]


@on_both
def test_the_response_names_the_queues_operator(
    pbx: str, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site(pbxs=[pbx], queue="COBRANCA")
    told = responses(redis_url, site, [STAYS, STAYS])
    assert [r.agent for r in told] == [OPERATOR, OPERATOR]
    for response in told:
        assert response.wait_s is not None
        assert ANSWERS_AFTER_S <= response.wait_s < (response.talk_s or 0)


@on_both
def test_a_customer_nobody_answers_waits_until_queue_timeout(
    pbx: str, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site(pbxs=[pbx], queue="BUSY", queue_timeout=5)
    let_go, gave_up = responses(redis_url, site, [STAYS, GIVES_UP])
    assert (let_go.agent, gave_up.agent) == (None, None)
    assert 4.9 <= (let_go.wait_s or 0) <= (let_go.talk_s or 0) + 0.01
    assert 0.5 <= (gave_up.wait_s or 0) <= (gave_up.talk_s or 0) + 0.01
    assert (gave_up.talk_s or 9) < 4.9


@on_both
def test_the_hangup_handler_records_a_call_without_worker(
    pbx: str, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    version: Version = "22" if pbx == "pbx22" else "16"
    site = make_site(pbxs=[pbx], queue="COBRANCA", timeout_command_ack=1)
    call = asked(1, f"{prefix()}00001{STAYS}")
    with Redis.from_url(redis_url) as redis:
        redis.rpush(CellKeys(CELL).request, call.element)
        key = f"dialer:call:{CELL}:{call.request_id}"
        uniqueid = channel_id(f"{CELL}:{call.request_id}")
        site.wait_until(lambda: redis.hget(key, "state") == b"answered", "the call is up")
        site.programs[pbx].kill()  # before the operator answers, or while they talk
        site.wait_until(lambda: lab.live_channels(version) == 0, "the call is over")
        record = lab.cli(version, f"database show dialer {uniqueid}")
        assert re.search(r"answered=\d+\.\d+ ended=\d+\.\d+ cause=\d+ .*agent=Maria", record), (
            record
        )
        site.programs[pbx].start()
        site.wait_until(lambda: redis.llen(CellKeys(CELL).response) == 1, "the Response")
        response = Response.model_validate_json(redis.lpop(CellKeys(CELL).response) or b"")
    assert (response.result, response.agent) == (Result.ANSWERED, OPERATOR)
    assert response.error is None


@on_both
def test_calls_of_a_missing_queue_wait_until_it_exists(
    pbx: str, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    version: Version = "22" if pbx == "pbx22" else "16"
    call = asked(1, f"{prefix()}00001{STAYS}")
    wire = CellKeys(CELL)
    lab.cli(version, "module unload app_queue.so")
    try:
        site = make_site(pbxs=[pbx], queue="COBRANCA", timeout_command_ack=1)
        with Redis.from_url(redis_url) as redis:
            redis.rpush(wire.request, call.element)
        worker = site.programs[pbx]
        said = f"{pbx} has no queue COBRANCA: add it to queues.conf"
        site.wait_until(lambda: said in worker.said(), "the worker says what is missing")
    finally:
        lab.cli(version, "module load app_queue.so")
    again = "Calls of a cell are dialed here again"
    site.wait_until(lambda: again in worker.said(), "the queue is found")
    with Redis.from_url(redis_url) as redis:
        site.wait_until(lambda: redis.llen(wire.response) == 1, "the Response")
        response = Response.model_validate_json(redis.lpop(wire.response) or b"")
    assert (response.result, response.agent) == (Result.ANSWERED, OPERATOR)
    ring = next(r for r in lab.ring_log() if r.number == call.number)
    assert ring.at >= _said_at(worker.said(), again)


def _said_at(log: str, sentence: str) -> float:
    """When a program said something, in seconds since 1970."""
    line = next(line for line in log.splitlines() if sentence in line)
    return datetime.fromisoformat(line.split()[0]).timestamp()


@on_both
def test_without_amd_conf_every_call_counts_as_a_person(
    pbx: str, lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    # The lab's Asterisks have no amd.conf: app_amd is there and does not run.
    site = make_site(pbxs=[pbx], queue="COBRANCA", amd="hangup")
    told = responses(redis_url, site, [STAYS, STAYS])
    assert [(r.amd, r.agent) for r in told] == [(None, OPERATOR)] * 2
    said = site.programs[pbx].said()
    assert said.count("AMD does not run") == 1


def test_without_app_amd_a_cell_with_amd_dials_nothing(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    lab.cli("22", "module unload app_amd.so")  # 16 does not unload what does not run
    try:
        site = make_site(pbxs=["pbx22"], queue="COBRANCA", amd="hangup")
        worker = site.programs["pbx22"]
        said = "pbx22 cannot detect answering machines"
        site.wait_until(lambda: said in worker.said(), "the worker says what is missing")
    finally:
        lab.cli("22", "module load app_amd.so")
    again = "Calls of a cell are dialed here again"
    site.wait_until(lambda: again in worker.said(), "app_amd is found")
