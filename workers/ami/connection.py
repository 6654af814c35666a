"""One AMI connection over panoramisk, with workarounds for its known faults.

The only module that knows panoramisk. Version 1.4 sends unanswered actions again after a
reconnect; its futures never resolve when a connection drops; a wrong secret raises nothing; it
escapes no line ends; it closes the link on an exception in a callback; it loses a UTF-8
character that a read cuts; its pings expect no pong; its reconnect cannot be stopped; it keeps
actions that were never answered. So a connection here is one Manager, used once; every wait has
a timeout, and `link` reconnects.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from panoramisk import Manager
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from dialer.errors import AmiCertificateRejected
from dialer.settings import Pbx
from dialer.settings.ami_tls import context_of, refusal

logger = logging.getLogger(__name__)

#: Event classes that we subscribe to; `system` brings FullyBooted, `agent` the events of queues.
EVENT_MASK: Final = "system,call,user,agent"

_NEVER_S: Final = 10**8

#: AMI messages parsed in one turn of the event loop; each takes up to 0.1 ms.
SLICE: Final = 50

Fields = Mapping[str, str]


class Connection(Manager):  # type: ignore[misc]
    """One connection that never reconnects. `closed` is done when it is closed."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: object) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def login(self, future: asyncio.Future[Any]) -> bool:
        return not future.cancelled() and super().login(future)

    def close(self) -> None:
        """Close at once; data that a hung Asterisk has not read yet is discarded."""
        super().close()
        if self.protocol is not None:
            self.protocol.transport.abort()
        self.connection_lost(None)

    def drop_answered(self) -> None:
        """Remove actions whose reply is no longer awaited; panoramisk never removes them."""
        responses = self.protocol.responses if self.protocol is not None else {}
        for action_id in [name for name, action in responses.items() if action.future.done()]:
            del responses[action_id]


async def connect(
    pbx: Pbx, wanted: frozenset[str], on_event: Callable[[Fields], None], *, within_s: float
) -> Connection:
    """Connect and begin to log in; `authenticated_future` is done when Asterisk has replied.

    Raises:
        AmiCertificateRejected: the certificate is not trusted, or the port has no TLS.
        ConfigError: there is no secret, or `tls_ca_file` cannot be used.
        OSError, TimeoutError: there is no answer.
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
    """Split the stream into frames as bytes, and drop unwanted events before parsing them.

    Frames are parsed in slices: a list of 2,000 channels must not block the event loop.
    """

    def __init__(self, wanted: frozenset[str], on_event: Callable[[Fields], None]) -> None:
        self._wanted = frozenset(name.encode() for name in wanted)
        self._on_event = on_event
        self._rest = b""
        self._frames: deque[bytes] = deque()

    def data_received(self, data: bytes) -> None:
        *frames, self._rest = (self._rest + data).split(b"\r\n\r\n")
        is_parsing = bool(self._frames)
        self._frames += [frame for frame in frames if self._is_wanted(frame)]
        if not is_parsing:
            self._parse()

    def _parse(self) -> None:
        for _ in range(min(SLICE, len(self._frames))):
            try:
                self._handle(self._frames[0])
            except Exception:
                logger.exception("AMI message failed; the link stays up")
            finally:
                self._frames.popleft()
        if self._frames:
            asyncio.get_running_loop().call_soon(self._parse)

    def _handle(self, frame: bytes) -> None:
        message = Message.from_line(frame.decode("utf-8", "replace").strip())
        if message is not None:
            self.handle_message(message)

    def _is_wanted(self, frame: bytes) -> bool:
        if not frame.startswith(b"Event: "):
            return True
        name = frame[7 : frame.find(b"\r\n")]
        return name in self._wanted or b"\r\nActionID: " in frame

    def handle_message(self, message: Message) -> None:
        if message.id in self.responses and message.event != "OriginateResponse":
            super().handle_message(message)
        elif "event" in message:
            self._on_event(plain(message))


def plain(message: Message) -> dict[str, str]:
    """Return the headers by Asterisk's names; the first of repeated headers counts."""
    return {
        name: str(value[0] if isinstance(value, list) else value)
        for name, value in message.items()
        if name != "content"  # panoramisk's own
    }
