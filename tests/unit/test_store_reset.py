"""A connection to Redis that the network resets is lost, in both event loops, and nothing more."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

import hiredis
import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from dialer.errors import StoreUnavailable
from dialer.store.client import connect, wait_and_move
from dialer.store.shared_connection import SharedConnection

Factory = Callable[[], asyncio.AbstractEventLoop]
#: Closing such a socket resets the connection instead of ending it in order.
RESETS = struct.pack("ii", 1, 0)

in_both_loops = pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


class Server:
    """A Redis that has no data, and resets its connections when asked. Runs in its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._streams: list[asyncio.StreamWriter] = []
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self._in_thread(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"
        return self

    def __exit__(self, *_: object) -> None:
        self._in_thread(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> None:
        self._in_thread(self._reset())

    def _in_thread(self, done: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(done, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.append(writer)
        commands = hiredis.Reader()
        with suppress(OSError):
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    writer.write(_reply(command[0].upper()))

    async def _reset(self) -> None:
        while self._streams:
            transport: Any = self._streams.pop().transport
            found = transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            transport.abort()

    async def _end(self) -> None:
        self._listening.close()
        await self._reset()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*serving, return_exceptions=True)


def _reply(name: bytes) -> bytes:
    match name:
        case b"HELLO":
            return b"%1\r\n+server\r\n+redis\r\n"
        case b"BLMOVE" | b"GET":
            return b"$-1\r\n"
        case _:
            return b"+OK\r\n"


def run(factory: Factory, test: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    with Server() as server, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(test(server))


async def heard() -> None:
    """Let the loop hear of the reset; there is nothing to wait for."""
    for _ in range(20):
        await asyncio.sleep(0.005)


@in_both_loops
def test_a_reset_while_the_bridge_waits_is_an_outage(factory: Factory) -> None:
    async def test(server: Server) -> None:
        redis = connect(server.url)

        async def move() -> bytes | None:
            return await wait_and_move(
                redis, "source", "hand", head="LEFT", within_s=1, reply_within_s=5.0
            )

        assert await move() is None
        server.reset()
        await heard()
        with pytest.raises(StoreUnavailable, match="connection was lost"):
            await move()
        assert await move() is None
        await redis.aclose()

    run(factory, test)


@in_both_loops
def test_any_command_after_a_reset_fails_as_redis_errors_do(factory: Factory) -> None:
    async def test(server: Server) -> None:
        redis = connect(server.url)
        assert await redis.get("key") is None
        server.reset()
        await heard()
        with pytest.raises(RedisConnectionError):
            await redis.get("key")
        assert await redis.get("key") is None
        await redis.aclose()

    run(factory, test)


def test_steps_written_to_a_reset_connection_get_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop closes the transport before it tells of the loss."""

    class Closed:
        def write(self, _: bytes) -> None:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    async def test(server: Server) -> None:
        redis = connect(server.url)
        connection = await SharedConnection.open(redis)
        replies: list[Any] = []
        with monkeypatch.context() as patch:
            transport = connection._transport
            patch.setattr(Closed, "abort", transport.abort, raising=False)
            patch.setattr(connection, "_transport", Closed())
            connection.send([b"*1\r\n$4\r\nPING\r\n"], replies.append)
        assert not connection.is_open
        assert [type(reply) for reply in replies] == [RedisConnectionError]
        await connection.close()
        await redis.aclose()

    run(asyncio.new_event_loop, test)
