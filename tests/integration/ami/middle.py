"""A man in the middle on AMI: passes on what the worker says, rewrites what Asterisk says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.integration.forwarder import Forwarder

END: Final = b"\r\n\r\n"

#: Takes one frame of Asterisk without its end; returns the frames that the worker gets for it.
Rewrite = Callable[[bytes], list[bytes]]


@dataclass(slots=True)
class Middle(Forwarder):
    """Forwards AMI; `rewrite` decides what the worker gets."""

    rewrite: Rewrite

    async def _down(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        rest = b""
        while data := await source.read(65_536):
            *frames, rest = (rest + data).split(END)
            for frame in frames:
                sink.write(b"".join(one + END for one in self.rewrite(frame)))
        sink.close()


def event_of(frame: bytes) -> str:
    """Return the name of an event, empty for another frame."""
    found = re.match(rb"(?:.*\r\n)?Event: ([^\r\n]+)", frame)
    return found[1].decode() if found else ""


def dropping(*events: str) -> Rewrite:
    """Drop these events."""
    return lambda frame: [] if event_of(frame) in events else [frame]


@dataclass(slots=True)
class Forwarding:
    """As if the carrier forwarded each call: its channel ends, all goes on under another Uniqueid.

    Only OriginateResponse keeps the Uniqueid. `cause` is that of the channel's Hangup.
    """

    cause: int = 127
    moved: dict[bytes, bytes] = field(default_factory=dict)

    def __call__(self, frame: bytes) -> list[bytes]:
        event = event_of(frame)
        found = re.search(rb"\r\n(?:Dest)?Uniqueid: ([^\r\n]+)", frame)
        if event == "OriginateResponse" or not event or found is None:
            return [frame]
        uniqueid = found[1]
        if uniqueid in self.moved:
            return [frame.replace(uniqueid, self.moved[uniqueid])]
        if event != "Newchannel":
            return [frame]
        self.moved[uniqueid] = b"1764000000.%d" % len(self.moved)
        hangup = frame.replace(b"Event: Newchannel", b"Event: Hangup")
        hangup += b"\r\nCause: %d\r\nCause-txt: x" % self.cause
        return [frame, hangup, frame.replace(uniqueid, self.moved[uniqueid])]
