"""One connection to Redis that all tasks of an event loop share.

redis-py connects: TLS, login, HELLO, database, Sentinel and the options of the URL. Then this
module takes over the transport. Commands are written without waiting for earlier replies; Redis
answers in order. Knows nothing of steps, and repeats nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: Takes the replies of one `send` in order, Redis errors among them; or the error of a lost
#: connection, after which nobody knows which of the commands were run. It must not raise.
Then = Callable[[list[Any] | Exception], None]

_MORE: Final = object()


def pack(*command: str | bytes | int | float) -> bytes:
    """Return the bytes of a command.

    Raises:
        TypeError, UnicodeEncodeError: an argument cannot be sent.
    """
    packed: bytes = hiredis.pack_command(cast(Any, command))
    return packed


def take_over(connection: AbstractConnection) -> tuple[asyncio.Transport, Callable[[str], Any]]:
    """Return the transport of a new connection, and the function that makes errors of its replies.

    The only use of redis-py's private names. They are those of redis-py 8.1.
    """
    private = cast(Any, connection)
    return private._writer.transport, private._parser.parse_error


@dataclass(slots=True)
class _Sent:
    """Commands that were written together. `then` gets their replies when all have come."""

    size: int
    then: Then
    replies: list[Any] = field(default_factory=list)


class SharedConnection(asyncio.Protocol):
    """A connected socket, until it is lost. Then the owner closes it and opens another one.

    Counts as lost if the server says nothing for `reply_within_s` (redis-py's `socket_timeout` if
    None) although it owes a reply. With `health_check_interval` it is sent a PING after as many
    seconds of silence.
    """

    def __init__(
        self, redis: Redis, connection: AbstractConnection, reply_within_s: float | None = None
    ) -> None:
        """Take over `connection`, from the pool of `redis`."""
        self._pool = redis.connection_pool
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._transport, error_of = take_over(connection)
        self._streams = cast(asyncio.Protocol, self._transport.get_protocol())
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=error_of, notEnoughData=_MORE
        )
        self._owed: deque[_Sent] = deque()
        self._heard_at = self._loop.time()
        self._reply_timeout_s = reply_within_s or connection.socket_timeout or float("inf")
        self._ping_after_s = connection.health_check_interval or float("inf")
        self._watchdog: asyncio.TimerHandle | None = None
        self.is_open = True
        self._watch()

    @classmethod
    async def open(cls, redis: Redis, reply_within_s: float | None = None) -> Self:
        """Connect.

        Raises:
            RedisError, OSError: the server cannot be reached or refuses.
        """
        pool: Any = redis.connection_pool
        return cls(redis, await pool.get_connection(), reply_within_s)

    def send(self, commands: Sequence[bytes], then: Then) -> None:
        """Write commands in one go; `then` gets their replies, or the error of a lost connection.

        The connection must be open.
        """
        if not self._owed:
            self._heard_at = self._loop.time()
        self._owed.append(_Sent(len(commands), then))
        try:
            self._transport.write(b"".join(commands))
        except RuntimeError as error:  # uvloop's, if the connection was reset just now
            self.lose(RedisConnectionError(f"connection lost: {error}"))
            return
        if self._watchdog is None:
            self._watch()

    def lose(self, error: Exception) -> None:
        """Cut the connection; `error` goes to everyone who waits for a reply."""
        if not self.is_open:
            return
        self.is_open = False
        self._transport.abort()
        if self._watchdog is not None:
            self._watchdog.cancel()
        owed, self._owed = self._owed, deque()
        for sent in owed:
            sent.then(error)

    async def close(self) -> None:
        """Cut the connection and give its remains back to redis-py."""
        self.lose(RedisConnectionError("the connection was closed"))
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)

    def data_received(self, data: bytes) -> None:
        """Give each reply to the commands that were written first."""
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        try:
            while self.is_open:
                if (reply := self._reader.gets()) is _MORE:
                    break
                if not isinstance(reply, hiredis.PushNotification):
                    self._take(reply)
        except RedisError as error:
            # A lost connection: nobody knows which of the commands were run, so none was refused.
            self.lose(RedisConnectionError(f"the server's reply cannot be read: {error}"))

    def _take(self, reply: Any) -> None:
        if not self._owed:
            raise InvalidResponse("a reply came that no command asked for")
        first = self._owed[0]
        first.replies.append(reply)
        if len(first.replies) == first.size:
            self._owed.popleft()
            first.then(first.replies)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the waiting ones, and redis-py, which waits for this when it closes."""
        self._streams.connection_lost(error)
        self.lose(RedisConnectionError(f"connection lost: {error or 'closed by the server'}"))

    def _watch(self) -> None:
        """Check how long the server has been silent, and set the time of the next check.

        One timer for all commands: to set one for each costs more than the commands.
        """
        self._watchdog = None
        silent_s = self._loop.time() - self._heard_at
        limit_s = self._reply_timeout_s if self._owed else self._ping_after_s
        if silent_s < limit_s:
            left_s = min(limit_s - silent_s, self._reply_timeout_s)
            if limit_s != float("inf"):
                self._watchdog = self._loop.call_later(left_s, self._watch)
        elif self._owed:
            self.lose(RedisTimeoutError(f"no reply within {self._reply_timeout_s:g} s"))
        else:
            self.send([pack("PING")], lambda _: None)
