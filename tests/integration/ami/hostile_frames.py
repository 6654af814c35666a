"""Hostile and broken AMI frames, by a seed: what a fault, a dialplan or an AMI user may send.

No frame says what only Asterisk can say of a call that is up: a genuine Hangup with its Uniqueid
ends it, rightly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

Make = Callable[[random.Random, str], bytes]

NAMES: Final = (
    "Newchannel", "Newstate", "DialEnd", "OriginateResponse", "Hangup", "UserEvent", "AgentConnect",
    "QueueCallerJoin", "QueueCallerLeave", "FullyBooted", "CoreShowChannel", "DBGetResponse",
    "CoreShowChannelsComplete", "Shutdown", "Reload", "NoSuchEvent", "",
)  # fmt: skip
HEADERS: Final = (
    "ActionID", "Uniqueid", "DestUniqueid", "Cause", "Cause-txt", "Channel", "ChannelState",
    "Response", "Message", "Event", "EventList", "ListItems", "Reason", "DialStatus", "Status",
    "UserEvent", "Agent", "HoldTime", "CommandID", "SubEvent", "Privilege", "content", "id", "\0",
)  # fmt: skip
VALUES: Final = (
    b"", b" ", b"0", b"-1", b"16", b"1e400", b"9" * 5_000, b"\0\0", b"caf\xe9", b"\xf0\x9f\x98",
    b"\xff\xfe", b"Success", b"Error", b"start", b"Complete", b"%ff%00", b": : :", b"\n", b"\r",
)  # fmt: skip


def _value(rng: random.Random, uniqueid: str) -> bytes:
    others = (b"1700000000.1", b"asr-tim." + b"a" * 20, uniqueid.encode() + b"x")
    return rng.choice((*VALUES, *others))


def _any(rng: random.Random, uniqueid: str) -> bytes:
    first = rng.choice(("Event: " + rng.choice(NAMES), "Response: Success", "Response: Error"))
    lines = [first.encode()]
    for _ in range(rng.randrange(12)):
        name = rng.choice(HEADERS).encode()
        lines += [name + rng.choice((b": ", b":", b"")) + _value(rng, uniqueid)] * rng.choice(
            (1, 1, 2, 50)
        )
    return b"\r\n".join(lines)


def _two_action_ids(rng: random.Random, uniqueid: str) -> bytes:
    """Case 22 of the field, as Asterisk 16 and 22 pass it on."""
    return (
        b"Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: DialerAmd\r\nActionID: a1\r\n"
        b"ActionID: a2\r\nEvent: Hangup\r\nCause: 16\r\nUniqueid: " + uniqueid.encode()
    )


def _spoof(rng: random.Random, uniqueid: str) -> bytes:
    """A UserEvent with the ids of a call that is up, as another AMI user can send it."""
    name = rng.choice(("DialerAmd", "DialerAgent", "Hangup", "OriginateResponse"))
    return (
        f"Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: {name}\r\nEvent: Hangup\r\n"
        f"Uniqueid: {uniqueid}\r\nActionID: {uniqueid}#1\r\nResponse: Failure\r\nReason: 0\r\n"
        "Cause: 17\r\nStatus: MACHINE\r\nAgent: nobody\r\nWait: 1"
    ).encode()


def _reply_to_nothing(rng: random.Random, uniqueid: str) -> bytes:
    action = rng.choice((f"{uniqueid}#1", "action/none/1/1", "", "x" * 999))
    return f"Response: {rng.choice(('Success', 'Error'))}\r\nActionID: {action}".encode()


def _list_end_without_start(rng: random.Random, uniqueid: str) -> bytes:
    return (
        f"Event: CoreShowChannelsComplete\r\nActionID: {uniqueid}#1\r\n"
        f"EventList: Complete\r\nListItems: {rng.choice((0, 7, 'x'))}"
    ).encode()


def _long_line(rng: random.Random, uniqueid: str) -> bytes:
    return b"Event: Hangup\r\nUniqueid: " + b"u" * rng.choice((1025, 70_000, 1 << 20))


def _noise(rng: random.Random, uniqueid: str) -> bytes:
    return rng.randbytes(rng.randrange(300))


def _empty(rng: random.Random, uniqueid: str) -> bytes:
    return b"\r\n" * rng.randrange(4)


KINDS: Final[Sequence[Make]] = (
    _any, _any, _any, _two_action_ids, _spoof, _reply_to_nothing, _list_end_without_start,
    _noise, _empty,
)  # fmt: skip


def hostile_frames(seed: int, count: int, uniqueids: Callable[[], Sequence[str]]) -> list[bytes]:
    """Return frames with their ends; `uniqueids` are those of the calls that are up."""
    rng = random.Random(seed)
    up = uniqueids() or ["asr-tim.none"]
    frames = [rng.choice(KINDS)(rng, rng.choice(up)) for _ in range(count)]
    for at in range(0, count, 100):  # a long one is 1 MiB
        frames[at] = _long_line(rng, "")
    return [frame + b"\r\n\r\n" for frame in frames]
