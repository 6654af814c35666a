"""Tells a ledger that came back what it forgot: claims, ACKs, answers and ends of our calls.

A replica that took its master's place, or a server started again from its file, is the ledger
as it stood a moment ago. What was done since then in Asterisk cannot be undone, so the ledger
is told again; every step may be repeated, so nothing is harmed where it had forgotten nothing.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dialer.domain.call import Call, Ending, State
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting, WorkerLedger
from workers.calls.tracker import Followed, Tracker

logger = logging.getLogger(__name__)

_WAITING = frozenset({State.ADMITTED, State.QUEUED})


@dataclass(slots=True)
class Reminder:
    """Belongs to the worker's event loop."""

    tracker: Tracker

    async def remind(self, ledger: WorkerLedger) -> None:
        """Holds a cell's ledger against the calls that are up here and those that ended last."""
        tracker = self.tracker
        up = [call_id for call_id, f in tracker.calls.items() if f.request.cell == ledger.cell]
        ended = tracker.remembered.recent(ledger.cell)
        for entry in await ledger.entries([*up, *ended]):
            if entry.call.state in _WAITING:
                await self._take_back(ledger, entry.call)
            elif entry.call.pbx == tracker.pbx:
                self.recall(entry)

    async def _take_back(self, ledger: WorkerLedger, call: Call) -> None:
        """Claims a call again that was claimed here, before anybody else dials it."""
        pbx, epoch = self.tracker.pbx, call.epoch
        if call.state is not State.QUEUED or call.pbx != pbx:
            waiting = Waiting(
                call_id=call.call_id, state=call.state, epoch=call.epoch, pbx=call.pbx
            )
            epoch = await ledger.assign(waiting, pbx)
        token = secrets.token_hex(8)
        up, over = self.tracker.calls.get(call.call_id), self.tracker.remembered.get(call.call_id)
        dialed_at = up.call.dialed_at if up else over[0].dialed_at if over else None
        entry = await ledger.claim(
            call.call_id,
            pbx=pbx,
            epoch=epoch,
            at=dialed_at or datetime.now(UTC),
            boot=up.boot if up else "",
            token=token,
        )
        if entry is not None:
            self.recall(entry, token)

    def recall(self, entry: Entry, token: str | None = None) -> bool:
        """Tells the ledger what it lacks of a call that is claimed there, with that `token`.

        Returns false where nothing is known of the call here.
        """
        call_id = entry.call.call_id
        followed = self.tracker.calls.get(call_id)
        if followed is not None:
            followed.token = token or followed.token
            self._tell_up(followed, entry)
            return True
        over = self.tracker.remembered.get(call_id)
        if over is None:
            return False
        if entry.call.state not in (State.ENDED, State.DONE):
            self._tell_over(*over, entry)
        return True

    def _tell_up(self, followed: Followed, entry: Entry) -> None:
        followed.call = replace(followed.call, epoch=entry.call.epoch)
        if not followed.accepted or entry.call.state is followed.call.state:
            return
        _say(entry, followed.call.state)
        if entry.call.state is State.ORIGINATING:
            self.tracker.write_accepted(followed)
        if followed.call.state is State.ANSWERED and followed.call.answered_at is not None:
            self.tracker.write_answered(followed, followed.call.answered_at)

    def _tell_over(self, call: Call, ending: Ending, entry: Entry) -> None:
        _say(entry, State.ENDED)
        call = replace(call, epoch=entry.call.epoch, pbx=self.tracker.pbx)
        self.tracker.write_ended(call, entry.request, ending)


def _say(entry: Entry, state: State) -> None:
    logger.warning(
        "The ledger had not heard of a call's course, and is told again",
        extra={"call_id": entry.call.call_id, "ledger": entry.call.state, "here": state},
    )
