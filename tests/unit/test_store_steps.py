"""What goes over the connection of `Steps`, and what becomes of each kind of reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
import pytest
from redis.exceptions import AuthenticationError, NoScriptError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from dialer.errors import StepsStopped
from dialer.store.scripts import DIGESTS, SOURCES
from dialer.store.shared_connection import Then
from dialer.store.steps import BATCH, READS, REPLICA_AWAY_MS, REPLICA_WITHIN_MS, Steps
from tests.unit.stand_ins import Notes, a
from tests.waiting import wait_until

#: A step that is never answered would hang.
pytestmark = pytest.mark.timeout(15)

NAMES = {digest.encode(): name for name, digest in DIGESTS.items()}
DOWN = "Redis unavailable; retrying, nothing is lost"
UP = "Redis available again"
LOST = RedisConnectionError("connection lost")
FULL = OutOfMemoryError("OOM command not allowed")
NO_SCRIPT = NoScriptError("NOSCRIPT No matching script")
NO_RIGHT = ResponseError("NOPERM this user has no permissions")
REPLICA = ResponseError("WAIT cannot be used with replica instances")


@dataclass(slots=True)
class Batch:
    """Commands that were written together."""

    commands: list[list[bytes]]
    then: Then

    @property
    def kinds(self) -> list[str]:
        """LOAD, the name of a step, or another command."""
        return [
            NAMES[words[1]]
            if words[0] == b"EVALSHA"
            else "LOAD"
            if words[:2] == [b"SCRIPT", b"LOAD"]
            else words[0].decode()
            for words in self.commands
        ]


@dataclass(slots=True)
class Connection:
    is_open: bool = True
    is_closed: bool = False
    batches: list[Batch] = field(default_factory=list)

    def send(self, commands: Sequence[bytes], then: Then) -> None:
        reader = hiredis.Reader()
        reader.feed(b"".join(commands))
        self.batches.append(Batch([reader.gets() for _ in commands], then))

    def reply(self, *replies: Any) -> None:
        """Reply to the batch that was written first."""
        self.batches.pop(0).then(list(replies))

    def lose(self, error: Exception) -> None:
        self.is_open = False
        batches, self.batches = self.batches, []
        for batch in batches:
            batch.then(error)

    async def close(self) -> None:
        self.lose(RedisConnectionError("the connection was closed"))
        self.is_closed = True


@dataclass(slots=True)
class Server:
    """In the place of `SharedConnection`: refuses first, then opens connections."""

    refusals: list[Exception] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    async def open(self, _: object) -> Connection:
        if self.refusals:
            raise self.refusals.pop(0)
        self.connections.append(Connection())
        return self.connections[-1]

    @property
    def kinds(self) -> list[list[str]]:
        """The batches without a reply of the newest connection."""
        return [batch.kinds for batch in self.connections[-1].batches]

    async def until(self, *kinds: list[str]) -> Connection:
        """Wait until these are the batches without a reply, and no other is written soon."""
        await wait_until(lambda: self.connections, "a connection")
        await wait_until(lambda: self.kinds == list(kinds), f"{kinds}, not {self.kinds}")
        await turns()
        assert self.kinds == list(kinds)
        return self.connections[-1]


async def turns() -> None:
    """Give everybody a few turns of the event loop."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr("dialer.store.steps.SharedConnection", server)
    monkeypatch.setattr("dialer.store.steps.RETRY_PAUSE_S", 0.001)
    return server


@pytest.fixture
def notes() -> Notes:
    return Notes()


def steps_of(notes: Notes, **more: Any) -> Steps:
    redis = a(response_callbacks={"HGETALL": dict}, aclose=notes.of("aclose"))
    callbacks = {"on_recovered": notes.now_of("recovered"), "on_stopped": notes.now_of("stopped")}
    return Steps(cast(Any, redis), "here", **{**callbacks, **more})


@pytest.fixture
async def steps(server: Server, notes: Notes) -> AsyncIterator[Steps]:
    steps = steps_of(notes)
    yield steps
    await steps.close()


@pytest.fixture
async def replicated(server: Server, notes: Notes) -> AsyncIterator[Steps]:
    steps = steps_of(notes, replicated=True)
    yield steps
    await steps.close()


def run(steps: Steps, name: str, *keys: str, args: Sequence[Any] = ()) -> asyncio.Task[Any]:
    return asyncio.create_task(steps.run(name, keys, args))


# --- what is written ----------------------------------------------------------------------


def test_a_step_has_the_text_of_what_it_includes() -> None:
    assert not [name for name in SOURCES if name.startswith("_")]
    texts = SOURCES["claim"].splitlines()
    assert texts.index("local function fenced(key, given, keep_s)") < texts.index(
        "local error = fenced(KEYS[4], ARGV[8], ARGV[9])"
    )
    assert SOURCES["present"].startswith("-- Show that a worker")


async def test_a_step_is_loaded_once(server: Server, steps: Steps) -> None:
    first = run(steps, "claim", "dialer:call:a", args=["x", 7])
    connection = await server.until(["LOAD", "claim"])
    load, step = connection.batches[0].commands
    assert load[2] == SOURCES["claim"].encode()
    assert step == [b"EVALSHA", DIGESTS["claim"].encode(), b"1", b"dialer:call:a", b"x", b"7"]
    connection.reply(b"digest", b"done")
    assert await first == b"done"
    second = run(steps, "claim", "dialer:call:a")
    (await server.until(["claim"])).reply(b"again")
    assert await second == b"again"
    assert not steps.is_down


async def test_without_an_error_nothing_pauses(
    server: Server, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialer.store.steps.RETRY_PAUSE_S", 3_600)
    for n in range(2):
        one = run(steps, "release", "dialer:slots:a")
        loads = [] if n else ["LOAD"]
        (await server.until([*loads, "release"])).reply(*loads, n)
        assert await one == n


async def test_only_a_step_of_a_call_waits_for_another(server: Server, steps: Steps) -> None:
    tasks = [
        run(steps, "release", "dialer:slots:a"),
        run(steps, "release", "dialer:slots:a"),
        run(steps, "end", "dialer:live:x", "dialer:call:a"),
        run(steps, "end", "dialer:live:x", "dialer:call:a"),
        run(steps, "end", "dialer:live:x", "dialer:call:b"),
    ]
    loads = ["LOAD", "LOAD"]
    connection = await server.until([*loads, "release", "release", "end", "end"])
    connection.reply(*loads, 1, 2, 3, 5)
    (await server.until(["end"])).reply(4)
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]


async def test_reads_are_parsed_as_redis_py_does(server: Server, steps: Steps) -> None:
    one = asyncio.create_task(steps.read("GET", "key"))
    (await server.until(["GET"])).reply(b"value")
    assert await one == b"value"
    pairs = asyncio.create_task(steps.read("HGETALL", "key"))
    (await server.until(["HGETALL"])).reply([(b"a", b"1")])
    assert await pairs == {b"a": b"1"}
    many = asyncio.create_task(steps.read_many([("GET", "a"), ("HGETALL", "b")]))
    (await server.until(["GET", "HGETALL"])).reply(b"1", [(b"c", b"2")])
    assert await many == [b"1", {b"c": b"2"}]


async def test_many_reads_are_written_in_parts(server: Server, steps: Steps) -> None:
    many = asyncio.create_task(steps.read_many([("GET", str(n)) for n in range(READS + 2)]))
    (await server.until(["GET"] * READS)).reply(*range(READS))
    (await server.until(["GET"] * 2)).reply(READS, READS + 1)
    assert await many == list(range(READS + 2))


async def test_no_more_than_a_batch_waits_for_replies(server: Server, steps: Steps) -> None:
    tasks = [run(steps, "release", "dialer:slots:a") for _ in range(BATCH - 10)]
    first = ["LOAD", *["release"] * (BATCH - 10)]
    await server.until(first)
    tasks += [run(steps, "release", "dialer:slots:a") for _ in range(25)]
    connection = await server.until(first, ["release"] * 10)
    connection.reply("digest", *range(BATCH - 10))
    connection = await server.until(["release"] * 10, ["release"] * 15)
    connection.reply(*range(10))
    connection.reply(*range(15))
    await asyncio.gather(*tasks)


# --- errors -------------------------------------------------------------------------------


async def test_a_refused_step_fails_alone(
    server: Server, steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    refused, fine = run(steps, "release", "dialer:slots:a"), run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release", "release"])).reply("digest", NO_RIGHT, 1)
    with pytest.raises(ResponseError, match="NOPERM"):
        await refused
    assert await fine == 1
    assert (caplog.messages, steps.is_down) == ([], False)


async def test_a_step_that_redis_takes_later_runs_again(
    server: Server, steps: Steps, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    late, fine = run(steps, "release", "dialer:slots:a"), run(steps, "hold", "dialer:pbx:a")
    (await server.until(["LOAD", "LOAD", "release", "hold"])).reply("digest", "digest", FULL, 1)
    assert await fine == 1
    connection = await server.until(["release"])
    assert (steps.is_down, caplog.messages) == (True, [DOWN])
    connection.reply(FULL)
    (await server.until(["release"])).reply(2)
    assert await late == 2
    assert (steps.is_down, caplog.messages, notes) == (False, [DOWN, UP], [("recovered",)])
    assert len(server.connections) == 1


async def test_a_step_runs_again_after_a_pause_only(
    server: Server, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply("digest", FULL)
    connection = await server.until(["release"])
    monkeypatch.setattr("dialer.store.steps.RETRY_PAUSE_S", 3_600)
    connection.reply(1)
    await one
    two = run(steps, "release", "dialer:slots:a")
    (await server.until(["release"])).reply(FULL)
    await turns()
    assert server.kinds == [], "it pauses"
    two.cancel()


async def test_redis_is_available_when_it_takes_all_again(server: Server, steps: Steps) -> None:
    late = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply("digest", FULL)
    connection = await server.until(["release"])
    other = asyncio.create_task(steps.read("GET", "key"))
    connection = await server.until(["release"], ["GET"])
    connection.batches.reverse()
    connection.reply(b"value")
    assert await other == b"value"
    assert steps.is_down, "one step was not taken yet"
    connection.reply(1)
    await late
    assert not steps.is_down


async def test_what_was_under_way_runs_again_if_lost(
    server: Server, steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = run(steps, "release", "dialer:slots:a"), run(steps, "release", "dialer:slots:b")
    first = await server.until(["LOAD", "release", "release"])
    first.lose(LOST)
    second = await wait_for_second(server)
    assert first.is_closed
    assert second.batches[0].kinds == ["LOAD", "release", "release"]
    second.reply("digest", 1, 2)
    assert (await one, await two) == (1, 2)
    assert caplog.messages == [DOWN, UP]


async def wait_for_second(server: Server) -> Connection:
    await wait_until(lambda: len(server.connections) == 2, "another connection")
    await wait_until(lambda: server.connections[1].batches, "what was lost is written again")
    return server.connections[1]


async def test_an_idle_connection_that_is_lost_is_replaced(
    server: Server, steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    one = run(steps, "release", "dialer:slots:a")
    first = await server.until(["LOAD", "release"])
    first.reply("digest", 1)
    await one
    first.lose(LOST)
    two = run(steps, "release", "dialer:slots:a")
    second = await wait_for_second(server)
    second.reply("digest", 2)
    assert await two == 2
    assert (caplog.messages, first.is_closed) == ([], True)


@pytest.mark.parametrize("load", [b"digest", FULL])
async def test_a_forgotten_script_is_loaded_again(server: Server, steps: Steps, load: Any) -> None:
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply(load, NO_SCRIPT)
    (await server.until(["LOAD", "release"])).reply(b"digest", 1)
    assert await one == 1


async def test_a_script_that_may_not_be_loaded_is_told(server: Server, steps: Steps) -> None:
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply(NO_RIGHT, NO_SCRIPT)
    with pytest.raises(ResponseError, match="NOPERM"):
        await one


@pytest.mark.parametrize("error", [RedisConnectionError("refused"), OSError("no route")])
async def test_a_server_that_is_away_is_tried_again(
    server: Server, steps: Steps, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    server.refusals += [error, error]
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply("digest", 1)
    assert await one == 1
    assert (caplog.messages, server.refusals) == ([DOWN, UP], [])


async def test_a_refused_login_is_told_to_all_who_wait(server: Server, steps: Steps) -> None:
    server.refusals += [AuthenticationError("WRONGPASS")] * 2
    tasks = [run(steps, "release", "dialer:slots:a") for _ in range(BATCH + 5)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, AuthenticationError) for error in found)
    assert (server.refusals, steps.is_down) == ([], False)
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply("digest", 1)
    assert await one == 1


async def test_a_refused_login_delays_no_later_step(
    server: Server, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dialer.store.steps.RETRY_PAUSE_S", 3_600)
    server.refusals.append(AuthenticationError("WRONGPASS"))
    with pytest.raises(AuthenticationError):
        await run(steps, "release", "dialer:slots:a")
    two = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).reply("digest", 1)
    assert await two == 1


async def test_abandoned_steps_are_not_all_repeated(server: Server, steps: Steps) -> None:
    tasks = [run(steps, "release", "dialer:slots:a") for _ in range(3)]
    connection = await server.until(["LOAD", "release", "release", "release"])
    for task in tasks:
        task.cancel()
    await turns()
    connection.reply("digest", FULL, FULL, FULL)
    (await server.until(["release"])).reply(1)
    assert not steps.is_down


async def test_an_error_of_the_login_while_under_way_is_told(server: Server, steps: Steps) -> None:
    one = run(steps, "release", "dialer:slots:a")
    (await server.until(["LOAD", "release"])).lose(AuthenticationError("WRONGPASS"))
    with pytest.raises(AuthenticationError):
        await one
    assert not steps.is_down


# --- a replica ----------------------------------------------------------------------------

WAITING = {
    "hold", "fence", "claim", "unclaim", "end", "end_release", "code", "late_codes", "refuse",
    "change", "dead_send", "user_set", "user_remove",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SOURCES))
async def test_a_step_whose_loss_does_harm_waits_for_a_replica(
    server: Server, replicated: Steps, name: str
) -> None:
    one = run(replicated, name, "dialer:call:a")
    more = ["WAIT"] if name in WAITING else []
    connection = await server.until(["LOAD", name, *more])
    if more:
        words = connection.batches[0].commands[-1]
        assert words == [b"WAIT", b"1", str(REPLICA_WITHIN_MS).encode()]
    connection.reply("digest", b"done", *([1] if more else []))
    assert await one == b"done"


async def test_nothing_is_written_while_a_replica_is_waited_for(
    server: Server, replicated: Steps
) -> None:
    one = run(replicated, "claim", "dialer:call:a")
    await server.until(["LOAD", "claim", "WAIT"])
    two = run(replicated, "release", "dialer:slots:a")
    (await server.until(["LOAD", "claim", "WAIT"])).reply("digest", 1, 1)
    connection = await server.until(["LOAD", "release"])
    three = asyncio.create_task(replicated.read("GET", "key"))
    connection = await server.until(["LOAD", "release"], ["GET"])
    connection.reply("digest", 2)
    connection.reply(3)
    assert (await one, await two, await three) == (1, 2, 3)


async def test_a_step_without_a_replica_does_not_wait(server: Server, steps: Steps) -> None:
    one = run(steps, "claim", "dialer:call:a")
    (await server.until(["LOAD", "claim"])).reply("digest", 1)
    assert await one == 1


@pytest.mark.parametrize("reply", [0, NO_RIGHT])
async def test_a_replica_that_does_not_confirm_is_logged_once(
    server: Server, replicated: Steps, reply: Any, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts = []
    for n, confirmed in enumerate((reply, reply, 1, 1)):
        one = run(replicated, "claim", "dialer:call:a")
        loads = [] if n else ["LOAD"]
        connection = await server.until([*loads, "claim", "WAIT"])
        timeouts.append(int(connection.batches[0].commands[-1][2]))
        connection.reply(*loads, b"done", confirmed)
        assert await one == b"done"
    away, within = REPLICA_AWAY_MS, REPLICA_WITHIN_MS
    assert timeouts == [within, away, away, within]
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "Redis replica does not confirm writes",
        "Redis replica confirms writes again",
    ]


async def test_a_server_that_became_a_replica_is_left(
    server: Server, replicated: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    one = run(replicated, "claim", "dialer:call:a")
    first = await server.until(["LOAD", "claim", "WAIT"])
    first.reply("digest", b"done", REPLICA)
    second = await wait_for_second(server)
    assert (first.is_open, one.done()) == (False, False)
    second.reply("digest", b"done", 1)
    assert await one == b"done"
    assert caplog.messages == [DOWN, UP]


async def test_a_server_that_is_only_full_is_not_left(server: Server, replicated: Steps) -> None:
    one = run(replicated, "claim", "dialer:call:a")
    connection = await server.until(["LOAD", "claim", "WAIT"])
    connection.reply("digest", FULL, 1)
    (await server.until(["claim", "WAIT"])).reply(b"done", 1)
    assert await one == b"done"
    assert len(server.connections) == 1


# --- the end ------------------------------------------------------------------------------


async def test_closing_cancels_what_waits(server: Server, notes: Notes) -> None:
    steps = steps_of(notes)
    one = run(steps, "release", "dialer:slots:a")
    connection = await server.until(["LOAD", "release"])
    two = run(steps, "end", "dialer:call:a")
    await turns()
    await steps.close()
    for task in (one, two):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (notes, connection.is_closed) == ([("aclose",)], True)
    with pytest.raises(StepsStopped, match="the connection to here was closed"):
        await steps.run("release", ["dialer:slots:a"])
    await steps.close()


async def test_steps_that_never_ran_can_be_closed(server: Server, notes: Notes) -> None:
    await steps_of(notes).close()
    assert (notes, server.connections) == ([("aclose",)], [])


async def test_an_unexpected_error_stops_all_steps(
    server: Server, steps: Steps, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    one = run(steps, "release", "dialer:slots:a")
    connection = await server.until(["LOAD", "release"])
    connection.is_open = False
    server.refusals.append(KeyError("a fault"))
    two = run(steps, "release", "dialer:slots:a")
    for task in (one, two):
        with pytest.raises(StepsStopped, match=r"of here: KeyError\('a fault'\)") as raised:
            await task
        assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(StepsStopped, match="the process must be restarted"):
        await steps.run("release", ["dialer:slots:a"])
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "Redis unavailable",
        "Redis steps stopped by an unexpected error",
    ]
    assert notes.names == ["stopped"]
    assert connection.is_closed


async def test_an_error_of_a_callback_stops_all_steps(server: Server, notes: Notes) -> None:
    def fails() -> None:
        raise KeyError("a fault")

    steps = steps_of(notes, on_recovered=fails)
    server.refusals.append(LOST)
    one = run(steps, "release", "dialer:slots:a")
    connection = await server.until(["LOAD", "release"])
    two = run(steps, "release", "dialer:slots:b")
    await server.until(["LOAD", "release"], ["release"])
    connection.reply("digest", 1)
    assert await one == 1
    with pytest.raises(StepsStopped, match="a fault"):
        await two
    assert notes.names == ["stopped"]
    await steps.close()


async def test_steps_whose_task_was_cancelled_say_so(server: Server, notes: Notes) -> None:
    steps = steps_of(notes)
    one = run(steps, "release", "dialer:slots:a")
    await server.until(["LOAD", "release"])
    assert steps._runner is not None
    steps._runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    with pytest.raises(StepsStopped, match="the steps of here were cancelled"):
        await steps.run("release", ["dialer:slots:a"])
    await steps.close()


async def test_work_ends_if_the_server_goes_down_first(server: Server, steps: Steps) -> None:
    async def forever() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("it")
            raise
        return "done"

    cancelled: list[str] = []

    assert await steps.or_none_if_down(asyncio.sleep(0, "done")) == "done"
    work = asyncio.create_task(forever())
    waiting = asyncio.create_task(steps.wait_done_or_down(work))
    await turns()
    assert not waiting.done()
    steps.mark_down(LOST)
    assert not await waiting
    assert not work.done()
    work.cancel()
    await turns()
    cancelled.clear()
    steps._down.clear()
    waiting_too = asyncio.create_task(steps.or_none_if_down(forever()))
    await turns()
    steps.mark_down(LOST)
    assert (await waiting_too, cancelled) == (None, ["it"])
