"""Events of each step of a call, in the order found in the captures.

Pure: a step takes the call's legs and returns the new legs and the events in order. Asterisk
sends the events of some steps from several threads, so their order varies: such a step returns
one list of events per thread; OriginateResponse comes from yet another thread. The caller
decides when a step is due and how the threads are merged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dialer.simulation.pbx import events
from dialer.simulation.pbx.outcomes import Outcome, VersionFacts

TRUNK_CONTEXT = "from-carrier"
"""The context of a trunk's endpoint; a new outgoing channel has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Legs:
    """A call's channels: `one` is the dialer's; `two` exists only for Local channels."""

    one: events.ChannelSnapshot
    two: events.ChannelSnapshot | None = None

    @property
    def channels(self) -> tuple[events.ChannelSnapshot, ...]:
        """All existing channels of the call."""
        return (self.one,) if self.two is None else (self.one, self.two)


Events = list[events.Event]
Step = tuple[Legs, Events]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed attempt: the events that always come first, then those of each thread."""

    first: Events
    threads: tuple[Events, ...]


def legs_for(
    dial_string: str, *, sequence: int, uniqueid: str, other_uniqueid: str, account: str
) -> Legs:
    """Return the channels of a new call, named technology/endpoint-sequence."""
    technology, _, address = dial_string.partition("/")
    user, at, host = address.partition("@")
    is_local = technology.lower() == "local"
    context = host.partition("/")[0]
    peer = f"{user}{at}{context}" if is_local else host or user.partition("/")[0]
    one = events.ChannelSnapshot(
        name=f"{technology}/{peer}-{sequence:08x}{';1' if is_local else ''}",
        state=events.DOWN,
        caller_number="",
        caller_name="",
        connected_number="",
        connected_name="",
        account=account,
        context=context if is_local else TRUNK_CONTEXT,
        exten=user if is_local else "s",
        priority=1,
        uniqueid=uniqueid,
        linkedid=uniqueid,
    )
    if not is_local:
        return Legs(one=one)
    two = replace(
        one,
        name=f"{one.name[:-1]}2",
        state=events.RING,
        uniqueid=other_uniqueid or f"{uniqueid};2",
    )
    return Legs(one=one, two=two)


def opening(legs: Legs, *, number: str, name: str, variables: dict[str, str], address: str) -> Step:
    """Create the channels, set the caller ID, and begin dialing."""
    sent = [events.newchannel(channel) for channel in legs.channels]
    if number or name:
        with_caller = replace(legs.one, caller_number=number, caller_name=name)
        one = replace(with_caller, connected_number=number, connected_name=name)
        sent += [events.new_callerid(with_caller), events.new_connected_line(one)]
        two = legs.two
        if two is not None:
            # The second half has both before its first event.
            two = replace(
                two,
                caller_number=number,
                caller_name=name,
                connected_number=number,
                connected_name=name,
            )
            sent += [events.new_callerid(two), events.new_connected_line(two)]
        legs = Legs(one=one, two=two)
    sent += [events.var_set(legs.one, *assignment) for assignment in variables.items()]
    if legs.two is not None:
        sent.append(events.local_bridge(legs.one, legs.two))
    return legs, [*sent, events.dial_begin(legs.one, address)]


def nowhere(legs: Legs) -> Events:
    """Create the channels of a Local call to a missing extension, and hang them up."""
    created = [events.newchannel(channel) for channel in legs.channels]
    return [*created, *(events.hangup(channel, 0, None) for channel in reversed(legs.channels))]


def ringing(legs: Legs) -> Step:
    """Let the far end ring."""
    legs = replace(legs, one=replace(legs.one, state=events.RINGING))
    return legs, [events.newstate(legs.one), events.dial_state(legs.one, "RINGING")]


def answer(legs: Legs) -> tuple[Legs, tuple[Events, Events]]:
    """Let the far end answer; return the events of the channel's and of the dialing thread."""
    two = legs.two and replace(legs.two, state=events.UP, priority=2)
    one = replace(legs.one, state=events.UP)
    sent = [events.newstate(channel) for channel in (two, one) if channel is not None]
    return Legs(one=one, two=two), (sent, [events.dial_end(one, "ANSWER")])


def rejection(legs: Legs, outcome: Outcome, facts: VersionFacts) -> Refusal:
    """Let the far end reject the call."""
    one, two = legs.one, legs.two
    tech_cause = outcome.tech_cause if facts.has_tech_cause and two is None else None
    dialling = [
        events.dial_end(one, outcome.dial_status),
        events.hangup(one, outcome.cause, tech_cause),
    ]
    if two is None:
        request = events.hangup_request(one, outcome.cause, tech_cause)
        return Refusal(first=[request], threads=(dialling,))
    far = [events.hangup_request(two, outcome.cause, None)]
    if outcome.dial_status == "BUSY":
        two = replace(two, state=events.BUSY)
        far.append(events.newstate(two))
    far += [events.soft_hangup_request(two), events.hangup(two, outcome.far_leg_cause, None)]
    return Refusal(first=[], threads=(dialling, far))


def ring_out(legs: Legs, facts: VersionFacts) -> Refusal:
    """End the call at the Originate's timeout."""
    cause = facts.ring_out_cause
    if legs.two is None:
        tech_cause = 480 if facts.has_tech_cause else None
        return Refusal(first=[], threads=([events.hangup(legs.one, cause, tech_cause)],))
    far = [events.soft_hangup_request(legs.two), events.hangup(legs.two, cause, None)]
    return Refusal(
        first=[events.hangup_request(legs.two, cause, None)],
        threads=(far, [events.hangup(legs.one, cause, None)]),
    )


def far_end_clears(legs: Legs, outcome: Outcome, facts: VersionFacts) -> Events:
    """End an answered call by BYE from the carrier, or by the end of the far leg's dialplan."""
    one, two, cause = legs.one, legs.two, outcome.cause
    if two is not None:
        return [
            events.soft_hangup_request(two),
            events.hangup_request(one, 16, None),
            events.hangup(two, 16, None),
            events.soft_hangup_request(one),
            events.hangup(one, cause, None),
        ]
    # Whether this event has a cause depends on the BYE's Reason header; the two versions do
    # opposite things.
    has_cause = outcome.gives_reason == facts.has_cause_if_bye_has_reason
    return [
        events.hangup_request(one, 16 if has_cause else None, None),
        events.soft_hangup_request(one),
        events.hangup(one, cause, None),
    ]


def pbx_clears(legs: Legs, *, cause: int) -> Events:
    """Hang up an answered call from the PBX's side."""
    sent = [events.soft_hangup_request(legs.one), events.hangup(legs.one, cause, None)]
    if legs.two is not None:
        sent += [
            events.hangup_request(legs.two, cause, None),
            events.soft_hangup_request(legs.two),
            events.hangup(legs.two, cause, None),
        ]
    return sent


def abandoned(legs: Legs, *, cause: int) -> Refusal:
    """Hang up an unanswered call from the PBX's side (not seen in a capture)."""
    hangups = [events.hangup(channel, cause, None) for channel in legs.channels]
    return Refusal(first=[], threads=([events.dial_end(legs.one, "NOANSWER"), *hangups],))
