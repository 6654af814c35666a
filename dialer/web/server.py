"""`dialer web`: connects, makes the one-time link of a new system, serves until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Final

import uvicorn

from dialer.domain.roles import Role
from dialer.errors import DialerError, StepsStopped
from dialer.monitor.collector import Collector
from dialer.settings import Settings
from dialer.store.client import cancel
from dialer.store.people import People
from dialer.web.app import application
from dialer.web.hub import Hub
from dialer.web.site import Site

logger = logging.getLogger(__name__)

#: Streams have so long to end when the program stops, in seconds.
STOP_WITHIN_S: Final = 2

#: Most connections at a time; more get 503 at once.
CONNECTIONS_MAX: Final = 2_000

#: What a viewer has not taken yet waits in the kernel, up to twice this. Without a limit that is up
#: to 4 MB for each of a thousand viewers who are slow.
SENT_AHEAD_BYTES: Final = 65_536


class _Server(uvicorn.Server):
    """Uvicorn whose signals are ours: the settings and the log are too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def serve(settings: Settings, host: str, port: int, proxy: str) -> None:
    """Serve the page until SIGTERM or SIGINT.

    `proxy` are the addresses of reverse proxies, which say who asks, and that it was HTTPS.

    Raises:
        DialerError: the port cannot be used.
        StoreUnavailable: the registry's Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
        StepsStopped: an unexpected error stopped the steps of a Redis.
    """
    stopped: asyncio.Queue[StepsStopped] = asyncio.Queue()
    listener = _listener(host, port)
    with contextlib.closing(listener):
        async with Collector(
            settings, needs_every_redis=False, on_stopped=stopped.put_nowait
        ) as collector:
            people = People(collector.registry)
            site = Site(file=settings, collector=collector, hub=Hub(collector.look), people=people)
            url = _url(listener)
            logger.info("Web page ready", extra={"url": url})
            if await people.is_empty():
                token = await people.new_link("", Role.ADMIN)
                logger.warning(
                    "There is no user yet; open the link within an hour to make the first one",
                    extra={"link": f"{url}/login?link={token}"},
                )
            if not _is_loopback(host):
                logger.warning(
                    "The page can be reached from other hosts; browsers sign in over HTTPS only",
                    extra={
                        "cure": "put a reverse proxy with TLS before it, see docs/operations.md"
                    },
                )
            server = _Server(
                uvicorn.Config(
                    application(site),
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    server_header=False,
                    proxy_headers=True,
                    forwarded_allow_ips=proxy,
                    limit_concurrency=CONNECTIONS_MAX,
                    timeout_graceful_shutdown=STOP_WITHIN_S,
                    ws="none",
                )
            )
            await serve_until_stopped(server, [listener], stopped)


async def serve_until_stopped(
    server: uvicorn.Server, listeners: Sequence[socket.socket], stopped: asyncio.Queue[StepsStopped]
) -> None:
    """Serve until a signal, or until the steps of a Redis have stopped.

    Raises:
        StepsStopped: they have; the process must end, every later step would fail.
    """
    serving = asyncio.create_task(server.serve(sockets=[*listeners]), name="web server")
    failing = asyncio.create_task(stopped.get(), name="stop of the steps")
    try:
        await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if failing.done():
            raise failing.result()
    finally:
        await cancel([serving, failing])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_AHEAD_BYTES)
    try:
        listener.bind((host, port))
        listener.listen()  # from now on nobody is refused
    except OSError as error:
        listener.close()
        raise DialerError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another --port"
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104  # compared only
    return f"http://{f'[{shown}]' if ':' in shown and shown[0] != '[' else shown}:{port}"


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
