"""The worker's steps: claim, give back, accept, answer."""

from __future__ import annotations

from datetime import datetime

from dialer.domain import call as domain
from dialer.domain.request import CallRequest
from dialer.multcall.answers import ack
from dialer.store.entry import Entry, pairs, to_ms
from dialer.store.ledger.call_steps import CallSteps, legal


class WorkerLedger(CallSteps):
    """One cell's ledger as a worker changes it."""

    __slots__ = ()

    async def claim(
        self, call_id: str, *, pbx: str, epoch: int, at: datetime, boot: str, token: str
    ) -> Entry | None:
        """Takes the call for this worker; None where the task is void."""
        keys = self.keys
        flat = await self.steps.run(
            "claim",
            [keys.call(call_id), keys.queued, keys.claimed(pbx)],
            [call_id, legal(domain.Claimed), pbx, epoch, to_ms(at), boot, token],
        )
        return Entry.from_hash(call_id, pairs(flat)) if flat else None

    async def unclaim(self, call_id: str, *, pbx: str, token: str) -> bool:
        """Gives a claimed call back; only where nothing was sent to Asterisk."""
        keys = self.keys
        reply = await self.steps.run(
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
        """Notes that Asterisk took the call, and sends the ACK. False where the call is over."""
        keys, wire = self.keys, self.wire
        reply = await self.steps.run(
            "accept",
            [keys.call(request.call_id), keys.awaiting, wire.counter_ack, wire.ack],
            [
                request.call_id,
                legal(domain.Accepted),
                ack(request=request, pbx=pbx, uniqueid=uniqueid, at=at),
                self._push,
                to_ms(at),
                uniqueid,
                attempts,
                int(code_wait_s * 1000),
            ],
        )
        return bool(reply != b"refused")

    async def answer(self, call_id: str, *, at: datetime) -> bool:
        """Notes that the customer answered."""
        reply = await self.steps.run(
            "answer", [self.keys.call(call_id)], [legal(domain.Answered), to_ms(at)]
        )
        return bool(reply)
