"""One simulated call: what its Originate asked for, its channels, and where it stands."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dialer.simulation.pbx import events, script
from dialer.simulation.pbx.outcomes import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginateOrder:
    """What an Originate asks for. `tell` is called instead of an event when not async."""

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
    tell: Callable[[bool], None] | None = None


class SimulatedCall:
    """One call and where it stands."""

    __slots__ = (
        "answered_at",
        "created_at",
        "is_dialing",
        "legs",
        "order",
        "outcome",
        "timer",
        "variables",
    )

    def __init__(self, order: OriginateOrder, outcome: Outcome, legs: script.Legs) -> None:
        self.order = order
        self.outcome = outcome
        self.legs = legs
        self.variables = dict(order.variables)
        self.created_at = time.time()
        self.answered_at: float | None = None
        self.is_dialing = True
        self.timer: asyncio.TimerHandle | None = None

    @property
    def uniqueid(self) -> str:
        """The Uniqueid that the dialer knows the call by."""
        return self.legs.one.uniqueid

    def goes_to(self, context: str, exten: str, priority: int) -> None:
        """Move the dialer's channel to another step of the dialplan."""
        one = replace(self.legs.one, context=context, exten=exten, priority=priority)
        self.legs = replace(self.legs, one=one)


def verdict(
    order: OriginateOrder, *, reason: int, channel: events.ChannelSnapshot | None
) -> events.Event:
    """Asterisk's last word on the Originate: a success where there is a channel."""
    return events.originate_response(
        events.OriginateVerdict(
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
