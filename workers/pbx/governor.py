"""Gather the signals of one PBX for its governor, and carry out what it decides.

The rules are in `dialer.domain.governor`. The signals come from what the worker sends and hears
anyway: the pings of the link, the replies to Originates, the events of calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from statistics import median
from typing import Final

from dialer.domain.channel import (
    AmiEvent,
    ChannelCreated,
    ChannelUp,
    HungUp,
    OriginateEnded,
    uniqueid_of,
)
from dialer.domain.governor import (
    CONGESTED_CAUSES,
    SLOW_SAMPLES,
    TRUNK_CALLS,
    Governor,
    Signal,
    TrunkGovernor,
    Window,
    at_cps,
    govern,
    govern_trunk,
    is_window_over,
    p95,
    trunk_at_cps,
)
from workers.ami import AmiLink
from workers.pbx.turns import Turns

logger = logging.getLogger(__name__)

#: The windows are looked at this often, in seconds.
EVERY_S: Final = 0.25

#: A call that has no channel after this time got no word, in seconds.
WORD_WITHIN_S: Final = 10.0

#: A call without a channel was overtaken if one that was sent so much later has one, in seconds.
#: It is lost; Asterisk is not slow because of it.
OVERTAKEN_S: Final = 1.0

#: A trunk is judged after the first of these times if it had enough calls, after the second if it
#: had none, else after the third. In seconds.
TRUNK_WINDOW_S: Final = (2.0, 10.0, 30.0)

#: The log says that a limit is over when there was none for so long, in seconds: that of a PBX that
#: is a little slower than `cps` comes and goes.
OVER_AFTER_S: Final = 30.0

#: The trunk of a call of which no end was heard is forgotten after this time, in seconds.
TRUNK_FORGOTTEN_S: Final = 300.0


@dataclass(slots=True)
class _Outcomes:
    """Calls that were sent over one trunk since `since`, and those that its carrier refused.

    The refused ones are a share of those sent, not of those that ended: a refusal comes at once,
    the end of a good call much later. Those of calls sent before `lowered_at` do not count: they
    say nothing about the limit since then.
    """

    since: float
    lowered_at: float = 0.0
    sent: int = 0
    congested: int = 0

    @property
    def calls(self) -> int:
        """How many calls the refused ones are a share of."""
        return max(self.sent, self.congested)

    def is_over(self, now: float) -> bool:
        """True if the trunk can be judged."""
        soon, late, last = TRUNK_WINDOW_S
        if self.calls >= TRUNK_CALLS:
            return now - self.since >= soon
        return now - self.since >= (last if self.calls else late)


@dataclass(slots=True)
class PbxGovernor:
    """The governor of one PBX. Belongs to the worker's event loop.

    `is_on` false: nothing is limited. `monotonic` returns seconds of a monotonic clock.
    """

    pbx: str
    cps: float
    link: AmiLink
    is_on: bool = True
    monotonic: Callable[[], float] = time.monotonic
    turns: Turns = field(init=False)
    state: Governor = field(init=False)
    trunks: dict[str, TrunkGovernor] = field(default_factory=dict)
    _session: int = -1
    _began: float = 0.0
    _sent: int = 0
    _started: int = 0
    _silent: int = 0
    _replies: list[float] = field(default_factory=list)
    _channels: list[float] = field(default_factory=list)
    #: When the Originate of each call without a reply, or a channel, was sent; by Uniqueid.
    _unanswered: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, float] = field(default_factory=dict)
    #: When the latest call that has a channel was sent.
    _newest: float = 0.0
    #: Trunk of each call that has not been answered or ended, and when it was sent.
    _trunk_of: dict[str, tuple[str, float]] = field(default_factory=dict)
    _outcomes: dict[str, _Outcomes] = field(default_factory=dict)
    #: Limits whose beginning was logged, and when each was last there.
    _logged: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = Governor(cps=self.cps)
        self.turns = Turns(self.cps, self.room)

    def change(self, cps: float, *, is_on: bool) -> None:
        """Govern by other settings from now on."""
        if (cps, is_on) == (self.cps, self.is_on):
            return
        if is_on is self.is_on:
            self.state = at_cps(self.state, cps)
            self.trunks = {name: trunk_at_cps(one, cps) for name, one in self.trunks.items()}
        else:
            self.state, self.trunks = Governor(cps=cps), {}
        self.cps, self.is_on, self.turns.cps = cps, is_on, cps
        self._begin_again(self.monotonic())

    # --- signals -------------------------------------------------------------------

    def sent(self, uniqueid: str, trunk: str) -> None:
        """Note that an Originate is sent now."""
        if not self.is_on:
            return
        now = self.monotonic()
        self._sent += 1
        self._unanswered[uniqueid] = self._waiting[uniqueid] = now
        self._trunk_of[uniqueid] = trunk, now
        self._outcomes.setdefault(trunk, _Outcomes(now)).sent += 1

    def accepted(self, uniqueid: str) -> None:
        """Note that Asterisk accepted the Originate."""
        if (at := self._unanswered.pop(uniqueid, None)) is not None:
            self._replies.append(self.monotonic() - at)

    def refused(self, uniqueid: str) -> None:
        """Note that Asterisk refused the Originate, or that it was not sent."""
        self._unanswered.pop(uniqueid, None)
        self._trunk_of.pop(uniqueid, None)
        self._left(uniqueid)

    def on_event(self, event: AmiEvent) -> None:
        """Note what an event shows; those of other channels are ignored."""
        match event:
            case ChannelCreated():
                self._has_channel(event.uniqueid)
            case ChannelUp():
                self._over(event.uniqueid, is_congested=False)
            case HungUp():
                self._over(event.uniqueid, is_congested=event.cause in CONGESTED_CAUSES)
            case OriginateEnded(answered=False):
                self._left(uniqueid_of(event))
            case _:
                pass

    def _has_channel(self, uniqueid: str) -> None:
        if (at := self._left(uniqueid)) is not None:
            self._started += 1
            self._newest = max(self._newest, at)
            self._channels.append(self.monotonic() - at)

    def _left(self, uniqueid: str) -> float | None:
        """Note that a call waits for its channel no longer; return when it was sent."""
        at = self._waiting.pop(uniqueid, None)
        if at is not None and len(self.turns):
            self.turns.give()
        return at

    def _over(self, uniqueid: str, *, is_congested: bool) -> None:
        self._left(uniqueid)
        self._unanswered.pop(uniqueid, None)
        found = self._trunk_of.pop(uniqueid, None)
        if found is not None and is_congested:
            name, at = found
            outcomes = self._outcomes.setdefault(name, _Outcomes(self.monotonic()))
            outcomes.congested += at >= outcomes.lowered_at

    def room(self) -> float:
        """Return how many more calls may wait for their channel now; without a governor any number.

        Calls that later ones overtook are lost. They take no room, as those that waited too long.
        """
        if not self.is_on:
            return math.inf
        since = max(self._newest - OVERTAKEN_S, self.monotonic() - self.state.patience_s)
        without_room = 0
        for at in self._waiting.values():  # the oldest first
            if at >= since:
                break
            without_room += 1
        return self.state.at_once - (len(self._waiting) - without_room)

    # --- windows -------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the signals until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.look()

    def look(self) -> None:
        """Judge the windows that are over."""
        if not self.is_on:
            return
        now = self.monotonic()
        if not self.link.ready or self.link.session != self._session:
            self._begin_again(now)
            return
        self._drop_silent(now)
        if is_window_over(now - self._began, sent=self._sent, started=self._started):
            self.state = govern(self.state, self._window(now))
        self._judge_trunks(now)
        self.turns.give()
        self._log_changes(now)

    def _begin_again(self, now: float) -> None:
        """Forget the calls of an earlier link: their events may have been missed."""
        self._session = self.link.session
        for kept in (self._unanswered, self._waiting, self._trunk_of):
            kept.clear()
        # Limited trunks stay in it, so that their limits end even if no call comes.
        self._outcomes = {name: _Outcomes(now) for name, one in self.trunks.items() if one.why}
        self.link.take_ping_times()
        self.state = replace(self.state, slow_windows=0)
        self._begin(now)
        self.turns.give()

    def _begin(self, now: float) -> None:
        self._began, self._sent, self._started, self._silent = now, 0, 0, 0
        self._replies.clear()
        self._channels.clear()

    def _window(self, now: float) -> Window:
        waiting = [at for at in self._waiting.values() if at >= self._newest - OVERTAKEN_S]
        late = [*self._channels, *(now - at for at in waiting)]
        pings = self.link.take_ping_times()
        samples: dict[Signal, float | None] = {
            "ping": p95(pings) if len(pings) >= SLOW_SAMPLES else min(pings, default=None),
            "reply": p95(self._replies),
            "channel": p95(self._channels),
        }
        window = Window(
            length_s=now - self._began,
            sent=self._sent,
            started=self._started,
            waiting=len(waiting),
            silent=self._silent,
            answers={signal: s for signal, s in samples.items() if s is not None},
            late_s=median(late) if len(late) >= SLOW_SAMPLES else 0.0,
            unread=self.link.unread_bytes,
        )
        self._begin(now)
        return window

    def _drop_silent(self, now: float) -> None:
        """Forget calls that got no word for too long, and count them."""
        # In both the oldest is first.
        silent = [*takewhile(lambda i: now - self._waiting[i] > WORD_WITHIN_S, self._waiting)]
        for uniqueid in silent:
            self.refused(uniqueid)
        self._silent += len(silent)
        old = [*takewhile(lambda i: now - self._trunk_of[i][1] > TRUNK_FORGOTTEN_S, self._trunk_of)]
        for uniqueid in old:
            del self._trunk_of[uniqueid]

    def _judge_trunks(self, now: float) -> None:
        for name, seen in [*self._outcomes.items()]:
            if seen.is_over(now):
                before = self.trunks.get(name, TrunkGovernor.of(self.cps))
                trunk = self.trunks[name] = govern_trunk(
                    before,
                    calls=seen.calls,
                    congested=seen.congested,
                    length_s=now - seen.since,
                )
                is_lowered = trunk.limit.allowed < before.limit.allowed
                # Empty, so that a limited trunk is judged again even if no call comes.
                self._outcomes[name] = _Outcomes(now, now if is_lowered else seen.lowered_at)

    # --- what others see -----------------------------------------------------------

    def fact(self, instance: str) -> str:
        """Return the state for the heartbeat of the worker with that `instance`."""
        return json.dumps(
            {
                "limit": round(self.state.leased(len(self.turns)), 3),
                "starts": round(self.state.rate or 0.0, 3),
                "why": self.state.why,
                "answer_ms": round(self.state.answer_s * 1000),
                "normal_ms": round(self.state.normal_s * 1000),
                "trunks": {
                    name: {"limit": round(trunk.limit.allowed, 3), "share": round(trunk.share, 3)}
                    for name, trunk in self.trunks.items()
                    if trunk.why
                },
                "instance": instance,
            }
        )

    def _log_changes(self, now: float) -> None:
        """Log each limit when it begins, and when it is over."""
        limits = {"": self.state} | {name: t for name, t in self.trunks.items() if name}
        for name, one in limits.items():
            was_there = name in self._logged
            if one.why:
                self._logged[name] = now
            elif was_there and now - self._logged[name] >= OVER_AFTER_S:
                del self._logged[name]
            if (name in self._logged) == was_there:
                continue
            extra = {"pbx": self.pbx, "cps": self.cps}
            if isinstance(one, Governor):
                _log_pbx(one, extra | {"limit": round(one.allowed, 1)})
            else:
                _log_trunk(one, extra | {"limit": round(one.limit.allowed, 1), "trunk": name})


def _log_pbx(state: Governor, extra: dict[str, object]) -> None:
    if state.why:
        took, usual = round(state.answer_s * 1000), round(state.normal_s * 1000)
        logger.warning(
            "Asterisk is slow; it gets fewer calls until it is as fast as usual: see the load of "
            "its host, or lower cps",
            extra=extra | {"answer_ms": took, "normal_ms": usual},
        )
    else:
        logger.warning("Asterisk is as fast as usual; cps is the limit again", extra=extra)


def _log_trunk(state: TrunkGovernor, extra: dict[str, object]) -> None:
    if state.why:
        logger.warning(
            "The carrier of a trunk refuses calls for lack of capacity; it gets fewer: ask the "
            "carrier, or spread the calls over other trunks",
            extra=extra | {"share": round(state.share, 2)},
        )
    else:
        logger.warning(
            "The carrier of a trunk takes its calls again; cps is the limit again", extra=extra
        )
