"""Originate requests and responses, parsed and checked as in Asterisk (main/manager.c). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dialer.simulation.pbx import events
from dialer.simulation.pbx.wire import AmiRequest

MAX_CHANNEL_ID: Final = 149
"""AST_MAX_PUBLIC_UNIQUEID (include/asterisk/channel.h)."""
DEFAULT_TIMEOUT_MS: Final = 30_000
_CALLER_ID = re.compile(r'\s*"?([^"<]*?)"?\s*<([^>]*)>\s*')


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateOrder:
    """A parsed Originate. `respond` is set without Async: it replaces OriginateResponse."""

    action_id: str = ""
    dial_string: str
    context: str = ""
    exten: str = ""
    priority: int = 1
    timeout_s: float = 30.0
    caller_number: str = ""
    caller_name: str = ""
    account: str = ""
    channel_id: str = ""
    other_channel_id: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    respond: Callable[[bool], None] | None = None


def error_in(request: AmiRequest) -> str:
    """Return Asterisk's error message for an invalid action; empty if it is valid."""
    if len(request.get("channelid")) > MAX_CHANNEL_ID:
        return f"Uniqueid length exceeds maximum of {MAX_CHANNEL_ID}\n"
    if not request.get("channel"):
        return "Channel not specified"
    if request.get("priority") and not request.get("priority").isdigit():
        return "Invalid priority"
    if request.get("timeout") and not request.get("timeout").isdigit():
        return "Invalid timeout"
    if "/" not in request.get("channel"):
        return "Invalid channel"
    has_place = all(request.get(name) for name in ("exten", "context", "priority"))
    if not request.get("application") and not has_place:
        return "Originate with 'Exten' requires 'Context' and 'Priority'"
    return ""


def order_from(request: AmiRequest, respond: Callable[[bool], None]) -> OriginateOrder:
    """Parse a valid Originate; `respond` is used only without Async."""
    is_async = request.get("async").lower() in ("true", "yes", "y", "t", "1", "on")
    caller_name, caller_number = _caller(request.get("callerid"))
    return OriginateOrder(
        action_id=request.get("actionid"),
        dial_string=request.get("channel"),
        context=request.get("context"),
        exten=request.get("exten"),
        priority=int(request.get("priority") or 1),
        timeout_s=int(request.get("timeout") or DEFAULT_TIMEOUT_MS) / 1000,
        caller_number=caller_number,
        caller_name=caller_name,
        account=request.get("account"),
        channel_id=request.get("channelid"),
        other_channel_id=request.get("otherchannelid"),
        variables=request.variables,
        respond=None if is_async else respond,
    )


def originate_response_to(
    order: OriginateOrder, *, reason: int, channel: events.ChannelSnapshot | None
) -> events.Event:
    """Return the OriginateResponse event: a success if there is a channel."""
    return events.originate_response(
        events.OriginateResult(
            action_id=order.action_id,
            is_success=channel is not None,
            channel=channel.name if channel else order.dial_string,
            context=order.context,
            exten=order.exten,
            reason=reason,
            uniqueid=channel.uniqueid if channel else order.channel_id,
            caller_number=order.caller_number,
            caller_name=order.caller_name,
        )
    )


def _caller(caller_id: str) -> tuple[str, str]:
    found = _CALLER_ID.fullmatch(caller_id)
    if found:
        return found.group(1), found.group(2)
    text = caller_id.strip().strip('"')
    is_number = bool(text) and not text.lstrip("+").strip("0123456789*#")
    return ("", text) if is_number else (text, "")
