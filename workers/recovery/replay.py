"""Replay lost writes to a ledger after a Redis failover: claims, ACKs, answers and ends.

A replica that replaces its master, or a server that starts again from its file, may lack the last
writes. The calls were dialed all the same, so these writes are sent again. Every step may be
repeated, so this is harmless if nothing was lost.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from dialer.domain.call import Call, Ending, State
from dialer.domain.follow_events import LedgerRead
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting, WorkerLedger
from workers.calls.calls import Calls
from workers.calls.tracker import Tracker

logger = logging.getLogger(__name__)

_WAITING: Final = frozenset({State.ADMITTED, State.QUEUED})


@dataclass(slots=True)
class Replay:
    """Replayer of lost writes. Belongs to the worker's event loop. `pbx` is its PBX's name."""

    pbx: str
    calls: Calls
    tracker: Tracker

    async def replay(self, ledger: WorkerLedger) -> None:
        """Compare a cell's ledger with the followed and remembered calls; resend what it lacks."""
        for entry in await ledger.entries(self.calls.of_cell(ledger.cell)):
            if entry.call.state in _WAITING:
                await self._claim_again(ledger, entry.call)
            elif entry.call.pbx == self.pbx:
                self.resend(entry)

    async def _claim_again(self, ledger: WorkerLedger, call: Call) -> None:
        """Claim again a call that was claimed here, before another worker dials it."""
        followed = self.calls.get(call.call_id)
        if followed is None and self.calls.remembered.get(call.call_id) is None:
            return  # given back in the meantime
        epoch = call.epoch
        if call.state is not State.QUEUED or call.pbx != self.pbx:
            waiting = Waiting(
                call_id=call.call_id, state=call.state, epoch=call.epoch, pbx=call.pbx
            )
            epoch = await ledger.assign(waiting, self.pbx)
        token = secrets.token_hex(8)
        entry = await ledger.claim(
            call.call_id,
            pbx=self.pbx,
            epoch=epoch,
            at=self._dialed_at(call.call_id) or self.tracker.state.clock.now(),
            boot=followed.boot if followed else "",
            token=token,
        )
        if entry is not None:
            self.resend(entry, token)

    def _dialed_at(self, call_id: str) -> datetime | None:
        followed = self.calls.get(call_id)
        if followed is not None:
            return followed.call.dialed_at
        over = self.calls.remembered.get(call_id)
        return over[0].dialed_at if over else None

    def resend(self, entry: Entry, token: str | None = None) -> bool:
        """Resend the writes that the ledger lacks of a claimed call; `token`: of a new claim.

        Return false if the call is not followed or remembered here.
        """
        call_id = entry.call.call_id
        followed = self.calls.get(call_id)
        if followed is not None:
            epoch, state = entry.call.epoch, entry.call.state
            if self.tracker.feed(call_id, LedgerRead(state=state, epoch=epoch, token=token)):
                _log_resent(entry, followed.call.state)
            return True
        over = self.calls.remembered.get(call_id)
        if over is None:
            return False
        if entry.call.state not in (State.ENDED, State.DONE):
            self._resend_end(*over, entry)
        return True

    def _resend_end(self, call: Call, ending: Ending, entry: Entry) -> None:
        _log_resent(entry, State.ENDED)
        call = replace(call, epoch=entry.call.epoch, pbx=self.pbx)
        self.tracker.write_end(call, entry.request, ending)


def _log_resent(entry: Entry, state: State) -> None:
    logger.warning(
        "Ledger was behind; call state resent",
        extra={"call_id": entry.call.call_id, "ledger": entry.call.state, "here": state},
    )
