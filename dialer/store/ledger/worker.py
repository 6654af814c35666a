"""The worker's steps: claim, unclaim, accept, answer, end with release of the slot.

All of them, and `end`, can be fenced.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from redis.exceptions import ResponseError

from dialer.domain import call as domain
from dialer.domain.call import Ending
from dialer.domain.request import CallRequest
from dialer.multcall.answers import ack
from dialer.store.entry import Entry, pairs, to_ms
from dialer.store.keys import IDLE_RETENTION_S, slots
from dialer.store.keys import pbx as pbx_key
from dialer.store.ledger.call_steps import CallSteps, legal
from dialer.store.ledger.fence import Fence, fenced_by
from dialer.store.ledger.reads import is_of_one_element, names_in
from dialer.store.steps import Arg

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerLedger(CallSteps):
    """One cell's ledger, with the steps of a worker. A fenced worker writes nothing.

    Every step raises `Fenced` if a newer worker of the PBX has taken over.
    """

    fence: Fence = field(default_factory=Fence)

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        fence = self.fence
        while True:
            number = fence.number or ""
            try:
                return await self.steps.run(
                    name,
                    [*keys, self.keys.fence(fence.pbx)],
                    [*args, number, IDLE_RETENTION_S],
                )
            except ResponseError as error:
                if (newest := fenced_by(error)) is None:
                    raise
                await fence.on_fenced(newest)

    async def fence_off(self) -> None:
        """Fence older workers of the PBX; call it before the claimed calls are read."""
        await self._run("fence", [], [])

    async def claim(
        self, call_id: str, *, pbx: str, epoch: int, at: datetime, boot: str, token: str
    ) -> Entry | None:
        """Claim the call for this worker. Return None if its task is void.

        A repeat with the same `token` succeeds again. A call whose entry cannot be read is given
        back; the bridge ends it.
        """
        keys = self.keys
        flat = await self._run(
            "claim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, legal(domain.Claimed), pbx, epoch, to_ms(at), boot, token],
        )
        try:
            return Entry.from_hash(call_id, pairs(flat)) if flat else None
        except Exception as error:
            if not is_of_one_element(error):
                raise
            logger.exception(
                "A queued call cannot be read; it is given back", extra={"call_id": call_id}
            )
            await self.unclaim(call_id, pbx=pbx, token=token)
            return None

    async def claimed(self, pbx: str) -> list[Entry]:
        """Return the calls claimed by this PBX's worker that have not ended and can be read."""
        ids = names_in(await self.steps.read("SMEMBERS", self.keys.claimed(pbx)))
        try:
            return await self.entries(ids)
        except Exception as error:
            if not is_of_one_element(error):
                raise
        return [entry for one in ids for entry in await self._readable(one)]

    async def _readable(self, call_id: str) -> list[Entry]:
        try:
            return await self.entries([call_id])
        except Exception as error:
            if not is_of_one_element(error):
                raise
            logger.exception(
                "A claimed call cannot be read; it is left alone", extra={"call_id": call_id}
            )
            return []

    async def unclaim(self, call_id: str, *, pbx: str, token: str) -> bool:
        """Give a claimed call back; only if nothing of it was sent to Asterisk.

        Return false if it is not claimed with this `token`.
        """
        keys = self.keys
        reply = await self._run(
            "unclaim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, legal(domain.Unclaimed), token],
        )
        return bool(reply)

    async def accept(
        self,
        request: CallRequest,
        *,
        pbx: str,
        uniqueid: str,
        attempts: int,
        at: datetime,
        code_wait_s: float,
    ) -> bool:
        """Record that Asterisk accepted the Originate, and send the ACK.

        Return false if the call is over.
        """
        keys, wire = self.keys, self.wire
        reply = await self._run(
            "accept",
            [keys.call(request.call_id), keys.awaiting, wire.counter_ack, wire.ack],
            [
                request.call_id,
                legal(domain.Accepted),
                ack(request=request, pbx=pbx, uniqueid=uniqueid, at=at, fields=self.fields),
                self._push,
                to_ms(at),
                uniqueid,
                attempts,
                int(code_wait_s * 1000),
            ],
        )
        return bool(reply != b"refused")

    async def answer(self, call_id: str, *, at: datetime) -> bool:
        """Record that the customer answered. Return false if that is not legal now."""
        reply = await self._run(
            "answer", [self.keys.call(call_id)], [legal(domain.Answered), to_ms(at)]
        )
        return bool(reply)

    async def end_release(self, call: domain.Call, request: CallRequest, ending: Ending) -> str:
        """End a call as `end` does and release its slot, in one step.

        Only if the registry is on the same server as this ledger.
        """
        pbx = self.fence.pbx
        return await self._end("end_release", [slots(pbx), pbx_key(pbx)], call, request, ending)
