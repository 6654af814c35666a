"""The shared connection with a simulated clock and transport: each command's reply, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dialer.store.shared_connection import SharedConnection, pack
from tests.unit.stand_ins import Notes, a

GET = pack("GET", "key")


@dataclass(slots=True)
class Timer:
    at: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass(slots=True)
class Clock:
    """In the place of the event loop."""

    now: float = 100.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    @property
    def due(self) -> list[float]:
        """In how many seconds the timers come."""
        return [round(t.at - self.now, 3) for t in self.timers if not t.is_cancelled]

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        timers, self.timers = self.timers, []
        for timer in timers:
            if timer.is_cancelled:
                continue
            if timer.at <= self.now + 1e-6:
                timer.callback()
            else:
                self.timers.append(timer)


@dataclass(slots=True)
class Line:
    """A connection, and what came of it."""

    clock: Clock
    notes: Notes
    shared: SharedConnection
    replies: list[Any] = field(default_factory=list)

    def send(self, *commands: bytes) -> None:
        self.shared.send(commands, self.replies.append)

    @property
    def written(self) -> list[bytes]:
        return self.notes.given("write")


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Line]:
    def made(timeout_s: float | None = 5, ping_after_s: float | None = 0) -> Line:
        clock, notes = Clock(), Notes()
        transport = a(
            write=notes.now_of("write"),
            abort=notes.now_of("abort"),
            set_protocol=notes.now_of("set_protocol"),
            get_protocol=lambda: a(connection_lost=notes.now_of("streams lost")),
        )
        connection = a(
            socket_timeout=timeout_s,
            health_check_interval=ping_after_s,
            disconnect=notes.of("disconnect"),
        )
        redis = a(connection_pool=a(release=notes.of("release")))
        with monkeypatch.context() as patch:
            loop = a(get_running_loop=lambda: clock, Protocol=asyncio.Protocol)
            patch.setattr("dialer.store.shared_connection.asyncio", loop)
            patch.setattr(
                "dialer.store.shared_connection.take_over", lambda _: (transport, ValueError)
            )
            shared = SharedConnection(cast(Any, redis), cast(Any, connection))
        return Line(clock, notes, shared)

    return made


def test_each_caller_gets_its_own_replies(line: Callable[..., Line]) -> None:
    one = line()
    assert one.notes == [("set_protocol", one.shared)]
    one.send(GET, GET)
    one.send(GET)
    assert one.written == [GET + GET, GET]
    one.shared.data_received(b"$1\r\na\r\n$1")
    assert one.replies == []
    one.shared.data_received(b"\r\nb\r\n-NOPERM no\r\n")
    first, (error,) = one.replies
    assert first == [b"a", b"b"]
    assert isinstance(error, ValueError)
    assert one.shared.is_open


def test_a_push_is_no_reply(line: Callable[..., Line]) -> None:
    one = line()
    one.send(GET)
    one.shared.data_received(b">2\r\n+invalidate\r\n+key\r\n$1\r\na\r\n")
    assert one.replies == [[b"a"]]


@pytest.mark.parametrize("data", [b"+nobody asked\r\n", b"?what\r\n"])
def test_a_reply_that_makes_no_sense_ends_it(line: Callable[..., Line], data: bytes) -> None:
    one = line()
    if data.startswith(b"?"):
        one.send(GET)
    one.shared.data_received(data + b"+more\r\n")
    assert not one.shared.is_open
    assert [type(error) for error in one.replies] == [RedisConnectionError] * data.count(b"?")


def test_all_who_wait_are_told_of_the_loss_once(line: Callable[..., Line]) -> None:
    one = line()
    one.send(GET)
    one.send(GET)
    one.shared.connection_lost(None)
    one.shared.lose(ValueError("again"))
    assert [str(error) for error in one.replies] == ["connection lost: closed by the server"] * 2
    assert one.notes.names == ["set_protocol", "write", "write", "streams lost", "abort"]
    assert (one.shared.is_open, one.clock.due) == (False, [])


async def test_what_is_closed_goes_back_to_its_pool(line: Callable[..., Line]) -> None:
    one = line()
    one.send(GET)
    await one.shared.close()
    assert [str(error) for error in one.replies] == ["the connection was closed"]
    assert one.notes.names[-3:] == ["abort", "disconnect", "release"]
    assert one.notes.given("disconnect") == [{"nowait": True}]
    assert one.notes.given("release") == [one.shared._connection]


def test_a_server_that_owes_a_reply_is_given_its_time(line: Callable[..., Line]) -> None:
    one = line()
    assert one.clock.due == []
    one.clock.pass_s(60)
    one.send(GET)
    assert one.clock.due == [5], "the time counts from the command on"
    one.clock.pass_s(3)
    one.send(GET)
    one.shared.data_received(b"+OK\r\n")
    one.clock.pass_s(2)
    assert (one.shared.is_open, one.clock.due) == (True, [3]), "it was heard two seconds ago"
    one.send(GET)
    one.clock.pass_s(3)
    assert not one.shared.is_open, "a new command does not extend the time limit"
    assert one.replies[0] == [b"OK"]
    assert [str(error) for error in one.replies[1:]] == ["no reply within 5 s"] * 2
    assert all(isinstance(error, RedisTimeoutError) for error in one.replies[1:])


def test_an_idle_connection_needs_no_timer(line: Callable[..., Line]) -> None:
    one = line()
    one.send(GET)
    one.shared.data_received(b"+OK\r\n")
    one.clock.pass_s(5)
    assert (one.shared.is_open, one.clock.due) == (True, [])
    one.send(GET)
    assert one.clock.due == [5]


def test_a_silent_connection_is_sent_a_ping(line: Callable[..., Line]) -> None:
    one = line(timeout_s=4, ping_after_s=10)
    assert one.clock.due == [4], "a command may come at any time"
    for _ in range(2):
        one.clock.pass_s(4)
    assert (one.written, one.clock.due) == ([], [2])
    one.clock.pass_s(2)
    assert one.written == [pack("PING")]
    assert one.clock.due == [4]
    one.clock.pass_s(3)
    one.shared.data_received(b"+PONG\r\n")
    one.clock.pass_s(1)
    assert one.shared.is_open
    for _ in range(3):
        one.clock.pass_s(3)
    assert one.written == [pack("PING")] * 2, "ten seconds after it was heard"
    one.clock.pass_s(4)
    assert not one.shared.is_open


def test_without_a_timeout_nothing_is_timed(line: Callable[..., Line]) -> None:
    one = line(timeout_s=None, ping_after_s=None)
    one.send(GET)
    assert one.clock.due == []
    one.clock.pass_s(10**6)
    assert one.shared.is_open
