"""Calls of the simulated PBX, from Originate to Hangup, with their events.

Owns the live channels, their timers (at most one per call, no task) and the counts for tests.
Publishes events; does not know sessions or sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from dialer.simulation.pbx import dialplan, events, script
from dialer.simulation.pbx.originate import OriginateOrder, originate_response_to
from dialer.simulation.pbx.outcomes import (
    VERSIONS,
    Clearing,
    Ending,
    Outcome,
    number_in,
    outcome_for,
    starved,
)
from dialer.simulation.pbx.timing import (
    RINGBACK_AFTER_S,
    STARVED_AFTER_S,
    CallHabits,
    Timing,
    Workload,
)

AstDb = dict[tuple[str, str], str]
"""Family and key -> value."""


class SimulatedCall:
    """One call: its Originate, channels, variables and progress."""

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
        """The Uniqueid of the dialer's channel."""
        return self.legs.one.uniqueid

    def move_to(self, context: str, exten: str, priority: int) -> None:
        """Move the dialer's channel to another step of the dialplan."""
        one = replace(self.legs.one, context=context, exten=exten, priority=priority)
        self.legs = replace(self.legs, one=one)


class CallFloor:
    """All calls of one simulated PBX."""

    def __init__(
        self,
        *,
        habits: CallHabits,
        publish: Callable[[events.Event], None],
        astdb: AstDb,
        seed: int | None,
    ) -> None:
        self.habits = habits
        #: Calls by Uniqueid in lower case: Asterisk compares ids without regard to case.
        self.live: dict[str, SimulatedCall] = {}
        self.rings: Counter[str] = Counter()
        self.originates = 0
        self.refused_duplicates = 0
        self.answered = 0
        self.ended = 0
        self.peak_live = 0
        self.started = 0
        self.starved = 0
        self.workload = Workload()
        self._facts = VERSIONS[habits.version]
        self._publish = publish
        self._astdb = astdb
        self._timing = Timing(habits, seed)
        self._sequence = 0
        #: Originates that wait for their channel, by their number.
        self._late: dict[int, asyncio.TimerHandle] = {}

    @property
    def in_dialplan(self) -> int:
        """How many calls are answered: those that Asterisk counts against `maxcalls`."""
        return sum(call.answered_at is not None for call in self.live.values())

    def find(self, name_or_uniqueid: str) -> SimulatedCall | None:
        """Return the live call with that channel name or Uniqueid, None if there is none."""
        wanted = name_or_uniqueid.lower()
        by_id = self.live.get(wanted)
        if by_id is not None:
            return by_id
        return next((c for c in self.live.values() if c.legs.one.name.lower() == wanted), None)

    def ending_of(self, order: OriginateOrder) -> Ending:
        """Return how this Originate ends; a context of a missing include is refused."""
        if order.context in dialplan.INCLUDED_CONTEXTS and not self.habits.is_dialplan_included:
            return Ending.REFUSED
        return self._outcome_of(order).ending

    def start_call(self, order: OriginateOrder) -> None:
        """Start a call; a ChannelId in use and numbers ending in 86 create no channel.

        Under more load than its capacity the PBX starts it later, and too late after
        `STARVED_AFTER_S`.
        """
        wait_s = self.workload.add(time.monotonic())
        if not wait_s:
            self._start(order, self._outcome_of(order))
            return
        is_starved = wait_s > STARVED_AFTER_S
        self.starved += is_starved
        outcome = starved(self.habits.version) if is_starved else self._outcome_of(order)
        number = self.originates
        later = asyncio.get_running_loop().call_later
        self._late[number] = later(wait_s, self._start_late, number, order, outcome)

    def reply(self, send: Callable[[str], None], text: str) -> None:
        """Send the reply to an action; under too much load it comes later."""
        if wait_s := self.workload.reply_s(time.monotonic()):
            asyncio.get_running_loop().call_later(wait_s, send, text)
        else:
            send(text)

    def _start_late(self, number: int, order: OriginateOrder, outcome: Outcome) -> None:
        del self._late[number]
        self._start(order, outcome)

    def _start(self, order: OriginateOrder, outcome: Outcome) -> None:
        self.started += 1
        if order.channel_id.lower() in self.live:
            self.refused_duplicates += 1
            self._publish_threads((), order, reason=0)
        elif outcome.ending is Ending.NO_CHANNEL:
            self._publish_threads((), order, reason=0)
        elif order.dial_string.endswith(dialplan.NOWHERE_END):
            self._publish_all(script.nowhere(self._legs(order)))
            self._publish_threads((), order, reason=0)
        else:
            self._dial(order, outcome)

    def hang_up(self, call: SimulatedCall, *, cause: int) -> None:
        """Hang up a ringing or answered call from the PBX's side."""
        if call.is_dialing:
            self._refused(call, script.abandoned(call.legs, cause=cause), cause=cause, reason=0)
        else:
            self._pbx_cleared(call, cause=cause or 16)

    def vanish(self) -> None:
        """Drop every call without events, as in a crash of Asterisk."""
        for call in self.live.values():
            if call.timer is not None:
                call.timer.cancel()
        for late in self._late.values():
            late.cancel()
        self._late.clear()
        self.live.clear()
        self._sequence = 0

    def set_variable(self, call: SimulatedCall, name: str, value: str) -> None:
        """Set a channel variable."""
        call.variables[name] = value
        self._publish(events.var_set(call.legs.one, name, value))

    # The life of one call ------------------------------------------------------------

    def _legs(self, order: OriginateOrder) -> script.Legs:
        self._sequence += 1
        return script.legs_for(
            order.dial_string,
            sequence=self._sequence - 1,
            uniqueid=order.channel_id or f"{int(time.time())}.{self._sequence - 1}",
            other_uniqueid=order.other_channel_id,
            account=order.account,
        )

    def _dial(self, order: OriginateOrder, outcome: Outcome) -> None:
        legs = self._legs(order)
        call = SimulatedCall(order, outcome, legs)
        self.live[call.uniqueid.lower()] = call
        self.peak_live = max(self.peak_live, len(self.live))
        self.rings[number_in(order.dial_string)] += 1
        self._step(
            call,
            script.opening(
                legs,
                number=order.caller_number,
                name=order.caller_name,
                variables=order.variables,
                address=order.dial_string.partition("/")[2],
            ),
        )
        self._await_carrier(call)

    def _await_carrier(self, call: SimulatedCall) -> None:
        outcome, timeout_s = call.outcome, call.order.timeout_s
        if outcome.ending is Ending.REJECTED:
            self._after(self._timing.reject_s(), self._rejected, call)
            return
        ring_s = self._timing.ring_s(outcome)
        if outcome.rings or ring_s >= RINGBACK_AFTER_S:
            self._step(call, script.ringing(call.legs))
        if outcome.ending is Ending.RINGS_OUT or ring_s > timeout_s:
            self._after(timeout_s, self._rang_out, call)
        else:
            self._after(ring_s, self._answered, call)

    def _rejected(self, call: SimulatedCall) -> None:
        outcome = call.outcome
        refusal = script.rejection(call.legs, outcome, self._facts)
        self._refused(call, refusal, cause=outcome.cause, reason=outcome.reason)

    def _rang_out(self, call: SimulatedCall) -> None:
        refusal = script.ring_out(call.legs, self._facts)
        self._refused(call, refusal, cause=self._facts.ring_out_cause, reason=3)

    def _refused(
        self, call: SimulatedCall, refusal: script.Refusal, *, cause: int, reason: int
    ) -> None:
        self._end(call, cause=cause)
        self._publish_all(refusal.first)
        self._publish_threads(refusal.threads, call.order, reason=reason)

    def _answered(self, call: SimulatedCall) -> None:
        call.is_dialing = False
        call.answered_at = time.time()
        self.answered += 1
        call.legs, threads = script.answer(call.legs)
        self._publish_threads(threads, call.order, reason=4, channel=call.legs.one)
        if self.habits.maxcalls and self.in_dialplan > self.habits.maxcalls:
            self._cut_off(call)
            return
        self._enter_dialplan(call)
        self._talk(call)

    def _cut_off(self, call: SimulatedCall) -> None:
        """End an answered call that may not enter the dialplan: it leaves no note."""
        call.answered_at = None
        self._end(call, cause=0)
        self._publish_all([events.hangup(call.legs.one, 0, None)])

    def _enter_dialplan(self, call: SimulatedCall) -> None:
        order, variables = call.order, call.variables
        if not self._writes_note(call):
            call.move_to(order.context, order.exten, 2)
            return
        assert call.answered_at is not None
        call.move_to(order.context, order.exten, order.priority)
        note = dialplan.answer_note(answered_at=call.answered_at)
        self._astdb[dialplan.NOTE_FAMILY, call.uniqueid] = note
        self._publish(events.newexten(call.legs.one, "Set", f"DB(dialer/{call.uniqueid})={note}"))
        for step in dialplan.user_events(variables):
            call.move_to(step.context, "s", step.priority)
            self._publish(events.user_event(call.legs.one, step.name, step.headers))
        variables.update(dialplan.detection(variables))
        context = variables.get("DIALER_CONTEXT", order.context)
        call.move_to(
            context.removesuffix(dialplan.DETECTING_CONTEXT_END),
            variables.get("DIALER_EXTEN", order.exten),
            2,
        )

    def _talk(self, call: SimulatedCall) -> None:
        talk_s, clearing = self._timing.talk_s(call.outcome), call.outcome.clearing
        asked = call.variables.get("LAB_TALK_S", "")
        if asked.isdigit() and int(asked) < talk_s:
            talk_s, clearing = int(asked), Clearing.PBX
        ending = self._dialplan_ended if clearing is Clearing.PBX else self._far_end_cleared
        self._after(talk_s, ending, call)

    def _far_end_cleared(self, call: SimulatedCall) -> None:
        self._end(call, cause=call.outcome.cause)
        self._publish_all(script.far_end_clears(call.legs, call.outcome, self._facts))

    def _dialplan_ended(self, call: SimulatedCall) -> None:
        one = call.legs.one
        call.move_to(one.context, one.exten, 3)
        self._pbx_cleared(call, cause=16)

    def _pbx_cleared(self, call: SimulatedCall, *, cause: int) -> None:
        self._end(call, cause=cause)
        self._publish_all(script.pbx_clears(call.legs, cause=cause))

    def _end(self, call: SimulatedCall, *, cause: int) -> None:
        """Remove the call and complete its note, before any Hangup event."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        self.live.pop(call.uniqueid.lower(), None)
        self.ended += 1
        if call.answered_at is not None and self._writes_note(call):
            self._astdb[dialplan.NOTE_FAMILY, call.uniqueid] = dialplan.end_note(
                answered_at=call.answered_at,
                ended_at=time.time(),
                cause=cause,
                variables=call.variables,
            )

    # Details -------------------------------------------------------------------------

    def _outcome_of(self, order: OriginateOrder) -> Outcome:
        return outcome_for(order.dial_string, self.habits.version)

    def _writes_note(self, call: SimulatedCall) -> bool:
        return self.habits.is_dialplan_included and call.order.context == dialplan.ENTRY_CONTEXT

    def _step(self, call: SimulatedCall, step: script.Step) -> None:
        call.legs, sent = step
        self._publish_all(sent)

    def _publish_all(self, sent: Sequence[events.Event]) -> None:
        for event in sent:
            self._publish(event)

    def _publish_threads(
        self,
        threads: Sequence[script.Events],
        order: OriginateOrder,
        *,
        reason: int,
        channel: events.ChannelSnapshot | None = None,
    ) -> None:
        """Publish the events of all threads merged, with the OriginateResponse among them."""
        if order.respond is not None:
            order.respond(channel is not None)
            self._publish_all(self._timing.interleave(*threads))
            return
        response = originate_response_to(order, reason=reason, channel=channel)
        self._publish_all(self._timing.interleave(*threads, [response]))

    def _after(
        self, delay_s: float, step: Callable[[SimulatedCall], None], call: SimulatedCall
    ) -> None:
        call.timer = asyncio.get_running_loop().call_later(delay_s, step, call)
