"""Breaks the frames that an Asterisk sends to its worker. Pure: bytes in, bytes out.

What carries the truth about calls always arrives, whole and in its order: replies, lists, and the
events in `TRUTH`. Those events may come twice. All other events are doubled, truncated, garbled or
come late, and hostile frames that no Asterisk would send come between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from workers.ami.events import WANTED_EVENTS

END = b"\r\n\r\n"

#: Events that tell what becomes of a call; never changed, never late, never lost.
TRUTH = WANTED_EVENTS | {
    *("Newchannel", "Newstate", "Dial", "DialBegin", "DialState", "DialEnd", "OriginateResponse"),
    *("Hangup", "UserEvent", "QueueCallerJoin", "QueueCallerLeave", "QueueCallerAbandon"),
    *("AgentCalled", "AgentConnect", "AgentComplete", "FullyBooted", "Shutdown", "Reload"),
    *("Newexten", "VarSet", "LocalBridge", "BridgeEnter", "BridgeLeave", "Rename"),
}

#: Share of the events about calls that come twice, and of frames before which a hostile one comes.
DOUBLED = 0.1
HOSTILE = 0.25

#: A late frame comes after at most so many others.
LATE_AT_MOST = 20

_HUGE = b"Event: Wallboard\r\nText: " + b"x" * 2**20

#: Frames that no sane Asterisk sends. None is about a call of ours, so none may change one.
HOSTILE_FRAMES = (
    b"Event: UserEvent\r\nUserEvent: Wallboard\r\nActionID: a\r\nActionID: b",
    b"Event: UserEvent\r\nUserEvent: DialerAmd\r\nUniqueid: 1.1\r\nUniqueid: 2.2\r\nStatus: %FF%00",
    b"Event: UserEvent\r\nUserEvent: DialerAgent\r\nAgent: %\r\nWait: 1e400\r\nUniqueid: 1.1",
    b"Event: UserEvent",
    b"Event: Hangup",
    b"Event: Hangup\r\nUniqueid: 1.1\r\nUniqueid: 2.2\r\nCause: 16\r\nCause: none",
    b"Event: Hangup\r\nUniqueid: 1.1\r\nCause: 99999999999999999999",
    b"Event: Newstate\r\nChannelState: 6",
    b"Event: Newstate\r\nUniqueid:\r\nChannelState: six",
    b"Event: Newchannel\r\nUniqueid: 1.1\r\nChannel: \x00\x00\x00",
    b"Event: DialEnd\r\nDestUniqueid:\r\nDialStatus: ANSWER\r\nDialStatus: BUSY",
    b"Event: OriginateResponse\r\nResponse: Failure\r\nReason: 99999999999\r\nActionID: nobody",
    b"Event: OriginateResponse\r\nResponse: Success\r\nResponse: Failure",
    b"Event: AgentConnect\r\nUniqueid: 1.1\r\nMemberName: Jo\xe9\xc3\r\nHoldTime: -1",
    b"Event: \r\nUniqueid: 1.1",
    b"Event:NoBlank\r\nUniqueid:1.1",
    b"event: hangup\r\nuniqueid: 1.1",
    b"Response: Success\r\nActionID: nobody-asked\r\nMessage: Originate successfully queued",
    b"Response: Error\r\nMessage: Missing action in request",
    b"Response: Success\r\nActionID: a\r\nActionID: b\r\nEventList: start",
    b"Response: Goodbye? no\r\nActionID:",
    b"no colon at all\r\nand none here",
    b"\x00",
    b"\xff\xfe\xfd: \xc3\r\n\xf0\x9f: \x98",
    b": : :\r\n:\r\n::",
    b"Event: FromTheFuture\r\n" + b"\r\n".join(b"H%d: %d" % (n, n) for n in range(2000)),
)


@dataclass(slots=True)
class Breaker:
    """Breaks the frames of all connections of one PBX while `is_on`."""

    rng: random.Random
    is_on: bool = False
    broken: int = 0

    def connection(self) -> Stream:
        """The frames of a new connection."""
        return Stream(self)


@dataclass(slots=True)
class Stream:
    """The bytes of one connection; call it with each part that has come."""

    breaker: Breaker
    _rest: bytes = b""
    _has_banner: bool = False
    _late: list[tuple[int, bytes]] = field(default_factory=list)

    def __call__(self, data: bytes) -> bytes:
        self._rest += data
        out = b""
        if not self._has_banner:
            banner, line_end, rest = self._rest.partition(b"\r\n")
            if not line_end:
                return b""
            self._has_banner, self._rest, out = True, rest, banner + line_end
        *frames, self._rest = self._rest.split(END)
        return out + b"".join(frame + END for came in frames for frame in self._passed_on(came))

    def _passed_on(self, frame: bytes) -> Iterator[bytes]:
        rng = self.breaker.rng
        if self.breaker.is_on and rng.random() < HOSTILE:
            self.breaker.broken += 1
            yield _HUGE if rng.random() < 0.02 else rng.choice(HOSTILE_FRAMES)
        if not self.breaker.is_on:
            yield frame
        elif is_foreign(frame):
            self.breaker.broken += 1
            yield from self._broken(frame)
        else:
            yield frame
            if frame.startswith(b"Event: ") and _name(frame) in TRUTH and rng.random() < DOUBLED:
                yield frame
        yield from self._due()

    def _broken(self, frame: bytes) -> Iterator[bytes]:
        rng = self.breaker.rng
        match rng.choice(("doubled", "truncated", "garbled", "late")):
            case "doubled":
                yield frame
                yield frame
            case "truncated":
                yield harmless(frame[: rng.randrange(len(frame))])
            case "garbled":
                yield harmless(_garbled(frame, rng))
            case _:
                self._late.append((rng.randint(1, LATE_AT_MOST), frame))

    def _due(self) -> Iterator[bytes]:
        counted = [(left - 1, frame) for left, frame in self._late]
        self._late = [(left, frame) for left, frame in counted if left > 0 and self.breaker.is_on]
        yield from (frame for left, frame in counted if left <= 0 or not self.breaker.is_on)


def is_foreign(frame: bytes) -> bool:
    """True if this is an event of which no call, no question and no list depends."""
    return frame.startswith(b"Event: ") and _name(frame) not in TRUTH and b"ActionID:" not in frame


def harmless(frame: bytes) -> bytes:
    """The broken frame, or nothing if it ends a frame early or speaks of a call by accident."""
    speaks = frame.startswith(b"Event: ") and _name(frame) in TRUTH
    return b"" if speaks or END in frame + END[:2] or frame.startswith(b"\n") else frame


def _name(frame: bytes) -> str:
    return frame[7:].partition(b"\r\n")[0].decode("latin-1").strip()


def _garbled(frame: bytes, rng: random.Random) -> bytes:
    wrong = bytearray(frame)
    for _ in range(rng.randint(1, 1 + len(wrong) // 4)):
        wrong[rng.randrange(len(wrong))] = rng.randrange(256)
    return bytes(wrong)
