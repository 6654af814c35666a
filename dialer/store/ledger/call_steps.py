"""The steps of one call that the bridge and the worker both take.

Each method is one Lua step (`lua/`). The states a step may start from come from the
domain's table, so this module decides nothing. Every step may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dialer.domain import call as domain
from dialer.domain.call import LEGAL, Ending, State
from dialer.domain.request import CallRequest
from dialer.multcall.answers import response_parts
from dialer.store.keys import DONE_RETENTION_S
from dialer.store.ledger.reads import LedgerReads


def legal(event: type[domain.Event], within: Collection[State] = frozenset(State)) -> str:
    """The states in which `event` is legal, each between blanks, as the Lua steps take them."""
    return " " + " ".join(sorted(LEGAL[event] & set(within))) + " "


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A call that no worker has claimed. `pbx` is None where it waits for one."""

    call_id: str
    state: State
    epoch: int
    pbx: str | None


class CallSteps(LedgerReads):
    """The steps of a call that either side may take."""

    __slots__ = ()

    async def assign(self, waiting: Waiting, pbx: str) -> int:
        """Queues a waiting call to `pbx`; returns its epoch, 0 where it went on meanwhile."""
        epoch = await self.steps.run(
            "assign",
            [self.keys.call(waiting.call_id), self.keys.queued],
            [waiting.call_id, legal(domain.Queued), waiting.epoch, pbx],
        )
        return int(epoch)

    async def end(
        self,
        call: domain.Call,
        request: CallRequest,
        ending: Ending,
        *,
        within: Collection[State] = frozenset(State),
    ) -> str:
        """Ends a call: `done` (the Response went out), `ended` (with its code) or `void`.

        `within` are the states in which the caller's reason to end it still holds.
        """
        keys, wire = self.keys, self.wire
        parts = response_parts(
            request=request,
            pbx=call.pbx,
            uniqueid=call.uniqueid,
            attempts=call.attempts,
            dialed_at=call.dialed_at,
            answered_at=call.answered_at or ending.answered_at,
            ending=ending,
        )
        reply = await self.steps.run(
            "end",
            [
                keys.call(call.call_id),
                keys.live,
                keys.queued,
                keys.claimed(call.pbx or ""),
                wire.counter,
                wire.response,
            ],
            [
                call.call_id,
                legal(domain.Ended, within),
                call.epoch,
                parts.head,
                parts.tail,
                ending.result,
                self._push,
                DONE_RETENTION_S,
            ],
        )
        return str(reply.decode())
