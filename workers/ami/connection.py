"""One AMI connection: panoramisk, held so that its known faults do no harm.

The only module that knows panoramisk (1.4), of which is known: it sends unanswered actions again
after a reconnect; its futures never resolve when a connection drops; a wrong secret raises
nothing; it escapes no line ends; it closes the link on an exception in a callback; it
loses a UTF-8 character cut by a read; its pings expect no pong; its own reconnect cannot be
stopped. So here a connection is one Manager, used once; every wait is bounded, and
reconnecting is ours, in `link`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from panoramisk import Manager
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from dialer.errors import AmiCertificateRejected
from dialer.settings import Pbx
from dialer.settings.ami_tls import context_of, refusal

logger = logging.getLogger(__name__)

#: Classes of events that are asked for; `system` brings FullyBooted, `agent` what queues say.
EVENT_MASK: Final = "system,call,user,agent"

_NEVER_S: Final = 10**8

Fields = Mapping[str, str]


class Connection(Manager):  # type: ignore[misc]
    """One connection that never reconnects. `closed` is done when it is over."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: object) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def login(self, future: asyncio.Future[Any]) -> bool:
        return not future.cancelled() and super().login(future)

    def close(self) -> None:
        """Closes at once: what a hung Asterisk has not read yet is not sent any more."""
        super().close()
        if self.protocol is not None:
            self.protocol.transport.abort()
        self.connection_lost(None)


async def connect(
    pbx: Pbx, wanted: frozenset[str], on_event: Callable[[Fields], None], *, within_s: float
) -> Connection:
    """Connects and begins to log in; `authenticated_future` is done when Asterisk has answered.

    Raises:
        AmiCertificateRejected: the other end is not the PBX, or speaks no TLS.
        ConfigError: there is no secret, or no certificate to trust.
        OSError, TimeoutError: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    connection = Connection(
        loop=loop,
        host=pbx.host,
        port=pbx.port,
        username=pbx.username,
        secret=pbx.secret.get_secret_value(),
        events=EVENT_MASK,
        ping_delay=_NEVER_S,
        ping_interval=_NEVER_S,
        forgetable_actions=("ping", "login", "originate"),
    )
    trusted = context_of(pbx)
    try:
        async with asyncio.timeout(within_s):
            made = await loop.create_connection(
                lambda: _Protocol(wanted, on_event), pbx.host, pbx.port, ssl=trusted
            )
    except ssl.SSLError as error:
        raise AmiCertificateRejected(refusal(pbx, error)) from error
    opened: asyncio.Future[Any] = loop.create_future()
    opened.set_result(made)
    connection.connection_made(opened)
    return connection


class _Protocol(AMIProtocol):  # type: ignore[misc]
    """Cuts the stream into frames as bytes, and drops unwanted events before parsing them."""

    def __init__(self, wanted: frozenset[str], on_event: Callable[[Fields], None]) -> None:
        self._wanted = frozenset(name.encode() for name in wanted)
        self._on_event = on_event
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *frames, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for frame in frames:
            if self._is_wanted(frame):
                message = Message.from_line(frame.decode("utf-8", "replace").strip())
                if message is not None:
                    self.handle_message(message)

    def _is_wanted(self, frame: bytes) -> bool:
        if not frame.startswith(b"Event: "):
            return True
        name = frame[7 : frame.find(b"\r\n")]
        return name in self._wanted or b"\r\nActionID: " in frame

    def handle_message(self, message: Message) -> None:
        is_event = "event" in message
        if message.id in self.responses and message.event != "OriginateResponse":
            super().handle_message(message)
        elif is_event:
            try:
                self._on_event(plain(message))
            except Exception:
                logger.exception("An AMI event could not be used", extra={"event": message.event})


def plain(message: Message) -> dict[str, str]:
    """Headers under Asterisk's names; of a repeated header the first."""
    return {
        name: str(value[0] if isinstance(value, list) else value)
        for name, value in message.items()
        if name != "content"  # panoramisk's own
    }
