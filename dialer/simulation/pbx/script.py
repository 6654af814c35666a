"""What Asterisk tells at each step of a call, and in which order, as the captures have it.

Pure: a step takes the call's legs, and gives the legs as they are now and the events in their
order. Asterisk tells some steps from several threads at once, whose events mix as they like:
such a step gives one list of events a thread, and OriginateResponse comes from one more. When
a step is due and how threads mix is the caller's business.
"""

from dataclasses import dataclass, replace

from dialer.simulation.pbx import events
from dialer.simulation.pbx.outcomes import Outcome, VersionFacts

TRUNK_CONTEXT = "from-carrier"
"""The context of a trunk's endpoint, which a new outgoing channel shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Legs:
    """A call's channels: `one` is the dialer's; `two` is there on Local channels only."""

    one: events.ChannelSnapshot
    two: events.ChannelSnapshot | None = None

    @property
    def channels(self) -> tuple[events.ChannelSnapshot, ...]:
        """Both, or the one there is."""
        return (self.one,) if self.two is None else (self.one, self.two)


Told = list[events.Event]
Step = tuple[Legs, Told]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed dialling: what comes first for certain, then what the threads tell."""

    first: Told
    threads: tuple[Told, ...]


def legs_for(
    dial_string: str, *, sequence: int, uniqueid: str, other_uniqueid: str, account: str
) -> Legs:
    """Name the channels that dialling makes: technology/endpoint-sequence."""
    technology, _, address = dial_string.partition("/")
    user, at, host = address.partition("@")
    is_local = technology.lower() == "local"
    place = host.partition("/")[0]
    peer = f"{user}{at}{place}" if is_local else host or user.partition("/")[0]
    one = events.ChannelSnapshot(
        name=f"{technology}/{peer}-{sequence:08x}{';1' if is_local else ''}",
        state=events.DOWN,
        caller_number="",
        caller_name="",
        connected_number="",
        connected_name="",
        account=account,
        context=place if is_local else TRUNK_CONTEXT,
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
    """The channels come to be, learn the caller's number and name, and dialling begins."""
    told = [events.newchannel(channel) for channel in legs.channels]
    if number or name:
        with_number = replace(legs.one, caller_number=number, caller_name=name)
        one = replace(with_number, connected_number=number, connected_name=name)
        told += [events.new_callerid(with_number), events.new_connected_line(one)]
        two = legs.two
        if two is not None:
            # The far half has both before it tells of either.
            two = replace(
                two,
                caller_number=number,
                caller_name=name,
                connected_number=number,
                connected_name=name,
            )
            told += [events.new_callerid(two), events.new_connected_line(two)]
        legs = Legs(one=one, two=two)
    told += [events.var_set(legs.one, *assignment) for assignment in variables.items()]
    if legs.two is not None:
        told.append(events.local_bridge(legs.one, legs.two))
    return legs, [*told, events.dial_begin(legs.one, address)]


def ringing(legs: Legs) -> Step:
    """The far end rings."""
    legs = replace(legs, one=replace(legs.one, state=events.RINGING))
    return legs, [events.newstate(legs.one), events.dial_state(legs.one, "RINGING")]


def answer(legs: Legs) -> tuple[Legs, tuple[Told, Told]]:
    """The far end answers: what the channel's thread tells, and what the dialling one."""
    two = legs.two and replace(legs.two, state=events.UP, priority=2)
    one = replace(legs.one, state=events.UP)
    told = [events.newstate(channel) for channel in (two, one) if channel is not None]
    return Legs(one=one, two=two), (told, [events.dial_end(one, "ANSWER")])


def rejection(legs: Legs, outcome: Outcome, facts: VersionFacts) -> Refusal:
    """The far end refuses."""
    one, two = legs.one, legs.two
    tech_cause = outcome.tech_cause if facts.tells_tech_cause and two is None else None
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
    """The Originate's timeout is over."""
    cause = facts.ring_out_cause
    if legs.two is None:
        tech_cause = 480 if facts.tells_tech_cause else None
        return Refusal(first=[], threads=([events.hangup(legs.one, cause, tech_cause)],))
    far = [events.soft_hangup_request(legs.two), events.hangup(legs.two, cause, None)]
    return Refusal(
        first=[events.hangup_request(legs.two, cause, None)],
        threads=(far, [events.hangup(legs.one, cause, None)]),
    )


def far_end_clears(legs: Legs, outcome: Outcome, facts: VersionFacts) -> Told:
    """BYE from the carrier, or the far leg's dialplan at its end."""
    one, two, cause = legs.one, legs.two, outcome.cause
    if two is not None:
        return [
            events.soft_hangup_request(two),
            events.hangup_request(one, 16, None),
            events.hangup(two, 16, None),
            events.soft_hangup_request(one),
            events.hangup(one, cause, None),
        ]
    # Which of the two versions tells the cause here depends on the BYE's Reason header, and
    # the two do it the other way round.
    tells_cause = outcome.gives_reason == facts.tells_reason_of_bye
    return [
        events.hangup_request(one, 16 if tells_cause else None, None),
        events.soft_hangup_request(one),
        events.hangup(one, cause, None),
    ]


def pbx_clears(legs: Legs, *, cause: int) -> Told:
    """Our side hangs up an answered call."""
    told = [events.soft_hangup_request(legs.one), events.hangup(legs.one, cause, None)]
    if legs.two is not None:
        told += [
            events.hangup_request(legs.two, cause, None),
            events.soft_hangup_request(legs.two),
            events.hangup(legs.two, cause, None),
        ]
    return told


def abandoned(legs: Legs, *, cause: int) -> Refusal:
    """Our side hangs up a call that is still being dialled (not seen in a capture)."""
    hangups = [events.hangup(channel, cause, None) for channel in legs.channels]
    return Refusal(first=[], threads=([events.dial_end(legs.one, "NOANSWER"), *hangups],))
