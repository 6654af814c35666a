"""How many calls a second a PBX and its trunks bear: shrink the rate when they are slow.

Asterisk that gets more calls than it can start does not refuse them. It answers late, and calls
starve: they ring too late or not at all. So only some calls may wait for their channel at once:
those that Asterisk starts within the tolerated latency, as in TCP Vegas and BBR. By Little's law
the calls that wait are rate x latency. Too high a rate for a moment then makes calls wait before
they are claimed, not in Asterisk. If Asterisk is slower than tolerated, the rate becomes what it
really starts; else it grows.

Normal is what is measured at a low rate, or with one call at a time: overload must not become
normal, but a latency that few calls do not lower is not caused by calls. Each signal has its
own.
A trunk is limited by the share of calls that its carrier refuses. That limit shrinks by a gradient
and grows as in CUBIC (RFC 9438): at once to just below the rate that was too much, slowly past it,
then faster.

`govern` decides for the PBX, `govern_trunk` for the carrier behind one trunk. Neither goes above
`cps` of the settings. Knows no clock and no AMI; `workers.pbx.governor` gathers the signals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

Why = Literal["", "pbx_slow", "trunk_congested"]

#: What Asterisk answers: Ping→Pong, Originate→Response, Originate→Newchannel.
Signal = Literal["ping", "reply", "channel"]

#: A latency is slow beyond this share above the normal one, and beyond `SLACK_S` above it. The
#: share is the greater one only above 1 s: a far PBX varies more than a near one.
TOLERANCE: Final = 0.25

#: Latency above the normal one that is never slow, in seconds: a busy host has some.
SLACK_S: Final = 0.25

#: Bounds of the gradient: one step lowers a limit to this share at least and at most.
GRADIENT: Final = (0.5, 0.8)

#: A window lasts from half a second until it has seen `WINDOW_CALLS`, but at most 2 s. With some
#: calls, but less than `SLOW_SAMPLES`, it lasts up to 10 s.
WINDOW_S: Final = (0.5, 2.0, 10.0)

#: So many calls were sent, or started, in a window, unless it took too long.
WINDOW_CALLS: Final = 5

#: So many slow windows in a row are needed, so that one hiccup changes nothing.
SLOW_WINDOWS: Final = 2

#: A rate is low below this share of `cps`. What is normal is measured at a low rate only.
LOW_SHARE: Final = 0.2

#: A trunk of which nothing is known is measured at this share of `cps`: it takes some calls.
MEASURED_AT: Final = LOW_SHARE / 2

#: So many waiting calls are few, or those that a normal latency gives at the lowest limit.
FEW_WAITING: Final = 2

#: What is normal follows what is measured at a low rate in about so many seconds.
NORMAL_FOLLOWS_S: Final = 15.0

#: Normal latency until it was measured, and the highest that is taken as normal, in seconds. A link
#: that is silent for longer gets no calls.
NORMAL_AT_FIRST_S: Final = 0.02
NORMAL_AT_MOST_S: Final = 2.0

#: A limit never falls below this share of `cps`.
FLOOR_SHARE: Final = 0.01

#: A limit never falls below so many calls a second, unless `cps` is lower.
FLOOR: Final = 0.5

#: Without slowness a PBX gets so many times more calls each second: `cps` again within 20 s.
GROWS: Final = FLOOR_SHARE ** (-1 / 20)

#: So many seconds of calls wait for their turn in the worker of a limited PBX, so that Asterisk
#: never runs dry. If others wait, the bridges correct it within about `CORRECTED_S` seconds.
WAITING_S: Final = 0.75
CORRECTED_S: Final = 1.5

#: A call that waits for its channel keeps others back for so many seconds, or for so many times
#: the tolerated latency.
PATIENCE_S: Final = 1.0
PATIENCE: Final = 4.0

#: The bridges lease at least so many calls a second, however many wait for their turn.
LEAST_LEASED: Final = 0.1

#: After a decrease the limit of a trunk goes back to this share of the rate that was too much.
BACK_TO: Final = 0.95

#: From any limit of a trunk to `cps` it takes so long without refusals, in seconds.
RECOVERS_WITHIN_S: Final = 25.0

#: More bytes than this that Asterisk has not read yet are slow.
UNREAD_BYTES: Final = 64 * 1024

#: So many samples must be slow; with fewer, chance decides.
SLOW_SAMPLES: Final = 3

#: This share of the samples must be slow: the 95th percentile.
SLOW_SHARE: Final = 0.05

#: Causes (Q.850) of a carrier without capacity; Asterisk gives 34 for SIP 503.
CONGESTED_CAUSES: Final = frozenset({34, 38, 42, 44})

#: A trunk is judged from so many calls on.
TRUNK_CALLS: Final = 10

#: A share of congested calls up to this above the usual one is normal on a trunk.
CONGESTED_SHARE: Final = 0.25

#: The highest share of congested calls that is taken as usual: a dead trunk stays limited.
USUAL_AT_MOST: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one window of `length_s` seconds showed of a PBX.

    `sent` is how many Originates were sent, `started` how many channels Asterisk created, `waiting`
    how many calls have no channel yet. `silent` is how many calls got no word in time. `answers`
    has the 95th percentile (`p95`) of each signal that was measured, in seconds. `late_s` is the
    median of the channels if each call that waits got its channel now: it can show that Asterisk is
    slow, not that it is quick. `unread` is how many bytes wait for Asterisk to read them.
    """

    length_s: float
    sent: int = 0
    started: int = 0
    waiting: int = 0
    silent: int = 0
    answers: Mapping[Signal, float] = field(default_factory=dict)
    late_s: float = 0.0
    unread: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """State of the governor of one PBX.

    `rate` is how many calls a second it starts in time, None without a limit. `normal` has the
    latency of each signal at a low rate, in seconds, once it was measured. `slow` is the signal
    that last was slow, `answer_s` how long it took. `sent` and `started` are calls a second,
    smoothed over a few windows.
    """

    cps: float
    rate: float | None = None
    normal: Mapping[Signal, float] = field(default_factory=dict)
    slow: Signal = "channel"
    answer_s: float = 0.0
    sent: float = 0.0
    started: float = 0.0
    slow_windows: int = 0

    @property
    def why(self) -> Why:
        """Why there is a limit, '' if there is none."""
        return "" if self.rate is None else "pbx_slow"

    @property
    def allowed(self) -> float:
        """How many calls a second are allowed."""
        return self.cps if self.rate is None else self.rate

    @property
    def floor(self) -> float:
        """The lowest limit; never zero, or nothing would show that slowness is over."""
        return _floor(self.cps)

    @property
    def at_once(self) -> int:
        """How many calls may wait for their channel at once: at least one.

        Without a limit rounded up, so that a PBX that is too slow for `cps` shows it; with one
        rounded down, so that a limit that falls leads to one call at a time.
        """
        exact = max(1.0, self.allowed * self.tolerated_s("channel"))
        return math.ceil(exact) if self.rate is None else math.floor(exact)

    @property
    def patience_s(self) -> float:
        """A call that waits for its channel for longer keeps no other call back.

        So lost calls stop nothing, and a PBX that starts nothing still gets a call now and then.
        """
        return max(PATIENCE_S, PATIENCE * self.tolerated_s("channel"))

    @property
    def normal_s(self) -> float:
        """The normal latency of the signal that last was slow."""
        return self.usual_s(self.slow)

    def usual_s(self, signal: Signal) -> float:
        """Return the normal latency of a signal, or what counts as it until it was measured."""
        return self.normal.get(signal, max(self.normal.values(), default=NORMAL_AT_FIRST_S))

    def tolerated_s(self, signal: Signal) -> float:
        """Return the highest latency of a signal that is not slow."""
        usual_s = self.usual_s(signal)
        return usual_s + max(SLACK_S, TOLERANCE * usual_s)

    def leased(self, waiting: int) -> float:
        """Return how many calls a second the bridges may lease, 0 for any number.

        `waiting` is how many calls wait for their turn in the worker. Without a limit the bridges
        lease at `cps`, unless `cps` needs more than `WAITING_S` for those calls.
        """
        if self.rate is None and waiting <= WAITING_S * max(1.0, self.cps):
            return 0.0
        wanted = WAITING_S * max(1.0, self.started)
        rate = self.started + (wanted - waiting) / CORRECTED_S
        return min(self.cps, max(LEAST_LEASED, rate))


def _floor(most: float) -> float:
    """Return the lowest limit of what may have `most` calls a second."""
    return min(most, max(FLOOR, most * FLOOR_SHARE))


def _clamped(gradient: float) -> float:
    least, most = GRADIENT
    return min(most, max(least, gradient))


def govern(before: Governor, window: Window) -> Governor:
    """Return the governor after one more window."""
    verdict, governor = _judged(before, window), _measured(before, window)
    if verdict is None or verdict.gradient >= 1:
        slow = 0 if verdict is not None else governor.slow_windows
        return replace(_grown(governor, window), slow_windows=slow)
    slow = governor.slow_windows + 1
    governor = replace(governor, slow_windows=slow, slow=verdict.signal, answer_s=verdict.answer_s)
    if slow < SLOW_WINDOWS:
        return governor
    # If nothing was measured, it may be far away: measure what is normal there.
    rate = _borne(governor, window, verdict.gradient) if before.normal else governor.floor
    return replace(_limited(governor, rate), slow_windows=0)


def at_cps(governor: Governor, cps: float) -> Governor:
    """Return the governor when the settings allow another rate; a lower limit stays."""
    is_limited = governor.rate is not None and governor.rate < cps
    return replace(governor, cps=cps, rate=governor.rate if is_limited else None)


def _limited(governor: Governor, rate: float) -> Governor:
    """Limit it to that rate; none at `cps`."""
    rate = max(governor.floor, rate)
    return replace(governor, rate=rate if rate < governor.cps else None)


def _borne(governor: Governor, window: Window, gradient: float) -> float:
    """Return how many calls a second a slow PBX bears.

    It is what it starts. If it was hardly used, calls are not the reason, and the limit is lowered.
    """
    if window.unread > UNREAD_BYTES:
        return governor.started * GRADIENT[0]
    if window.waiting < governor.at_once / 2:
        return max(governor.started, governor.allowed * _clamped(gradient))
    return governor.started


def _grown(governor: Governor, window: Window) -> Governor:
    """Raise the limit after a window without slowness, at least to what started.

    A PBX that had calls and started none may be dead, although it answers pings.
    """
    is_dead = window.started == 0 and window.waiting + window.silent > 0
    if governor.rate is None or is_dead:
        return governor
    return _limited(governor, max(governor.rate * GROWS**window.length_s, governor.started))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The slowest signal of a window; `gradient` is tolerated/measured, below 1 if it is slow."""

    gradient: float
    signal: Signal
    answer_s: float


def _judged(governor: Governor, window: Window) -> _Verdict | None:
    """Return how slow Asterisk was, None if the window says nothing.

    Pings count only without calls: one of them may wait behind a list of all channels.
    """
    has_calls = "channel" in window.answers
    seen = [(s, took_s) for s, took_s in window.answers.items() if s != "ping" or not has_calls]
    if window.late_s > governor.tolerated_s("channel"):
        seen.append(("channel", window.late_s))
    found = [
        _Verdict(governor.tolerated_s(signal) / max(took_s, 1e-6), signal, took_s)
        for signal, took_s in seen
    ]
    is_silent = window.silent >= SLOW_SAMPLES and window.silent > SLOW_SHARE * window.sent
    if is_silent or window.unread > UNREAD_BYTES:
        least_s = max(window.late_s, governor.tolerated_s("channel"))
        found.append(_Verdict(GRADIENT[0], "channel", least_s))
    return min(found, key=lambda verdict: verdict.gradient, default=None)


def _measured(governor: Governor, window: Window) -> Governor:
    """Return the governor with the rates of the window, and the normal latencies corrected."""
    sent = (governor.sent + window.sent / window.length_s) / 2
    started = (governor.started + window.started / window.length_s) / 2
    rate = max(sent, window.sent / window.length_s)
    is_least = governor.rate is not None and governor.at_once <= 1
    is_few = window.waiting <= max(FEW_WAITING, governor.floor * NORMAL_AT_MOST_S)
    is_idle = (is_least or rate <= LOW_SHARE * governor.cps) and is_few
    normal = dict(governor.normal)
    for signal, took_s in window.answers.items():
        seen_s = min(took_s, NORMAL_AT_MOST_S)
        known_s = normal.get(signal, math.inf if is_idle else 0.0)
        if seen_s < known_s or (is_least and is_few):  # no other call makes it slow
            normal[signal] = seen_s
        elif is_idle:
            normal[signal] = _followed(known_s, seen_s, window.length_s)
    return replace(governor, normal=normal, sent=sent, started=started)


def _followed(normal: float, seen: float, length_s: float) -> float:
    """Return what is normal after a window at a low rate."""
    return normal + min(1.0, length_s / NORMAL_FOLLOWS_S) * (seen - normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of calls a second that is at most `most`; `rate` None: no limit.

    `ceiling` is the rate that was too much. `grown_s` is how long the limit has been growing, in
    seconds.
    """

    most: float
    rate: float | None = None
    ceiling: float = 0.0
    grown_s: float = 0.0

    @property
    def floor(self) -> float:
        """The lowest limit; never zero, or nothing would show that the refusals are over."""
        return _floor(self.most)

    @property
    def allowed(self) -> float:
        """How many calls a second are allowed."""
        return self.most if self.rate is None else self.rate

    def is_low(self, rate: float) -> bool:
        """True if what is seen at that rate is not caused by calls: it is low, or the lowest."""
        is_lowest = self.rate is not None and self.rate <= self.floor
        return is_lowest or rate <= LOW_SHARE * self.most

    def shrunk(self, too_much: float, gradient: float) -> Limit:
        """Lower the limit: a rate of `too_much` had too many refusals, by that `gradient`."""
        ceiling = min(self.allowed, max(self.floor, too_much))
        rate = max(self.floor, ceiling * _clamped(gradient))
        return replace(self, rate=rate, ceiling=ceiling, grown_s=0.0)

    def at_most(self, rate: float) -> Limit:
        """Lower the limit further, to measure what is usual."""
        return replace(self, rate=max(self.floor, min(self.allowed, rate)))

    def grown(self, length_s: float) -> Limit:
        """Raise the limit after a window without many refusals; none at `most`."""
        if self.rate is None:
            return self
        grown_s = self.grown_s + length_s
        share = (grown_s / RECOVERS_WITHIN_S) ** 3
        rate = max(self.rate, BACK_TO * self.ceiling + self.most * share)
        if rate >= self.most:
            return Limit(most=self.most)
        return replace(self, rate=rate, grown_s=grown_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkGovernor:
    """State of the governor of one trunk.

    `usual` is the share of congested calls at a low rate: fewer calls do not lower it. `share` is
    the one for which the limit was last lowered.
    """

    limit: Limit
    usual: float | None = None
    share: float = 0.0

    @classmethod
    def of(cls, cps: float) -> TrunkGovernor:
        """Return the governor of a trunk of a PBX that may start `cps` calls a second."""
        return cls(limit=Limit(most=cps))

    @property
    def why(self) -> Why:
        """Why there is a limit, '' if there is none."""
        return "" if self.limit.rate is None else "trunk_congested"


def trunk_at_cps(trunk: TrunkGovernor, cps: float) -> TrunkGovernor:
    """Return the governor of a trunk when the settings allow another rate."""
    limit = trunk.limit
    if limit.rate is None or limit.rate >= cps:
        return replace(trunk, limit=Limit(most=cps))
    return replace(trunk, limit=replace(limit, most=cps, ceiling=min(limit.ceiling, cps)))


def govern_trunk(
    trunk: TrunkGovernor, *, calls: int, congested: int, length_s: float
) -> TrunkGovernor:
    """Return the governor of a trunk after one more window.

    Args:
        trunk: its state.
        calls: how many were sent.
        congested: how many the carrier refused because it has no capacity.
        length_s: length of the window, in seconds.
    """
    if calls < TRUNK_CALLS:
        return replace(trunk, limit=trunk.limit.grown(length_s))
    share, rate, is_measured = congested / calls, calls / length_s, trunk.usual is not None
    chance = math.sqrt(CONGESTED_SHARE * (1 - CONGESTED_SHARE) / calls)
    if trunk.limit.is_low(rate) or share < (trunk.usual or 0.0) - chance:
        trunk = replace(trunk, usual=_usual(trunk.usual, share, length_s))
    tolerated = (trunk.usual or 0.0) + CONGESTED_SHARE
    if share <= tolerated + chance:
        return replace(trunk, limit=trunk.limit.grown(length_s))
    limit = trunk.limit.shrunk(rate, (1 - share) / (1 - tolerated))
    if not is_measured:
        limit = limit.at_most(MEASURED_AT * limit.most)
    return replace(trunk, limit=limit, share=share)


def _usual(usual: float | None, share: float, length_s: float) -> float:
    """Return the usual share of congested calls after one more that was seen."""
    share = min(share, USUAL_AT_MOST)
    return share if usual is None else _followed(usual, share, length_s)


def is_window_over(length_s: float, *, sent: int, started: int) -> bool:
    """True if a window of that length, in seconds, that saw so many calls can be judged."""
    shortest, longest, longest_of_few = WINDOW_S
    if length_s >= longest:
        is_few = sent < WINDOW_CALLS and started < SLOW_SAMPLES and sent + started > 0
        return not is_few or length_s >= longest_of_few
    return length_s >= shortest and max(sent, started) >= WINDOW_CALLS


def p95(samples: Collection[float]) -> float | None:
    """Return the 95th percentile; with few samples the third greatest, None below three."""
    n = max(SLOW_SAMPLES, math.ceil(SLOW_SHARE * len(samples)))
    return sorted(samples, reverse=True)[n - 1] if len(samples) >= n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkLimit:
    """What a trunk is limited to, in calls a second, and the share of congested calls."""

    rate: float
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """What a worker's heartbeat says of its governor.

    `rate` is how many calls a second the bridges may lease, 0 for any number.
    `starts` is how many calls a second it lets Asterisk start, 0 for any number; `rate` corrects
    that by those that already wait in the worker. `answer_s` is how long Asterisk took when it was
    slow, `normal_s` how long it normally takes.
    """

    rate: float = 0.0
    starts: float = 0.0
    answer_s: float = 0.0
    normal_s: float = 0.0
    trunks: dict[str, TrunkLimit] = field(default_factory=dict)

    def in_words(self, cps: float) -> list[str]:
        """Return a sentence with the cure for each limit; `cps` is that of the settings."""
        found = []
        if 0 < self.starts < cps:
            took, usual = round(self.answer_s * 1000), round(self.normal_s * 1000)
            found.append(
                f"pbx_slow: limited to {self.starts:.3g} of {cps:g} calls a second because "
                f"Asterisk answers in {took} ms (normal: {usual} ms); see the load of its host, or "
                "lower cps"
            )
        for trunk, limit in self.trunks.items():
            found.append(
                f"trunk_congested: trunk {trunk} limited to {limit.rate:.3g} of {cps:g} calls a "
                f"second because its carrier refused {limit.share:.0%} of the calls for lack of "
                "capacity; ask the carrier, or spread the calls over other trunks"
            )
        return found
