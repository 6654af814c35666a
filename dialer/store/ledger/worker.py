"""The worker's steps: claim, unclaim, accept, answer. All of them, and `end`, can be fenced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from redis.exceptions import ResponseError

from dialer.domain import call as domain
from dialer.domain.request import CallRequest
from dialer.multcall.answers import ack
from dialer.store.entry import Entry, pairs, to_ms
from dialer.store.keys import IDLE_RETENTION_S
from dialer.store.ledger.call_steps import CallSteps, legal
from dialer.store.ledger.fence import Fence, fenced_by
from dialer.store.steps import Arg


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

        A repeat with the same `token` succeeds again.
        """
        keys = self.keys
        flat = await self._run(
            "claim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, legal(domain.Claimed), pbx, epoch, to_ms(at), boot, token],
        )
        return Entry.from_hash(call_id, pairs(flat)) if flat else None

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
