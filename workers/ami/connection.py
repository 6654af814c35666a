"""One AMI connection over panoramisk, with workarounds for its known faults.

The only module that knows panoramisk. Version 1.4 sends unanswered actions again after a
reconnect; its futures never resolve when a connection drops; a wrong secret raises nothing; it
escapes no line ends; it closes the link on an exception in a callback; it loses a UTF-8
character that a read cuts; its pings expect no pong; its reconnect cannot be stopped; it keeps
actions that were never answered; it takes any message with the ActionID of an action for the reply,
and raises if a header is repeated. So a connection here is one Manager, used once, that reads its
messages with `frames`; every wait has a timeout, and `link` reconnects.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from panoramisk import Manager
from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from dialer.errors import AmiCertificateRejected
from dialer.settings import Pbx
from dialer.settings.ami_tls import context_of, refusal
from workers.ami.frames import Splitter, headers_of

logger = logging.getLogger(__name__)

#: Event classes that we subscribe to; `system` brings FullyBooted, `agent` the events of queues.
EVENT_MASK: Final = "system,call,user,agent"

_NEVER_S: Final = 10**8

#: AMI messages read in one turn of the event loop; each takes up to 0.1 ms.
SLICE: Final = 50

#: Stop reading from Asterisk while more bytes than this wait to be handled.
WAITING_MAX_BYTES: Final = 8 * 1024 * 1024

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

    def heard_at(self) -> float:
        """Return when Asterisk last sent something, by the loop's clock; 0 if never."""
        return float(getattr(self.protocol, "heard_at", 0.0))

    @property
    def unread_bytes(self) -> int:
        """How many bytes wait to be sent, because Asterisk does not read."""
        return int(self.protocol.transport.get_write_buffer_size()) if self.protocol else 0

    def send(self, fields: Mapping[str, str | list[str]], *, as_list: bool | None) -> Action:
        """Send an action; its `future` is done when Asterisk has replied."""
        action = Action(fields, as_list=as_list)
        self.protocol.send(action, as_list=as_list)
        return action

    def drop(self, action: Action) -> None:
        """Remove an action whose reply is no longer awaited; panoramisk never removes it."""
        if self.protocol is not None:
            self.protocol.responses.pop(action.id, None)


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
                lambda: _Protocol(pbx.name, wanted, on_event), pbx.host, pbx.port, ssl=trusted
            )
    except ssl.SSLError as error:
        raise AmiCertificateRejected(refusal(pbx, error)) from error
    opened: asyncio.Future[Any] = loop.create_future()
    opened.set_result(made)
    connection.connection_made(opened)
    return connection


class _Protocol(AMIProtocol):  # type: ignore[misc]
    """Read frames, give replies to panoramisk's actions and wanted events to `on_event`.

    Panoramisk's own reading is not used: repeated headers, a second reply or a list without a
    start raise in it or end another question. Unwanted events are dropped before they are read.
    Frames are read in slices: a list of 2,000 channels must not block the event loop.
    """

    def __init__(
        self, pbx: str, wanted: frozenset[str], on_event: Callable[[Fields], None]
    ) -> None:
        self._extra = {"pbx": pbx}
        self._wanted = frozenset(name.encode() for name in wanted)
        self._on_event = on_event
        self._splitter = Splitter()
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._logged: set[str] = set()
        self.heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        is_reading = bool(self._frames)
        for frame in self._splitter.feed(data):
            if self._is_wanted(frame):
                self._frames.append(frame)
                self._waiting_bytes += len(frame)
        if self._splitter.skipped and self._is_new("too long"):
            logger.error("AMI message too long, skipped; the link stays up", extra=self._extra)
        if self._waiting_bytes > WAITING_MAX_BYTES:
            self._is_paused = True
            self.transport.pause_reading()
        if not is_reading:
            self._read()

    def _read(self) -> None:
        for _ in range(min(SLICE, len(self._frames))):
            frame = self._frames.popleft()
            self._waiting_bytes -= len(frame)
            try:
                self._handle(headers_of(frame))
            except Exception as error:
                if self._is_new(type(error).__name__):
                    logger.exception("AMI message failed; the link stays up", extra=self._extra)
        if self._frames:
            asyncio.get_running_loop().call_soon(self._read)
        elif self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    def _is_new(self, trouble: str) -> bool:
        """True once per connection: a flood of broken messages must not become one of lines."""
        is_new = trouble not in self._logged
        self._logged.add(trouble)
        return is_new

    def _is_wanted(self, frame: bytes) -> bool:
        if not frame.startswith(b"Event: "):
            return True
        name = frame[7 : frame.find(b"\r\n")]
        return name in self._wanted or b"\r\nActionID: " in frame

    def _handle(self, headers: dict[str, str]) -> None:
        action = self.responses.get(headers.get("ActionID"))
        if action is not None and _is_reply(headers, is_first=not action.responses):
            if action.add_message(Message(headers)):
                del self.responses[headers["ActionID"]]
        elif headers.get("Event", "").encode() in self._wanted:
            self._on_event(headers)


def _is_reply(headers: Mapping[str, str], *, is_first: bool) -> bool:
    """True if these headers are the next message of a reply: the Response, then events of a list.

    A UserEvent never is: any AMI user can send one with our ActionID.
    """
    if "Event" not in headers:
        return is_first and "Response" in headers
    return not is_first and headers["Event"] not in ("UserEvent", "OriginateResponse")


def plain(message: Message) -> dict[str, str]:
    """Return the headers by Asterisk's names."""
    return {name: value for name, value in message.items() if name != "content"}
