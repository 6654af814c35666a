"""The project's own image: Celery workers in containers place calls on real Asterisks."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import docker
import pytest
from celery import Celery
from docker.models.containers import Container
from redis import Redis

from dialer.domain.call import Result
from dialer.simulation.multcall.checker import Checker, Played, Summary
from dialer.simulation.multcall.player import play, report
from tests.acceptance.containers import CELL, StartWorker, Worker
from tests.acceptance.lab.lab import NETWORK, Lab, answers, wait_for
from tests.acceptance.lab.rabbitmq import free_port
from tests.acceptance.test_dial_path import prefix
from tests.celery_events import heard_events
from tests.processes import Site

MakeBridge = Callable[..., Site]

#: How long a call of these tests stays up, in seconds: longer than a worker takes to come back.
TALK_S = 8


def nothing() -> None:
    """What happens meanwhile in most tests."""


def played(
    lab: Lab,
    site: Site,
    calls: int,
    mix: Mapping[str, float],
    meanwhile: Callable[[], None] = nothing,
    *,
    rate: float = 20.0,
    talk_s: int | None = None,
) -> tuple[Summary, list[Played]]:
    """Plays Multcall; `meanwhile` runs in a thread of its own at the same time."""
    start = prefix()
    book: list[Checker] = []

    def rings() -> Mapping[str, int]:
        return Counter({n: c for n, c in lab.rings().items() if n.startswith(start)})

    async def both() -> Summary:
        doing = asyncio.create_task(asyncio.to_thread(meanwhile))
        summary = await play(
            site.redis_url,
            [CELL],
            calls,
            rate,
            mix=mix,
            extra={"Variaveis": {"LAB_TALK_S": str(talk_s)}} if talk_s else None,
            number_prefix=start,
            rings=rings,
            watch=book.append,
            answered_within_s=60.0,
        )
        await doing
        return summary

    return asyncio.run(both()), list(book[-1].calls.values())


def story(summary: Summary, site: Site, *workers: Worker) -> str:
    """What a failed test shows."""
    return "\n".join([*report(summary), site.logs(), *(worker.said[-3000:] for worker in workers)])


def up(site: Site, pbx: str) -> int:
    """How many calls of that PBX are answered, by the ledger."""
    with Redis.from_url(site.redis_url) as redis:
        ids = redis.smembers(f"dialer:claimed:{CELL}:{pbx}")
        states = [redis.hget(f"dialer:call:{i.decode()}", "state") for i in ids]
    return states.count(b"answered")


def dialplan_calls(lab: Lab) -> dict[str, int]:
    """How many calls went through each Asterisk's dialplan since it started, by its own count."""
    said = {"pbx22": lab.cli("22", "core show calls"), "pbx16": lab.cli("16", "core show calls")}
    counts = {pbx: re.search(r"(\d+) calls? processed", text) for pbx, text in said.items()}
    return {pbx: int(count[1]) for pbx, count in counts.items() if count}


def test_a_worker_in_a_container_places_calls_on_real_asterisk(
    lab: Lab, make_bridge: MakeBridge, start_worker: StartWorker
) -> None:
    site = make_bridge("pbx22")
    worker = start_worker(site, "pbx22")
    site.start()
    summary, _ = played(lab, site, 20, {"answered": 3, "busy": 1}, rate=10.0)
    assert summary.is_right, story(summary, site, worker)
    assert summary.calls == summary.responses == 20
    assert set(summary.results) == {Result.ANSWERED, Result.BUSY}
    assert set(summary.pbxs) == {"pbx22"}
    # Celery is the container's first process: SIGTERM must reach it.
    assert worker.stop() == 0


def test_each_call_is_dialed_by_the_worker_of_its_queue(
    lab: Lab, make_bridge: MakeBridge, start_worker: StartWorker, own_redis_url: str
) -> None:
    site = make_bridge("pbx22", "pbx16")
    workers = [start_worker(site, pbx) for pbx in ("pbx22", "pbx16")]
    before = dialplan_calls(lab)
    app = Celery(broker=f"{own_redis_url}/1")
    with heard_events(app) as heard:
        site.start()
        summary, calls = played(lab, site, 40, {"answered": 1}, talk_s=1)
    assert summary.is_right, story(summary, site, *workers)
    assert summary.results == {Result.ANSWERED: 40}
    placed_on = {f"{CELL}:{c.asked.request_id}": c.response.pbx for c in calls if c.response}
    assert set(placed_on.values()) == {"pbx22", "pbx16"}
    assert heard.workers("task-started") == placed_on  # which worker ran the task of which call
    after = dialplan_calls(lab)
    assert {pbx: after[pbx] - before[pbx] for pbx in after} == dict(summary.pbxs)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
def test_calls_outlive_their_worker_container(
    end: str, lab: Lab, make_bridge: MakeBridge, start_worker: StartWorker
) -> None:
    site = make_bridge("pbx22")
    workers = [start_worker(site, "pbx22")]
    site.start()

    def replace_worker() -> None:
        site.wait_until(lambda: up(site, "pbx22") == 20, "20 calls are up")
        if end == "SIGTERM":
            assert workers[0].stop() == 0
        else:
            workers[0].kill()
        assert lab.live_channels("22") == 20
        workers.append(start_worker(site, "pbx22"))
        assert "adopted=20" in workers[1].said

    summary, calls = played(lab, site, 20, {"long": 1}, replace_worker, talk_s=TALK_S)
    assert summary.is_right, story(summary, site, *workers)
    assert summary.results == {Result.ANSWERED: 20}
    assert lab.live_channels("22") == 0
    for call in calls:
        response = call.response
        assert response is not None
        assert response.error is None
        assert TALK_S - 1 <= (response.talk_s or 0) <= TALK_S + 2, response


@pytest.fixture
def broker_port() -> int:
    return free_port()


@pytest.fixture
def broker(docker_client: docker.DockerClient, broker_port: int) -> Iterator[Container]:
    """A Redis for Celery's messages alone, whose port stays the same when it is started again."""
    box = docker_client.containers.run(
        "redis:8",
        detach=True,
        network=NETWORK,
        ports={"6379/tcp": ("127.0.0.1", broker_port)},
    )
    box.reload()
    yield box
    box.remove(force=True, v=True)


def test_a_restarted_broker_only_delays_calls(
    lab: Lab,
    make_bridge: MakeBridge,
    start_worker: StartWorker,
    broker: Container,
    broker_port: int,
) -> None:
    site = make_bridge("pbx22", broker_url=f"redis://127.0.0.1:{broker_port}/1")
    worker = start_worker(site, "pbx22", broker_host=broker.attrs["Config"]["Hostname"])
    first_pid = worker.box.attrs["State"]["Pid"]
    site.start()
    bridge = site.programs["bridge"]

    def restart_broker() -> None:
        site.wait_until(lambda: up(site, "pbx22") > 2, "calls are up")
        broker.kill()
        away = "Broker unavailable; retrying, the calls stay in the ledger"
        site.wait_until(lambda: away in bridge.said(), "the bridge misses the broker")
        site.wait_until(lambda: "Connection to broker lost" in worker.said, "so does the worker")
        broker.start()
        wait_for("the broker", lambda: answers(broker_port, b"PING\r\n", b"+PONG"))

    # It lasts for 12 s, so that calls come while the broker is away.
    summary, _ = played(lab, site, 60, {"answered": 1}, restart_broker, rate=5.0, talk_s=2)
    assert summary.is_right, story(summary, site, worker)
    assert summary.results == {Result.ANSWERED: 60}
    # Without another call to publish, the bridge waits for 10 s before it says so.
    site.wait_until(lambda: "Broker available again" in bridge.said(), "the broker is back")
    assert bridge.is_running
    assert worker.box.attrs["State"]["Pid"] == first_pid
    assert "Traceback" not in bridge.said() + worker.said
