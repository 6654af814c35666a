"""Judge the PBXs of one cell by their results, and follow the trial calls of those held back.

Any bridge may judge; the registry keeps one verdict on each PBX for all of them. The rules are
in `dialer.domain.taking`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dialer.bridge.cell import BridgeCell
from dialer.domain.request import cell_of
from dialer.domain.taking import CLAIM_WITHIN_S, Verdict, is_unusual, unclaimed_reason
from dialer.store.registry import PbxState

logger = logging.getLogger(__name__)

#: If this bridge did not look for so long, it was stopped, or a Redis was down. In seconds.
LOOK_WITHIN_S: Final = 3.0


@dataclass(slots=True)
class Judge:
    """The judge of one cell's PBXs.

    `_ready_since` is since when (loop time) this bridge has seen each PBX ready without a gap;
    `_up` the trial calls that Asterisk accepted, with the loop time at which that was seen.
    """

    cell: BridgeCell
    _ready_since: dict[str, float] = field(default_factory=dict)
    _looked_at: float = 0.0
    _up: dict[str, float] = field(default_factory=dict)

    async def look(self, states: Mapping[str, PbxState]) -> None:
        """Judge each PBX by its results of the last minute; follow its trial call."""
        self._note_ready(states)
        if self._is_paused:
            return  # its calls wait on purpose, its trial call too
        for name, state in states.items():
            if state.verdict is not None:
                await self._follow_trial(name, state.verdict)
            elif state.load.ready and is_unusual(fresh := state.results.since(state.lifted)):
                await self._condemn(state, fresh.in_words())

    async def judge_unclaimed(self, states: Mapping[str, PbxState], pbxs: Iterable[str]) -> None:
        """Judge PBXs that left calls unclaimed; `pbxs` has the PBX of each of those calls.

        A PBX that this bridge has not seen ready all that time is not judged: it, the bridge or a
        Redis was away. Nor is one that its governor limits: its calls wait for their turn there.
        """
        late = list(pbxs)
        now = asyncio.get_running_loop().time()
        for name in dict.fromkeys(late):
            ready_s = now - self._ready_since.get(name, now)
            state = states[name]
            is_limited = state.governed.rate > 0
            if ready_s >= CLAIM_WITHIN_S and state.load.is_taking_calls and not is_limited:
                await self._condemn(state, unclaimed_reason(late.count(name)))

    async def try_with_queued(self, states: Mapping[str, PbxState]) -> None:
        """Try PBXs with calls that are queued to them and have nowhere else to go."""
        if self._is_paused:
            return
        due = [n for n, s in states.items() if s.load.is_held and s.load.is_trial_due]
        if not due or any(s.load.is_taking_calls and s.load.room for s in states.values()):
            return
        waiting = await self.cell.ledger.first_queued(due)
        for name, call_id in waiting.items():
            await self.cell.registry.try_with(name, call_id)

    @property
    def _is_paused(self) -> bool:
        """True if no PBX claims the cell's calls now."""
        return self.cell.is_paused(self.cell.clock.now())

    def _note_ready(self, states: Mapping[str, PbxState]) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > LOOK_WITHIN_S or self._is_paused:
            self._ready_since.clear()
        self._looked_at = now
        for name, state in states.items():
            if state.load.ready:
                self._ready_since.setdefault(name, now)
            else:
                self._ready_since.pop(name, None)

    async def _condemn(self, state: PbxState, reason: str) -> None:
        if await self.cell.registry.condemn(state, reason):
            logger.error(
                "PBX takes no calls although its worker says it is ready; its calls go to other "
                "PBXs, and single calls try it",
                extra={"pbx": state.load.name, "reason": reason},
            )

    async def _follow_trial(self, pbx: str, verdict: Verdict) -> None:
        """Record how the trial call of a PBX went, if it is a call of this cell."""
        call_id, now = verdict.trial, asyncio.get_running_loop().time()
        if not call_id or cell_of(call_id) != self.cell.name:
            return
        trial = await self.cell.ledger.trial(call_id)
        if trial.is_up:
            self._up.setdefault(call_id, now)
        up_s = now - self._up.get(call_id, now)
        trial = replace(trial, waited_s=verdict.trial_age_s, up_s=up_s)
        success = trial.is_success(pbx)
        if success is None:
            return
        self._up.pop(call_id, None)
        if not await self.cell.registry.tried(pbx, call_id, success=success):
            return
        extra = {"pbx": pbx, "call_id": call_id, "failed_trials": verdict.trials}
        if success:
            logger.warning("Trial call succeeded; its PBX takes calls again", extra=extra)
        else:
            logger.warning("Trial call failed; another one follows", extra=extra)
