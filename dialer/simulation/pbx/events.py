"""Format of Asterisk's events: names, classes, headers and their order.

Pure. Headers and order follow the captures in `tests/captures`; a unit test compares both.
Does not know when an event is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from dialer.simulation.pbx.outcomes import CAUSE_TEXT

SYSTEM: Final = 1 << 0
CALL: Final = 1 << 1
COMMAND: Final = 1 << 4
USER: Final = 1 << 6
REPORTING: Final = 1 << 9
DIALPLAN: Final = 1 << 11
ORIGINATE: Final = 1 << 12
EVERYTHING: Final = (1 << 32) - 1

CLASSES: Final = MappingProxyType(
    {
        "system": SYSTEM,
        "call": CALL,
        "log": 1 << 2,
        "verbose": 1 << 3,
        "command": COMMAND,
        "agent": 1 << 5,
        "user": USER,
        "config": 1 << 7,
        "dtmf": 1 << 8,
        "reporting": REPORTING,
        "cdr": 1 << 10,
        "dialplan": DIALPLAN,
        "originate": ORIGINATE,
        "agi": 1 << 13,
        "cc": 1 << 14,
        "aoc": 1 << 15,
        "test": 1 << 16,
        "security": 1 << 17,
        "message": 1 << 30,
        "all": EVERYTHING,
        "on": EVERYTHING,
    }
)
"""Asterisk's event classes (include/asterisk/manager.h)."""

_PRIVILEGE: Final = {
    SYSTEM: "system,all",
    CALL: "call,all",
    USER: "user,all",
    DIALPLAN: "dialplan,all",
}
_STATE_TEXT: Final = {0: "Down", 4: "Ring", 5: "Ringing", 6: "Up", 7: "Busy"}
DOWN: Final = 0
RING: Final = 4
RINGING: Final = 5
UP: Final = 6
BUSY: Final = 7


@dataclass(frozen=True, slots=True)
class Event:
    """One formatted event: name and class for filters, and the complete text."""

    name: str
    category: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSnapshot:
    """The channel's headers in every channel event."""

    name: str
    state: int
    caller_number: str
    caller_name: str
    connected_number: str
    connected_name: str
    account: str
    context: str
    exten: str
    priority: int
    uniqueid: str
    linkedid: str

    def lines(self, prefix: str = "") -> str:
        """Return the header lines in Asterisk's order."""
        p = prefix
        return (
            f"{p}Channel: {self.name}\r\n"
            f"{p}ChannelState: {self.state}\r\n"
            f"{p}ChannelStateDesc: {_STATE_TEXT[self.state]}\r\n"
            f"{p}CallerIDNum: {self.caller_number or '<unknown>'}\r\n"
            f"{p}CallerIDName: {self.caller_name or '<unknown>'}\r\n"
            f"{p}ConnectedLineNum: {self.connected_number or '<unknown>'}\r\n"
            f"{p}ConnectedLineName: {self.connected_name or '<unknown>'}\r\n"
            f"{p}Language: en\r\n"
            f"{p}AccountCode: {self.account}\r\n"
            f"{p}Context: {self.context}\r\n"
            f"{p}Exten: {self.exten}\r\n"
            f"{p}Priority: {self.priority}\r\n"
            f"{p}Uniqueid: {self.uniqueid}\r\n"
            f"{p}Linkedid: {self.linkedid}\r\n"
        )


def event_mask(words: str) -> int | None:
    """Parse an event mask (`on`, `off`, `system,call`, a number); None if it is invalid.

    An empty mask means all events, as in Asterisk.
    """
    text = words.strip().lower()
    if text in ("", "-1", "true", "yes", "y", "t", "1"):
        return EVERYTHING
    if text in ("off", "false", "no", "n", "f", "0", "none"):
        return 0
    if text.isdigit():
        return int(text)
    mask = 0
    for word in text.split(","):
        mask |= CLASSES.get(word.strip(), 0)
    return mask or None


def _event(name: str, category: int, lines: str) -> Event:
    return Event(
        name,
        category,
        f"Event: {name}\r\nPrivilege: {_PRIVILEGE[category]}\r\n{lines}\r\n",
    )


def fully_booted(*, uptime_s: int) -> Event:
    """Return FullyBooted: sent to each session after login."""
    return _event(
        "FullyBooted",
        SYSTEM,
        f"Uptime: {uptime_s}\r\nLastReload: {uptime_s}\r\nStatus: Fully Booted\r\n",
    )


def shutdown(*, is_restart: bool) -> Event:
    """Return Shutdown: sent only when Asterisk stops in order."""
    return _event(
        "Shutdown", SYSTEM, f"Shutdown: Cleanly\r\nRestart: {str(is_restart).capitalize()}\r\n"
    )


def newchannel(channel: ChannelSnapshot) -> Event:
    """Return Newchannel: the channel was created."""
    return _event("Newchannel", CALL, channel.lines())


def newstate(channel: ChannelSnapshot) -> Event:
    """Return Newstate: the channel rings or was answered."""
    return _event("Newstate", CALL, channel.lines())


def dial_begin(channel: ChannelSnapshot, dial_string: str) -> Event:
    """Return DialBegin: the INVITE was sent."""
    return _event("DialBegin", CALL, f"{channel.lines('Dest')}DialString: {dial_string}\r\n")


def dial_end(channel: ChannelSnapshot, dial_status: str) -> Event:
    """Return DialEnd: dialing succeeded or failed."""
    return _event("DialEnd", CALL, f"{channel.lines('Dest')}DialStatus: {dial_status}\r\n")


def dial_state(channel: ChannelSnapshot, dial_status: str) -> Event:
    """Return DialState: the far end rings."""
    return _event("DialState", CALL, f"{channel.lines('Dest')}DialStatus: {dial_status}\r\n")


def new_callerid(channel: ChannelSnapshot) -> Event:
    """Return NewCallerid: the channel's caller ID was set."""
    presentation = "CID-CallingPres: 0 (Presentation Allowed, Not Screened)\r\n"
    return _event("NewCallerid", CALL, f"{channel.lines()}{presentation}")


def new_connected_line(channel: ChannelSnapshot) -> Event:
    """Return NewConnectedLine: the channel's connected line was set."""
    return _event("NewConnectedLine", CALL, channel.lines())


def local_bridge(one: ChannelSnapshot, two: ChannelSnapshot) -> Event:
    """Return LocalBridge: the two halves of a Local channel were connected."""
    return _event(
        "LocalBridge",
        CALL,
        f"{one.lines('LocalOne')}{two.lines('LocalTwo')}"
        f"Context: {one.context}\r\nExten: {one.exten}\r\nLocalOptimization: No\r\n",
    )


def hangup_request(channel: ChannelSnapshot, cause: int | None, tech_cause: int | None) -> Event:
    """Return HangupRequest: the far end hangs up, with or without a cause."""
    line = "" if cause is None else f"Cause: {cause}\r\n"
    return _event("HangupRequest", CALL, f"{channel.lines()}{line}{_tech_cause(tech_cause)}")


def soft_hangup_request(channel: ChannelSnapshot) -> Event:
    """Return SoftHangupRequest: the PBX hangs up, or the dialplan ended."""
    return _event("SoftHangupRequest", CALL, f"{channel.lines()}Cause: 16\r\n")


def hangup(channel: ChannelSnapshot, cause: int, tech_cause: int | None) -> Event:
    """Return Hangup: the channel ended."""
    text = CAUSE_TEXT.get(cause, "Unknown")
    return _event(
        "Hangup",
        CALL,
        f"{channel.lines()}Cause: {cause}\r\nCause-txt: {text}\r\n{_tech_cause(tech_cause)}",
    )


def _tech_cause(tech_cause: int | None) -> str:
    return "" if tech_cause is None else f"TechCause: {tech_cause}\r\n"


def user_event(channel: ChannelSnapshot, name: str, body: dict[str, str]) -> Event:
    """Return UserEvent, as sent by the application UserEvent."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in body.items())
    return _event("UserEvent", USER, f"{channel.lines()}UserEvent: {name}\r\n{lines}")


def var_set(channel: ChannelSnapshot, name: str, value: str) -> Event:
    """Return VarSet: a channel variable changed."""
    return _event("VarSet", DIALPLAN, f"{channel.lines()}Variable: {name}\r\nValue: {value}\r\n")


def newexten(channel: ChannelSnapshot, application: str, data: str) -> Event:
    """Return Newexten: the dialplan executes a step."""
    return _event(
        "Newexten",
        DIALPLAN,
        f"{channel.lines()}Extension: {channel.exten}\r\n"
        f"Application: {application}\r\nAppData: {data}\r\n",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateResult:
    """Content of an OriginateResponse; all except the result is copied from the Originate."""

    action_id: str
    is_success: bool
    channel: str
    context: str
    exten: str
    reason: int
    uniqueid: str
    caller_number: str
    caller_name: str


def originate_response(result: OriginateResult) -> Event:
    """Return OriginateResponse: the result of an asynchronous Originate."""
    r = result
    action_id = f"ActionID: {r.action_id}\r\n" if r.action_id else ""
    return _event(
        "OriginateResponse",
        CALL,
        f"{action_id}"
        f"Response: {'Success' if r.is_success else 'Failure'}\r\n"
        f"Channel: {r.channel}\r\n"
        f"Context: {r.context}\r\n"
        f"Exten: {r.exten}\r\n"
        f"Reason: {r.reason}\r\n"
        f"Uniqueid: {r.uniqueid or '<unknown>'}\r\n"
        f"CallerIDNum: {r.caller_number or '<unknown>'}\r\n"
        f"CallerIDName: {r.caller_name or '<unknown>'}\r\n",
    )
