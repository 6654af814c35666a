"""RabbitMQ in the place of the broker's Redis, by configuration alone."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import docker
import pytest
from celery import Celery
from redis import Redis

from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Summary
from dialer.simulation.multcall.player import play, report
from tests.acceptance.conftest import CELL, PBXS, MakeSite
from tests.acceptance.lab.lab import NETWORK, Lab
from tests.acceptance.lab.rabbitmq import LOGIN, PASSWORD, RabbitMq
from tests.acceptance.test_dial_path import prefix
from tests.celery_events import heard_events
from tests.processes import Site

Meanwhile = Callable[[], None]

#: Calls at once that a worker has in hand, on a RabbitMQ that pushes them all.
PUSHED = 400

AWAY = "Broker unavailable; retrying, the calls stay in the ledger"
BACK = "Broker available again"
REFUSED = "ACCESS_REFUSED"
LOST = "consumer: Connection to broker lost."
CONNECTED = "Connected to amqp://"


@pytest.fixture(scope="module")
def rabbitmq(docker_client: docker.DockerClient) -> Iterator[RabbitMq]:
    server = RabbitMq(docker_client, NETWORK)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def play_calls(
    lab: Lab, redis_url: str, calls: int, rate: float, meanwhile: Meanwhile, *,
    disturbed: bool = False,
) -> Summary:  # fmt: skip
    """Plays Multcall; `meanwhile` runs in a thread of its own at the same time.

    `disturbed`: calls may end unseen, in what `meanwhile` does.
    """
    start = prefix()

    def rings() -> Mapping[str, int]:
        return Counter({n: c for n, c in lab.rings().items() if n.startswith(start)})

    async def both() -> Summary:
        doing = asyncio.create_task(asyncio.to_thread(meanwhile))
        summary = await play(
            redis_url,
            [CELL],
            calls,
            rate,
            mix={"answered": 8, "busy": 1, "rejected": 1},
            number_prefix=start,
            rings=rings,
            answered_within_s=60.0,
            disturbed=disturbed,
        )
        await doing
        return summary

    return asyncio.run(both())


def test_calls_and_their_events_go_over_rabbitmq(
    lab: Lab, redis_url: str, rabbitmq: RabbitMq, make_site: MakeSite
) -> None:
    site = make_site(broker_url=rabbitmq.url)
    app = Celery(broker=rabbitmq.url)
    with heard_events(app) as heard:
        summary = play_calls(lab, redis_url, 100, 25.0, lambda: None)
        site.wait_until(
            lambda: len(heard.workers("task-succeeded")) == 100,
            "every call's end is told by an event",
        )
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert summary.calls == summary.responses == 100
    assert set(summary.results) == {Result.ANSWERED, Result.BUSY, Result.REJECTED}
    assert set(summary.pbxs) == set(PBXS)
    answers = app.control.inspect(timeout=5, limit=len(PBXS)).ping() or {}
    assert {name.partition("@")[0] for name in answers} == set(PBXS)
    _says_nothing_wrong(site)


def test_a_killed_rabbitmq_costs_no_call_and_no_process(
    lab: Lab, redis_url: str, rabbitmq: RabbitMq, make_site: MakeSite
) -> None:
    site = make_site(broker_url=rabbitmq.url)
    bridge = site.programs["bridge1"]
    workers = [site.programs[name] for name in PBXS]

    def die_and_return() -> None:
        site.wait_until(lambda: _up(redis_url) > 5, "calls are up")
        rabbitmq.kill()
        site.wait_until(lambda: AWAY in bridge.said(), "the bridge misses its broker")
        site.wait_until(lambda: all(LOST in w.said() for w in workers), "and so do the workers")
        rabbitmq.start()
        site.wait_until(lambda: BACK in bridge.said(), "the bridge is told that it is back")

    summary = play_calls(lab, redis_url, 200, 20.0, die_and_return)
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert summary.calls == summary.responses == 200
    assert all(program.is_running for program in site.programs.values())
    assert bridge.said().count(AWAY) == bridge.said().count(BACK)
    assert all(worker.said().count(CONNECTED) > 1 for worker in workers)
    _says_nothing_wrong(site)


def test_a_refused_rabbitmq_login_is_repeated(
    lab: Lab, redis_url: str, rabbitmq: RabbitMq, make_site: MakeSite
) -> None:
    rabbitmq.ctl("change_password", "dialer", "another")
    try:
        site = make_site(broker_url=rabbitmq.url)
        bridge = site.programs["bridge1"]
        workers = [site.programs[name] for name in PBXS]

        def let_in() -> None:
            site.wait_until(lambda: AWAY in bridge.said(), "the bridge is refused")
            site.wait_until(lambda: all(REFUSED in w.said() for w in workers), "workers too")
            rabbitmq.ctl("change_password", "dialer", PASSWORD)

        summary = play_calls(lab, redis_url, 10, 20.0, let_in)
    finally:
        rabbitmq.ctl("change_password", "dialer", PASSWORD)
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert all(program.is_running for program in site.programs.values())
    assert REFUSED in bridge.said()
    assert max(worker.said().count(REFUSED) for worker in workers) <= 3  # with pauses
    _says_nothing_wrong(site)


def test_a_worker_with_too_many_tasks_stops_in_order(
    lab: Lab, redis_url: str, rabbitmq: RabbitMq, make_site: MakeSite
) -> None:
    site = make_site(broker_url=rabbitmq.url, pbxs=["pbx22"])
    worker = site.programs["pbx22"]

    with ExitStack() as frozen:
        frozen.enter_context(lab.frozen("22"))

        def stop_amid() -> None:
            # Asterisk answers no pings: after some seconds nothing more is admitted.
            site.wait_until(lambda: _admitted(redis_url) > PUSHED / 2, "it has a backlog")
            worker.send(signal.SIGTERM)
            site.wait_until(lambda: not worker.is_running, "it ends", within_s=20.0)
            frozen.close()
            worker.start()

        summary = play_calls(lab, redis_url, PUSHED, 1000.0, stop_amid, disturbed=True)
    assert summary.is_right, "\n".join([*report(summary), site.logs()])
    assert summary.calls == summary.responses == PUSHED


def _admitted(redis_url: str) -> int:
    with Redis.from_url(redis_url) as redis:
        return int(redis.zcard(f"dialer:live:{CELL}"))


def _up(redis_url: str) -> int:
    """How many calls the ledger has claimed by a worker."""
    with Redis.from_url(redis_url) as redis:
        return sum(redis.scard(f"dialer:claimed:{CELL}:{pbx}") for pbx in PBXS)


def _says_nothing_wrong(site: Site) -> None:
    """No traceback, no password and no word on an option that only Redis has, in any log."""
    wrong = ("Traceback", "DeprecationWarning", "only supported", PASSWORD, LOGIN)
    for program in site.programs.values():
        said = program.said()
        for word in wrong:
            before, found, after = said.partition(word)
            assert not found, f"{program.name} says {before[-500:]}{word}{after[:3000]}"
