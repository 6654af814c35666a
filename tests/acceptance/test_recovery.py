"""What is killed or restarted while real calls are up loses none of them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable

from redis import Redis

from dialer.domain.call import Result
from dialer.multcall.keys import CellKeys
from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.multcall.player import play, report
from dialer.simulation.multcall.requests import Asked
from tests.acceptance.conftest import CELL, MakeSite
from tests.acceptance.lab.lab import Lab
from tests.acceptance.test_dial_path import prefix
from tests.processes import Site

#: The last two digits of a number that stays up until the PBX's side clears after LAB_TALK_S.
STAYS = "61"


def asked(n: int, number: str, talk_s: int | None = None) -> Asked:
    """A request to a number; the PBX stays on the line for `talk_s`, or as its dialplan has it."""
    request_id = f"{number[1:]}-{n}"
    element = {
        "IdRequisicao": request_id,
        "Telefone": number,
        "Variaveis": {} if talk_s is None else {"LAB_TALK_S": str(talk_s)},
    }
    return Asked(
        cell=CELL,
        request_id=request_id,
        request_id_json=json.dumps(request_id),
        element=json.dumps(element).encode(),
        number=number,
        code_json=str(n),
    )


async def _play_while(
    redis_url: str,
    requests: list[Asked],
    rate: float,
    meanwhile: Callable[[], None],
    lab: Lab,
    start: str,
    book: list[Checker],
) -> Summary:
    """Plays the requests; `meanwhile` runs in a thread of its own at the same time."""

    def rings() -> dict[str, int]:
        return {n: c for n, c in lab.rings().items() if n.startswith(start)}

    doing = asyncio.create_task(asyncio.to_thread(meanwhile))
    summary = await play(
        redis_url,
        [CELL],
        len(requests),
        rate,
        requests=requests,
        rings=rings,
        watch=book.append,
        answered_within_s=90.0,
    )
    await doing
    return summary


def _up(redis_url: str, pbx: str) -> int:
    with Redis.from_url(redis_url) as redis:
        ids = redis.smembers(f"dialer:claimed:{CELL}:{pbx}")
        states = [redis.hget(f"dialer:call:{i.decode()}", "state") for i in ids]
    return states.count(b"answered")


def test_a_killed_workers_300_calls_are_followed_to_the_end(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site(pbxs=["pbx22"])
    start = prefix()
    requests = [asked(n, f"{start}{n:05d}{STAYS}", 25) for n in range(300)]
    late = asked(999, f"{start}99999{STAYS}", 1)
    first_ack_s: list[float] = []

    def kill_and_restart() -> None:
        site.wait_until(lambda: _up(redis_url, "pbx22") == 300, "300 calls are up", 40.0)
        site.programs["pbx22"].kill()
        site.programs["pbx22"].start()
        began = time.monotonic()
        with Redis.from_url(redis_url) as redis:
            redis.rpush(CellKeys(CELL).request, late.element)
            site.wait_until(
                lambda: redis.hexists(f"dialer:call:{CELL}:{late.request_id}", "accepted_ms"),
                "a new call after the restart",
            )
        first_ack_s.append(time.monotonic() - began)

    book: list[Checker] = []
    summary = asyncio.run(
        _play_while(redis_url, requests, 60.0, kill_and_restart, lab, start, book)
    )
    # The late call is not in Multcall's book; everything else must be right.
    wrong = [v for v in summary.violations if late.request_id not in str(v)]
    wrong = [v for v in wrong if v.kind != "rang_twice" or late.number not in v.text]
    assert not wrong, "\n".join([*map(str, wrong[:20]), site.logs()])
    assert summary.results == {Result.ANSWERED: 300}
    for played in book[-1].calls.values():
        response = played.response
        assert response is not None
        assert response.error is None
        assert 24 <= (response.talk_s or 0) <= 27  # its true length, though nobody watched
    print(f"first new call {first_ack_s[0]:.1f} s after the restart")
    assert first_ack_s[0] < 10


def test_a_rolling_restart_delays_no_request_over_5_s(
    lab: Lab, redis_url: str, make_site: MakeSite
) -> None:
    site = make_site(bridges=2)
    start = prefix()
    requests = [asked(n, f"{start}{n:05d}{STAYS}", 2) for n in range(500)]
    stops_s: dict[str, float] = {}

    def roll() -> None:
        site.wait_until(lambda: _up(redis_url, "pbx22") > 5, "calls are up")
        for name in ("bridge1", "bridge2", "pbx22", "pbx16"):
            stops_s[name] = _restart(site, name)

    book: list[Checker] = []
    summary = asyncio.run(_play_while(redis_url, requests, 20.0, roll, lab, start, book))
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert summary.results == {Result.ANSWERED: 500}
    print(f"stops {stops_s}, longest wait for an ACK {summary.ack_max_s:.2f} s")
    assert max(stops_s.values()) < 5
    assert (summary.ack_max_s or 99) < 5


def _restart(site: Site, name: str) -> float:
    """Stop it in order and start it until it works; return the seconds that the stop took."""
    program = site.programs[name]
    before = program.said().count("Bridge ready")
    began = time.monotonic()
    _terminate(site, name)
    stop_s = time.monotonic() - began
    program.start()
    if name in site.pbxs:
        site.wait_ready()  # its heartbeat says `stopping` until it is back
    else:
        site.wait_until(lambda: program.said().count("Bridge ready") > before, "it is back")
    return stop_s


def _terminate(site: Site, name: str) -> None:
    site.programs[name].send(signal.SIGTERM)
    process = site.programs[name].process
    assert process is not None
    assert process.wait(10) == 0
