"""Admission of one cell's requests: choose a PBX, lease a slot, admit, publish the task."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dialer.bridge.cell import BridgeCell, nudge
from dialer.bridge.nudges import Nudge
from dialer.bridge.refusals import Candidate, Refusals, expiry
from dialer.domain.room import PbxLimits, Room
from dialer.domain.routing import Turns, plan
from dialer.multcall.request import element_of
from dialer.store.ledger import Admissible, Admission
from dialer.store.ledger.reads import is_of_one_element
from dialer.store.registry import lease_parts

#: After these the request stays in its list, and is tried again.
_STAYS: Final = frozenset({Admission.FULL, Admission.NO_SLOT})


@dataclass(frozen=True, slots=True)
class Admitted:
    """`left` requests have left their lists; `started` is how many became calls, by PBX."""

    left: int
    started: Mapping[str, int]


@dataclass(slots=True)
class Admissions:
    """The admissions of one cell. `refusals` answers requests that the ledger does not admit."""

    cell: BridgeCell
    refusals: Refusals
    _turns: Turns = field(default_factory=Turns)

    async def admit(self, candidates: Sequence[Candidate], room: Room) -> Admitted:
        """Admit as many requests as have room."""
        cell = self.cell
        chosen = plan(
            [cell.trunk(c.request) for c in candidates],
            room.pbxs,
            self._turns,
            at_most=room.to_admit,
        )
        left = 0
        nudges: list[Nudge] = []
        for pbx in cell.pbxs:
            planned = [c for c, name in zip(candidates, chosen, strict=True) if name == pbx.name]
            if planned:
                admissions = await self._admit_on(pbx, planned)
                left += sum(a not in _STAYS for _, a in admissions)
                nudges += [
                    nudge(c.request, pbx.name, 1) for c, a in admissions if a is Admission.ADMITTED
                ]
        order = {c.request.call_id: i for i, c in enumerate(candidates)}
        nudges.sort(key=lambda n: order[n.call_id])
        await cell.dispatcher.publish(nudges)
        return Admitted(left, Counter(n.pbx for n in nudges))

    async def _admit_on(
        self, pbx: PbxLimits, planned: Sequence[Candidate]
    ) -> list[tuple[Candidate, Admission]]:
        """Lease slots of one PBX and admit, in one step if registry and ledger share a server."""
        if not self.cell.is_on_one_server:
            return await self._lease_and_admit(pbx, planned)
        try:
            admissions = await self.cell.ledger.admit_many(
                [self._admissible(c) for c in planned],
                pbx=pbx.name,
                threads=self.cell.threads,
                registry=lease_parts(pbx),
                trunks=[self.cell.trunk(c.request) or pbx.default_trunk for c in planned],
            )
        except Exception as error:
            if not is_of_one_element(error):
                raise
            return await self._lease_and_admit(pbx, planned)  # finds out which one
        await asyncio.gather(*map(self._answer, planned, admissions))
        return list(zip(planned, admissions, strict=True))

    async def _lease_and_admit(
        self, pbx: PbxLimits, planned: Sequence[Candidate]
    ) -> list[tuple[Candidate, Admission]]:
        """Lease slots of one PBX and admit; release unused slots."""
        lease = await self.cell.registry.lease(
            pbx,
            [c.request.call_id for c in planned],
            [self.cell.trunk(c.request) for c in planned],
        )
        granted = planned[: lease.granted]
        answers = await asyncio.gather(*(self._admit_one(pbx.name, c) for c in granted))
        admissions = list(zip(granted, answers, strict=True))
        unused = [c.request.call_id for c, a in admissions if a is not Admission.ADMITTED]
        await self.cell.release_unused(pbx.name, [i for i in unused if i in lease.new])
        return admissions

    async def _admit_one(self, pbx: str, candidate: Candidate) -> Admission:
        """Admit one request. Answer it if it causes an error; `GONE` is returned then."""
        try:
            admission = await self._run_step(pbx, candidate)
        except Exception as error:  # noqa: BLE001  # logged and answered, or raised
            await self.refusals.fail(candidate.element, error)
            return Admission.GONE
        await self._answer(candidate, admission)
        return admission

    async def _run_step(self, pbx: str, candidate: Candidate) -> Admission:
        return await self.cell.ledger.admit(
            self._admissible(candidate), pbx=pbx, threads=self.cell.threads
        )

    async def _answer(self, candidate: Candidate, admission: Admission) -> None:
        """Answer a request that will never be admitted."""
        if admission is Admission.NUMBER_LIMIT:
            await self.refusals.answer(candidate, *self.refusals.number_limit())
        elif admission is Admission.DUPLICATE:
            await self.refusals.bury_repeat(candidate.element, candidate.request.call_id)

    def _admissible(self, candidate: Candidate) -> Admissible:
        element, request = candidate.element, candidate.request
        limits = self.cell.settings.limits
        return Admissible(
            source=element.source,
            raw=element.raw,
            request=request,
            expires_at=expiry(request),
            most_per_number=limits.max_attempts_per_number or 0,
            number_window_s=limits.attempts_window_hours * 3600,
            stored=element.raw if self.cell.wire.is_strict else element_of(request),
        )
