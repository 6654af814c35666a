"""What an AMI Originate asks for, read as Asterisk reads it (main/manager.c). Pure."""

import re
from collections.abc import Callable
from typing import Final

from dialer.simulation.pbx.call import OriginateOrder
from dialer.simulation.pbx.wire import AmiRequest

MAX_CHANNEL_ID: Final = 149
"""AST_MAX_PUBLIC_UNIQUEID (include/asterisk/channel.h)."""
DEFAULT_TIMEOUT_MS: Final = 30_000
_CALLER_ID = re.compile(r'\s*"?([^"<]*?)"?\s*<([^>]*)>\s*')


def complaint_about(request: AmiRequest) -> str:
    """What Asterisk finds wrong with the action before it tries; empty where nothing is."""
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


def order_from(request: AmiRequest, tell: Callable[[bool], None]) -> OriginateOrder:
    """Read what a sound Originate asks for; `tell` is for one without Async."""
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
        tell=None if is_async else tell,
    )


def _caller(caller_id: str) -> tuple[str, str]:
    found = _CALLER_ID.fullmatch(caller_id)
    if found:
        return found.group(1), found.group(2)
    text = caller_id.strip().strip('"')
    is_number = bool(text) and not text.lstrip("+").strip("0123456789*#")
    return ("", text) if is_number else (text, "")
