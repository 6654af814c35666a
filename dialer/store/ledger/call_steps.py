"""The steps of a call that both the bridge and the worker run.

Each method runs one Lua step of `lua/`. The legal states of each step come from `LEGAL` of
the domain. Every step may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from dialer.domain import call as domain
from dialer.domain.call import LEGAL, Ending, State
from dialer.domain.request import CallRequest
from dialer.multcall.answers import response_parts
from dialer.store.keys import DONE_RETENTION_S
from dialer.store.ledger.reads import LedgerReads
from dialer.store.steps import Arg

_ALL: Final = frozenset(State)


@cache
def legal(event: type[domain.Event], within: frozenset[State] = _ALL) -> str:
    """Return the states of `within` in which `event` is legal, each between blanks, for Lua."""
    return " " + " ".join(sorted(LEGAL[event] & within)) + " "


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A call that no worker has claimed. `pbx` is None if no PBX is assigned."""

    call_id: str
    state: State
    epoch: int
    pbx: str | None


class CallSteps(LedgerReads):
    """Steps for the bridge and the worker."""

    __slots__ = ()

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a step that changes a call."""
        return await self.steps.run(name, keys, args)

    async def assign(self, waiting: Waiting, pbx: str) -> int:
        """Queue a waiting call to `pbx`. Return its new epoch, 0 if the call has changed."""
        epoch = await self._run(
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
        within: Collection[State] = _ALL,
    ) -> str:
        """End a call, if it is in one of the states `within` and still in the epoch of `call`.

        Returns `done` (its Response was sent), `ended` (the Response follows with the call's code)
        or `void` (the call was not ended).
        """
        return await self._end("end", [], call, request, ending, within)

    async def _end(
        self,
        step: str,
        more_keys: Sequence[str],
        call: domain.Call,
        request: CallRequest,
        ending: Ending,
        within: Collection[State] = _ALL,
    ) -> str:
        keys, wire = self.keys, self.wire
        parts = response_parts(
            request=request,
            pbx=call.pbx,
            uniqueid=call.uniqueid,
            attempts=call.attempts,
            dialed_at=call.dialed_at,
            answered_at=call.answered_at or ending.answered_at,
            ending=ending,
            fields=self.fields,
        )
        reply = await self._run(
            step,
            [
                keys.call(call.call_id),
                keys.live,
                keys.queued,
                keys.claimed(call.pbx or ""),
                wire.counter,
                wire.response,
                *more_keys,
            ],
            [
                call.call_id,
                legal(domain.Ended, frozenset(within)),
                call.epoch,
                parts.head,
                parts.tail,
                ending.result,
                self._push,
                DONE_RETENTION_S,
                ending.error.code if ending.error else "",
            ],
        )
        return str(reply.decode())
