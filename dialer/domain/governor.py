"""How many calls a second a PBX and its trunks bear: shrink the rate when they are slow.

Asterisk that gets more calls than it can start does not refuse them. It answers late, and calls
starve: they ring too late or not at all. So the rate follows what Asterisk shows: additive
increase, multiplicative decrease, as in TCP. The increase is that of CUBIC (RFC 9438): back at once
to just below the rate that was too much, slowly past it, then faster. The decrease follows the
gradient normal/measured with a tolerance, as in Envoy's adaptive concurrency: without a tolerance
it reacts to normal variance, and a normal that is measured under load makes overload normal.

`govern` decides for the PBX, `govern_trunk` for the carrier behind one trunk. Neither goes above
`cps` of the settings. Knows no clock and no AMI; `workers.pbx.governor` gathers the signals.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final, Literal

Why = Literal["", "pbx_slow", "trunk_congested"]

#: A latency is slow beyond this share above the normal one, and beyond `SLACK_S` above it.
TOLERANCE: Final = 0.25

#: Latency above the normal one that is never slow, in seconds: a busy host has some.
SLACK_S: Final = 0.25

#: Bounds of the gradient: a limit at most halves, or doubles, in one step.
GRADIENT: Final = (0.5, 2.0)

#: A window lasts from half a second until it has seen `WINDOW_CALLS`, but at most 2 s.
WINDOW_S: Final = (0.5, 2.0)

#: So many calls were sent, or started, in a window, unless it took too long.
WINDOW_CALLS: Final = 5

#: So many slow windows in a row are needed, so that one hiccup changes nothing.
SLOW_WINDOWS: Final = 2

#: The normal latency is measured only below this share of `cps`, and with hardly a call waiting.
MEASURED_BELOW: Final = 0.2
MEASURED_WAITING: Final = 2

#: The normal latency follows what is measured then in about so many seconds. So a host that is slow
#: for other reasons is not kept at the lowest limit: fewer calls do not make it faster.
NORMAL_FOLLOWS_S: Final = 15.0

#: Normal latency until it was measured, and the highest that is taken as normal, in seconds.
NORMAL_AT_FIRST_S: Final = 0.02
NORMAL_AT_MOST_S: Final = 1.0

#: A limit never falls below this share of `cps`.
FLOOR_SHARE: Final = 0.01

#: A limit never falls below so many calls a second, unless `cps` is lower.
FLOOR: Final = 0.5

#: After a decrease the limit goes back to this share of the rate that was too much.
BACK_TO: Final = 0.95

#: While Asterisk has earlier calls for more than so many seconds, it gets the fewest.
WORKED_OFF_S: Final = 2.0

#: From any limit to `cps` it takes so long without slowness, in seconds.
RECOVERS_WITHIN_S: Final = 25.0

#: More bytes than this that Asterisk has not read yet are slow.
UNREAD_BYTES: Final = 64 * 1024

#: So many samples must be slow; with fewer, chance decides.
SLOW_SAMPLES: Final = 3

#: This share of the samples must be slow: the 95th percentile.
SLOW_SHARE: Final = 0.05

#: Causes (Q.850) of a carrier without capacity; Asterisk gives 34 for SIP 503.
CONGESTED_CAUSES: Final = frozenset({34, 38, 42, 44})

#: A trunk is judged from so many ended calls on.
TRUNK_CALLS: Final = 10

#: A share of congested calls up to this is normal on a trunk.
CONGESTED_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one window of `length_s` seconds showed of a PBX.

    `sent` is how many Originates were sent, `started` how many channels Asterisk created, `waiting`
    how many calls have no channel yet. `silent` is how many calls got no word in time. `answer_s`
    is the 95th percentile (`p95`) of Originate→Response, Originate→Newchannel and Ping→Pong,
    whichever is greatest; None if nothing was measured. `unread` is how many bytes wait for
    Asterisk to read them.
    """

    length_s: float
    sent: int = 0
    started: int = 0
    waiting: int = 0
    silent: int = 0
    answer_s: float | None = None
    unread: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of calls a second that is at most `most`; `rate` None: no limit.

    `ceiling` is the rate that was too much. `since` is when growing began. `is_draining`: the limit
    was lowered, and what came before it is still being worked off.
    """

    most: float
    rate: float | None = None
    ceiling: float = 0.0
    since: float = 0.0
    is_draining: bool = False

    @property
    def floor(self) -> float:
        """The lowest limit; never zero, or nothing would show that slowness is over."""
        return min(self.most, max(FLOOR, self.most * FLOOR_SHARE))

    @property
    def now(self) -> float:
        """The rate that is allowed now."""
        return self.most if self.rate is None else self.rate

    def shrunk(self, too_much: float, gradient: float) -> Limit:
        """Lower the limit: a rate of `too_much` was slow by that `gradient`."""
        ceiling = min(self.now, max(self.floor, too_much))
        rate = ceiling * min(1.0, max(GRADIENT[0], gradient))
        return replace(self, rate=max(self.floor, rate), ceiling=ceiling, is_draining=True)

    def drained(self, work_s: float) -> Limit:
        """Adapt a lowered limit to how many seconds of earlier work are left."""
        if work_s > WORKED_OFF_S:
            return replace(self, rate=self.floor)
        return replace(self, rate=max(self.now, self.ceiling * GRADIENT[0]))

    def grown(self, now: float) -> Limit:
        """Raise the limit after a window without slowness; none at `most`."""
        if self.rate is None:
            return self
        since = now if self.is_draining else self.since
        share = ((now - since) / RECOVERS_WITHIN_S) ** 3
        rate = max(self.rate, BACK_TO * self.ceiling + self.most * share)
        if rate >= self.most:
            return Limit(most=self.most)
        return replace(self, rate=rate, since=since, is_draining=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """State of the governor of one PBX.

    `normal_s` is the latency of an idle Asterisk, None before it was measured; `answer_s` the one
    that last was slow. `sent` and `started` are calls a second, smoothed over a few windows.
    """

    limit: Limit
    normal_s: float | None = None
    answer_s: float = 0.0
    sent: float = 0.0
    started: float = 0.0
    waiting: int = 0
    slow_windows: int = 0

    @classmethod
    def of(cls, cps: float) -> Governor:
        """Return the governor of a PBX that may start `cps` calls a second."""
        return cls(limit=Limit(most=cps))

    @property
    def why(self) -> Why:
        """Why there is a limit, '' if there is none."""
        return "" if self.limit.rate is None else "pbx_slow"

    @property
    def usual_s(self) -> float:
        """The normal latency, or what counts as it until it was measured."""
        return NORMAL_AT_FIRST_S if self.normal_s is None else self.normal_s

    @property
    def tolerated_s(self) -> float:
        """The highest latency that is not slow."""
        return self.usual_s + max(SLACK_S, TOLERANCE * self.usual_s)


def govern(governor: Governor, window: Window, now: float) -> Governor:
    """Return the governor after one more window; `now` is a monotonic time in seconds."""
    before, gradient = governor.waiting, _gradient(governor, window)
    governor = _measured(governor, window)
    if gradient is None or gradient >= 1:
        slow = 0 if gradient is not None else governor.slow_windows
        return replace(governor, limit=governor.limit.grown(now), slow_windows=slow)
    slow = governor.slow_windows + 1
    answer_s = max(window.answer_s or 0.0, governor.tolerated_s)
    governor = replace(governor, slow_windows=slow, answer_s=answer_s)
    is_less = window.waiting < before and not window.unread > UNREAD_BYTES
    if governor.limit.is_draining and is_less:
        work_s = window.waiting / max(governor.started, governor.limit.floor)
        return replace(governor, limit=governor.limit.drained(work_s))
    if slow < SLOW_WINDOWS:
        return governor
    sent = min(governor.limit.now, governor.sent)
    too_much = min(sent, max(governor.started, sent * GRADIENT[0]))
    return replace(governor, limit=governor.limit.shrunk(too_much, gradient), slow_windows=0)


def _gradient(governor: Governor, window: Window) -> float | None:
    """Return tolerated/measured, below 1 if Asterisk is slow; None if the window says nothing."""
    is_silent = window.silent >= SLOW_SAMPLES and window.silent > SLOW_SHARE * window.sent
    if is_silent or window.unread > UNREAD_BYTES:
        return GRADIENT[0]
    if window.answer_s is None:
        return None
    return min(GRADIENT[1], governor.tolerated_s / max(window.answer_s, 1e-6))


def _measured(governor: Governor, window: Window) -> Governor:
    """Return the governor with the rates of the window, and the normal latency corrected."""
    sent = (governor.sent + window.sent / window.length_s) / 2
    started = (governor.started + window.started / window.length_s) / 2
    normal_s = governor.normal_s
    if (measured_s := window.answer_s) is not None:
        rate = max(sent, window.sent / window.length_s)
        is_idle = rate < MEASURED_BELOW * governor.limit.most and window.waiting <= MEASURED_WAITING
        if normal_s is None:
            normal_s = min(measured_s, NORMAL_AT_MOST_S) if is_idle else None
        elif measured_s < normal_s:
            normal_s = measured_s
        elif is_idle:
            measured_s = min(measured_s, 2 * governor.tolerated_s, NORMAL_AT_MOST_S)
            normal_s += min(1.0, window.length_s / NORMAL_FOLLOWS_S) * (measured_s - normal_s)
    return replace(governor, normal_s=normal_s, sent=sent, started=started, waiting=window.waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkGovernor:
    """State of the governor of one trunk. `share` is the share of congested calls last seen."""

    limit: Limit
    share: float = 0.0

    @classmethod
    def of(cls, cps: float) -> TrunkGovernor:
        """Return the governor of a trunk of a PBX that may start `cps` calls a second."""
        return cls(limit=Limit(most=cps))

    @property
    def why(self) -> Why:
        """Why there is a limit, '' if there is none."""
        return "" if self.limit.rate is None else "trunk_congested"


def govern_trunk(
    trunk: TrunkGovernor, *, ended: int, congested: int, length_s: float, now: float
) -> TrunkGovernor:
    """Return the governor of a trunk after one more window.

    Args:
        trunk: its state.
        ended: calls that were answered, or ended unanswered, in the window.
        congested: how many of them the carrier refused because it has no capacity.
        length_s: length of the window, in seconds.
        now: a monotonic time, in seconds.
    """
    share = congested / ended if ended else 0.0
    if ended < TRUNK_CALLS or share <= CONGESTED_SHARE:
        return replace(trunk, limit=trunk.limit.grown(now))
    rate = min(trunk.limit.now, ended / length_s)
    gradient = (1 - share) / (1 - CONGESTED_SHARE)
    return replace(trunk, limit=trunk.limit.shrunk(rate, gradient), share=share)


def is_window_over(length_s: float, calls: int) -> bool:
    """True if a window of that length, in seconds, that saw so many calls can be judged."""
    shortest, longest = WINDOW_S
    return length_s >= longest or (length_s >= shortest and calls >= WINDOW_CALLS)


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
    """What a worker's heartbeat says of its governor; `rate` 0 is no limit.

    `answer_s` is how long Asterisk took when it was slow, `normal_s` how long it normally takes.
    """

    rate: float = 0.0
    answer_s: float = 0.0
    normal_s: float = 0.0
    trunks: dict[str, TrunkLimit] = field(default_factory=dict)

    def in_words(self, cps: float) -> list[str]:
        """Return a sentence with the cure for each limit; `cps` is that of the settings."""
        found = []
        if 0 < self.rate < cps:
            took, usual = round(self.answer_s * 1000), round(self.normal_s * 1000)
            found.append(
                f"pbx_slow: limited to {self.rate:.3g} of {cps:g} calls a second because Asterisk "
                f"answers in {took} ms (normal: {usual} ms); see the load of its host, or lower cps"
            )
        for trunk, limit in self.trunks.items():
            found.append(
                f"trunk_congested: trunk {trunk} limited to {limit.rate:.3g} of {cps:g} calls a "
                f"second because its carrier refused {limit.share:.0%} of the calls for lack of "
                "capacity; ask the carrier, or spread the calls over other trunks"
            )
        return found
