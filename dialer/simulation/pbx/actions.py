"""AMI actions of the simulated Asterisk and their responses, worded as in Asterisk.

Owns the table of actions with the privilege that each needs. Knows sessions only through the
protocol `Session`; calls are in `calls`. Source of the wording: main/manager.c, main/db.c.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dialer.simulation.pbx import events
from dialer.simulation.pbx.calls import AstDb, CallFloor, SimulatedCall
from dialer.simulation.pbx.dialplan import exists
from dialer.simulation.pbx.filters import EventFilter, FilterRefused, parse_filter
from dialer.simulation.pbx.originate import error_in, order_from
from dialer.simulation.pbx.outcomes import VERSIONS, Ending
from dialer.simulation.pbx.wire import (
    AmiRequest,
    ack,
    error,
    list_end,
    list_item,
    list_start,
    response,
)


class Session(Protocol):
    """The part of an AMI session that actions use."""

    is_authenticated: bool
    mask: int
    write_permissions: int
    filters: list[EventFilter]

    def send(self, text: str) -> None:
        """Queue text for the client."""

    def close_gently(self) -> None:
        """Close after everything queued was written."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """The parts of one simulated PBX that actions work on."""

    name: str
    username: str
    secret: str
    floor: CallFloor
    astdb: AstDb
    started_at: float
    read_permissions: int
    write_permissions: int
    eventfilters: list[EventFilter] = field(default_factory=list)

    @property
    def uptime_s(self) -> int:
        """Whole seconds since Asterisk's start."""
        return max(0, int(time.time() - self.started_at))


Handler = Callable[[Exchange, Session, AmiRequest], str]


def answer(exchange: Exchange, session: Session, request: AmiRequest) -> None:
    """Execute one action and queue its response."""
    if request.has_long_line:
        session.send(error(request, "Failed to parse message: line too long"))
        return
    name = request.action
    if not name:
        session.send(error(request, "Missing action in request"))
        return
    if not session.is_authenticated and name not in ("login", "logoff", "challenge"):
        session.send(error(request, "Permission denied"))
        return
    privilege, handler = _BY_NAME.get(name, (0, _unknown))
    if privilege and not privilege & session.write_permissions:
        session.send(error(request, "Permission denied"))
        return
    session.send(handler(exchange, session, request))


def _unknown(_exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    return error(
        request,
        f"Invalid/unknown command: {request.get('action')}. "
        "Use Action: ListCommands to show available commands.",
    )


def _login(exchange: Exchange, session: Session, request: AmiRequest) -> str:
    is_known = request.get("username") == exchange.username
    if not (is_known and request.get("secret") == exchange.secret):
        session.close_gently()
        return error(request, "Authentication failed")
    session.is_authenticated = True
    session.write_permissions = exchange.write_permissions
    session.filters += exchange.eventfilters
    mask = events.event_mask(request.get("events"))
    session.mask = (events.EVERYTHING if mask is None else mask) & exchange.read_permissions
    booted = ""
    if session.mask & events.SYSTEM:
        booted = events.fully_booted(uptime_s=exchange.uptime_s).text
    return ack(request, "Authentication accepted") + booted


def _logoff(_exchange: Exchange, session: Session, request: AmiRequest) -> str:
    session.close_gently()
    return response(request, "Goodbye", "Message: Thanks for all the fish.\r\n")


def _ping(exchange: Exchange, session: Session, request: AmiRequest) -> str:
    pong = f"Ping: Pong\r\nTimestamp: {time.time():.6f}\r\n"
    exchange.floor.reply(session.send, response(request, "Success", pong))
    return ""


def _events(exchange: Exchange, session: Session, request: AmiRequest) -> str:
    mask = events.event_mask(request.get("eventmask"))
    if mask is None:
        return error(request, "Invalid event mask")
    session.mask = mask & exchange.read_permissions
    return response(request, "Success", f"Events: {'On' if mask else 'Off'}\r\n")


def _filter(_exchange: Exchange, session: Session, request: AmiRequest) -> str:
    if request.get("operation").lower() != "add":
        return error(request, "Unknown operation")
    try:
        session.filters.append(parse_filter(request.get("filter"), request.get("matchcriteria")))
    except FilterRefused as refused:
        return error(request, str(refused))
    return ack(request, "Success")


def _originate(exchange: Exchange, session: Session, request: AmiRequest) -> str:
    floor = exchange.floor
    problem = error_in(request)
    if problem:
        return error(request, problem)
    floor.originates += 1

    def respond(is_success: bool) -> None:
        if is_success:
            session.send(ack(request, "Originate successfully queued"))
        else:
            session.send(error(request, "Originate failed"))

    order = order_from(request, respond)
    ending = floor.ending_of(order)
    if ending is Ending.UNANSWERED_ACTION:
        return ""
    if ending is Ending.REFUSED:
        return error(request, "Extension does not exist.")
    if order.respond is None:
        floor.reply(session.send, ack(request, "Originate successfully queued"))
    floor.start_call(order)
    return ""


def _core_show_channels(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    live = exchange.floor.live.values()
    now = time.time()
    items = [_channel_item(call, leg, now) for call in live for leg in call.legs.channels]
    return (
        list_start(request, "Channels will follow")
        + "".join(list_item(request, "CoreShowChannel", lines) for lines in items)
        + list_end(request, "CoreShowChannelsComplete", len(items))
    )


def _channel_item(call: SimulatedCall, leg: events.ChannelSnapshot, now: float) -> str:
    seconds = int(now - call.created_at)
    is_up = leg.state == events.UP
    return (
        f"{leg.lines()}"
        f"Application: {'Wait' if is_up else 'AppDial2'}\r\n"
        f"ApplicationData: {'30' if is_up else '(Outgoing Line)'}\r\n"
        f"Duration: {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}\r\n"
        "BridgeId: \r\n"
    )


def _core_status(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    start = time.localtime(exchange.started_at)
    date, clock = time.strftime("%Y-%m-%d", start), time.strftime("%H:%M:%S", start)
    processed = ""
    if VERSIONS[exchange.floor.habits.version].has_processed_calls:
        processed = f"CoreProcessedCalls: {exchange.floor.answered}\r\n"
    return response(
        request,
        "Success",
        f"CoreStartupDate: {date}\r\nCoreStartupTime: {clock}\r\n"
        f"CoreReloadDate: {date}\r\nCoreReloadTime: {clock}\r\n"
        f"CoreCurrentCalls: {exchange.floor.in_dialplan}\r\n{processed}",
    )


def _core_settings(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    facts = VERSIONS[exchange.floor.habits.version]
    return response(
        request,
        "Success",
        f"AMIversion: {facts.banner.partition('/')[2]}\r\n"
        f"AsteriskVersion: {facts.release}\r\n"
        f"SystemName: \r\nCoreMaxCalls: {exchange.floor.habits.maxcalls}\r\n"
        "CoreMaxLoadAvg: 0.000000\r\n"
        "CoreRunUser: \r\nCoreRunGroup: \r\nCoreMaxFilehandles: 20000\r\n"
        "CoreRealTimeEnabled: No\r\nCoreCDRenabled: No\r\nCoreHTTPenabled: No\r\n"
        f"{facts.more_settings}",
    )


def _db_key(request: AmiRequest) -> tuple[str, str] | str:
    if not request.get("family"):
        return error(request, "No family specified.")
    if not request.get("key"):
        return error(request, "No key specified.")
    return request.get("family"), request.get("key")


def _db_get(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    key = _db_key(request)
    if isinstance(key, str):
        return key
    value = exchange.astdb.get(key)
    if value is None:
        return error(request, "Database entry not found")
    action_id = request.get("actionid")
    last = f"ActionID: {action_id}\r\n" if action_id else ""
    return (
        list_start(request, "Result will follow")
        + f"Event: DBGetResponse\r\nFamily: {key[0]}\r\nKey: {key[1]}\r\nVal: {value}\r\n"
        + f"{last}\r\n"
        + list_end(request, "DBGetComplete", 1)
    )


def _db_put(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    key = _db_key(request)
    if isinstance(key, str):
        return key
    exchange.astdb[key] = request.get("val")
    return ack(request, "Updated database successfully")


def _db_del(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    key = _db_key(request)
    if isinstance(key, str):
        return key
    if exchange.astdb.pop(key, None) is None:
        return error(request, "Database entry not found")
    return ack(request, "Key deleted successfully")


def _getvar(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    channel, name = request.get("channel"), request.get("variable")
    if not name:
        return error(request, "No variable specified")
    call = exchange.floor.find(channel) if channel else None
    if channel and call is None:
        return error(request, "No such channel")
    is_included = exchange.floor.habits.is_dialplan_included
    value = exists(name, is_included=is_included)
    if value is None:
        value = call.variables.get(name, "") if call else ""
    return response(request, "Success", f"Variable: {name}\r\nValue: {value}\r\n")


def _queue_status(_exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    """List the members of a queue: as many as QUEUE_MEMBER counts, and always free."""
    queue = request.get("queue")
    members = int(exists(f"QUEUE_MEMBER({queue},free)", is_included=True) or 0)
    items = [
        f"Queue: {queue}\r\nName: Operator {n}\r\nLocation: Local/{n}@operators\r\n"
        f"StateInterface: Local/{n}@operators\r\nMembership: static\r\nPenalty: 0\r\n"
        "CallsTaken: 0\r\nLastCall: 0\r\nLastPause: 0\r\nLoginTime: 0\r\nInCall: 0\r\n"
        "Status: 1\r\nPaused: 0\r\nPausedReason: \r\nWrapuptime: 0\r\n"
        for n in range(1, members + 1)
    ]
    return (
        list_start(request, "Queue status will follow")
        + "".join(list_item(request, "QueueMember", lines) for lines in items)
        + list_end(request, "QueueStatusComplete", len(items))
    )


def _setvar(exchange: Exchange, _session: Session, request: AmiRequest) -> str:
    channel, name = request.get("channel"), request.get("variable")
    if not name:
        return error(request, "No variable specified")
    call = exchange.floor.find(channel) if channel else None
    if channel and call is None:
        return error(request, "No such channel")
    if call is not None:
        exchange.floor.set_variable(call, name, request.get("value"))
    return ack(request, "Variable Set")


def _hangup(exchange: Exchange, session: Session, request: AmiRequest) -> str:
    if not request.get("channel"):
        return error(request, "No channel specified")
    call = exchange.floor.find(request.get("channel"))
    if call is None:
        return error(request, "No such channel")
    cause = request.get("cause")
    session.send(ack(request, "Channel Hungup"))
    exchange.floor.hang_up(call, cause=int(cause) if cause.isdigit() else 0)
    return ""


def _list_commands(_exchange: Exchange, session: Session, request: AmiRequest) -> str:
    """List the permitted actions; Asterisk adds a description before the privileges."""
    allowed = {
        name: [word for word, bit in events.CLASSES.items() if bit & privilege == bit]
        for name, (privilege, _) in _ACTIONS.items()
        if not privilege or privilege & session.write_permissions
    }
    lines = (f"{name}:  (Priv: {','.join([*words, 'all'])})\r\n" for name, words in allowed.items())
    return response(request, "Success", "".join(lines))


_REPORTING = events.SYSTEM | events.REPORTING
_ACTIONS: Final[dict[str, tuple[int, Handler]]] = {
    "Login": (0, _login),
    "Logoff": (0, _logoff),
    "Ping": (0, _ping),
    "Events": (0, _events),
    "ListCommands": (0, _list_commands),
    "Filter": (events.SYSTEM, _filter),
    "Originate": (events.ORIGINATE, _originate),
    "Hangup": (events.SYSTEM | events.CALL, _hangup),
    "Getvar": (events.CALL | events.REPORTING, _getvar),
    "Setvar": (events.CALL, _setvar),
    "QueueStatus": (0, _queue_status),
    "CoreShowChannels": (_REPORTING, _core_show_channels),
    "CoreStatus": (_REPORTING, _core_status),
    "CoreSettings": (_REPORTING, _core_settings),
    "DBGet": (_REPORTING, _db_get),
    "DBPut": (events.SYSTEM, _db_put),
    "DBDel": (events.SYSTEM, _db_del),
}
_BY_NAME: Final = {name.lower(): action for name, action in _ACTIONS.items()}
