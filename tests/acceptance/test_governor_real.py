"""Real Asterisk at twice its saturation: the governor keeps it at its best rate.

Takes some minutes of a whole machine, and says nothing on a busy one. So it runs only if asked for:

    DIALER_SATURATE=1 pytest tests/acceptance/test_governor_real.py -s
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import pytest
from redis import Redis

from dialer.domain.call import Result
from dialer.multcall.answers import Response
from dialer.simulation.multcall.checker import Checker, Played
from dialer.simulation.multcall.player import play
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab
from tests.acceptance.test_dial_path import prefix
from tests.waiting import wait_blocking

PBX = "pbx22"

#: Rates at which the best one is looked for, calls a second, each for `STEP_S`.
RATES: Sequence[float] = (40, 60, 80, 100, 125, 150, 180, 220, 260, 320)
STEP_S = 12.0

#: The rate collapses if less than this share of the offered calls is answered.
COLLAPSED = 0.7

#: Twice the saturation is offered for so long; the first seconds do not count.
OVERLOAD_S = 60.0
SETTLES_S = 12.0

#: The full rate is back so long after the overload, in seconds.
BACK_WITHIN_S = 30.0

pytestmark = pytest.mark.timeout(1800)


def offered(redis_url: str, rate: float, seconds: float, numbers: str) -> list[Played]:
    """Offer calls that are answered and talk for a second; return them when all have ended."""
    book: list[Checker] = []
    asyncio.run(
        play(
            redis_url,
            [CELL],
            round(rate * seconds),
            rate,
            mix={"answered": 1},
            number_prefix=numbers,
            extra={"Variaveis": {"LAB_TALK_S": "1"}},
            watch=book.append,
            answered_within_s=300.0,
        )
    )
    return [*book[-1].calls.values()]


def responses(calls: Sequence[Played]) -> list[Response]:
    found = [call.response for call in calls if call.response is not None]
    assert len(found) == len(calls), "each request has its Response"
    return found


def answered_rate(got: Sequence[Response], since_s: float, until_s: float) -> float:
    """Answered calls a second, in a part of the run that begins with the first Originate."""
    began = first_dialed(got)
    times = [moment(r.answered_at) - began for r in got if r.answered_at is not None]
    return sum(since_s < at <= until_s for at in times) / (until_s - since_s)


def moment(text: str) -> float:
    """Return a time of the wire as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def first_dialed(got: Sequence[Response]) -> float:
    return min(moment(r.dialed_at) for r in got if r.dialed_at is not None)


def best_rate(redis_url: str) -> float:
    """Return the highest rate of answered calls that this Asterisk reaches without a governor."""
    best = 0.0
    for rate in RATES:
        got = responses(offered(redis_url, rate, STEP_S, prefix()))
        reached = answered_rate(got, 4.0, STEP_S)
        results = Counter(r.result.value for r in got)
        say(f"offered {rate:g}: answered {reached:.1f} a second, {dict(results)}")
        best = max(best, reached)
        if reached < COLLAPSED * rate:
            break
    return best


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def governor_of(redis_url: str) -> Mapping[str, object]:
    with Redis.from_url(redis_url) as redis:
        found: Mapping[str, object] = json.loads(
            redis.hget(f"dialer:pbx:{PBX}", "governor") or "{}"
        )
        return found


@contextmanager
def watched(redis_url: str) -> Iterator[list[str]]:
    """Collect what the governor says, once a second."""
    seen: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            found = governor_of(redis_url)
            seen.append(f"{found.get('limit')} ({found.get('answer_ms')} ms)")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_asterisk_at_twice_its_saturation_keeps_its_best_rate(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    many = {"max_calls": 4000, "threads": 4000, "ring_timeout": 15}
    ungoverned = make_site(pbxs=[PBX], cps=1000, governor=False, **many)
    best = best_rate(redis_url)
    ungoverned.stop()
    say(f"best rate: {best:.1f} a second")

    site = make_site(pbxs=[PBX], cps=round(2 * best), **many)
    numbers = prefix()
    with watched(redis_url) as seen:
        got = responses(offered(redis_url, 2 * best, OVERLOAD_S, numbers))
    say(f"limits: {seen}")
    reached = answered_rate(got, SETTLES_S, OVERLOAD_S)
    settled = first_dialed(got) + SETTLES_S
    late = [r for r in got if r.dialed_at is not None and moment(r.dialed_at) > settled]
    results = Counter(r.result for r in late)
    say(f"at twice the best rate: answered {reached:.1f} a second, {dict(results)}")
    assert reached >= 0.9 * best, site.logs()
    assert set(results) == {Result.ANSWERED}, "no call starves after the first seconds"
    rings = {n: c for n, c in lab.rings().items() if n.startswith(numbers)}
    assert max(rings.values()) == 1
    assert len({r.request_id for r in got}) == len(got)
    assert "Asterisk is slow" in site.programs[PBX].said()
    wait_blocking(
        lambda: governor_of(redis_url).get("limit") == 0,
        "no limit any longer",
        within_s=BACK_WITHIN_S,
        logs=site.logs,
    )
