"""Places one call: claims it, sends the Originate, and knows what may be tried again."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from dialer.domain.call import CallError, Ending, Result
from dialer.domain.originate import CARRIER_DIALS_NOTHING, dial_string, variable_line
from dialer.domain.request import CallRequest, cell_of
from dialer.errors import AmiUnavailable, OriginateOutcomeUnknown, OriginateRefused
from dialer.failpoints import failpoint
from dialer.settings import Cell, Pbx
from dialer.store.entry import Entry
from workers.ami import AmiLink
from workers.calls.tracker import Followed, Tracker
from workers.pbx.targets import Targets
from workers.recovery.reconcile import Reconciler

logger = logging.getLogger(__name__)

#: Pause after Asterisk refused an Originate, in seconds.
RETRY_PAUSE_S: Final = 0.5

#: Longest wait until it is written that Asterisk took a call, or that it is given back, in seconds.
WRITTEN_WITHIN_S: Final = 1.0

#: A process that was stopped this long between claim and Originate does not send it: others may
#: have given the call up meanwhile. In seconds.
STALE_CLAIM_S: Final = 10.0


@dataclass(slots=True)
class Originator:
    """Places calls on one PBX. Belongs to the worker's event loop."""

    pbx: Pbx
    link: AmiLink
    tracker: Tracker
    reconciler: Reconciler
    targets: Targets

    async def place(self, call_id: str, epoch: int) -> None:
        """Places the call, if it is still this PBX's to place; returns when Asterisk has it.

        A task that is void, late or a repeat ends quietly.
        """
        cell = self.tracker.cells.get(cell_of(call_id))
        if cell is None or not self.link.ready or cell.name in self.targets.lacking:
            return  # it stays queued: the bridge sends it again, here or elsewhere
        token = secrets.token_hex(8)
        began = time.monotonic()
        entry = await self.tracker.ledgers[cell.name].claim(
            call_id,
            pbx=self.pbx.name,
            epoch=epoch,
            at=datetime.now(UTC),
            boot=self.reconciler.boot,
            token=token,
        )
        if entry is None:
            logger.info("Void task", extra={"call_id": call_id, "epoch": epoch})
            return
        if self.reconciler.reminder.recall(entry, token):  # a failed-over Redis forgot the claim
            logger.error("Call claimed twice, dialed once", extra={"call_id": call_id})
            return
        followed = self.tracker.follow(entry)
        followed.token = token
        if not self._may_dial(entry, cell, followed):
            return
        if time.monotonic() - began > STALE_CLAIM_S or not cell.limits.is_open(datetime.now(UTC)):
            await self._give_back(followed)
            return
        await self._dial(followed, cell)

    def _may_dial(self, entry: Entry, cell: Cell, followed: Followed) -> bool:
        """False where it must not be dialed; then it has its Response, and nobody was rung."""
        trunk = entry.request.trunk or cell.trunk
        pbx = self.pbx
        result = Result.FAILED
        if entry.expires_at is not None and entry.expires_at <= datetime.now(UTC):
            result, code = Result.EXPIRED, "expired"
            message = "ValidadeSeg passed before it was dialed"
        elif trunk is not None and trunk not in pbx.trunks:
            code = "no_trunk"
            message = f"{pbx.name} has no trunk {trunk!r}: add it to its trunks in dialer.toml"
        elif refusal := cell.allowed.refusal(entry.request):
            code, message = "not_allowed", refusal.sentence
        else:
            return True
        followed.call = replace(followed.call, dialed_at=None, attempts=0)
        self._fail(followed, result, code, message)
        return False

    async def _dial(self, followed: Followed, cell: Cell) -> None:
        call_id = followed.call.call_id
        fields = self._fields(followed.request, cell)
        refusal = ""
        for attempt in range(1, cell.retries + 2):
            followed.attempts = attempt
            followed.call = replace(followed.call, attempts=attempt)
            try:
                failpoint("originate.before")
                followed.sent = True
                await self.link.originate(
                    fields,
                    action_id=f"{call_id}#{attempt}",
                    within_s=cell.timeout_command_response,
                )
            except ValueError as error:
                message = f"the request cannot be said over AMI: {error}"
                self._fail(followed, Result.FAILED, "not_sendable", message)
                return
            except AmiUnavailable:
                followed.sent = False
                await self._give_back(followed)
                return
            except OriginateRefused as error:
                refusal = str(error)
                followed.sent = False
                await asyncio.sleep(RETRY_PAUSE_S)
            except OriginateOutcomeUnknown as error:
                logger.warning(
                    "No word on an Originate; Asterisk will be asked",
                    extra={"call_id": call_id, "reason": str(error)},
                )
                await self._ask(followed)
                return
            else:
                failpoint("originate.after")
                if self.tracker.calls.get(call_id) is followed and not followed.accepted:
                    # It goes on by itself where Redis refuses it: this thread is for other calls.
                    await asyncio.wait({self.tracker.accept(followed)}, timeout=WRITTEN_WITHIN_S)
                return
        self._fail(followed, Result.FAILED, "originate_refused", f"Asterisk refused it: {refusal}")

    async def _ask(self, followed: Followed) -> None:
        """Asks now where the link holds; else the reconciliation at its return does."""
        if self.link.ready:
            self.tracker.writes.keep(asyncio.create_task(self.reconciler.ask(followed)))

    async def _give_back(self, followed: Followed) -> None:
        """Returns a call of which nothing was sent; the bridge finds it another PBX."""
        call_id, cell = followed.call.call_id, followed.request.cell
        self.tracker.calls.pop(call_id, None)
        ledger = self.tracker.ledgers[cell]

        async def give_back() -> None:
            # The slot first: once unclaimed, the call may hold a new one here at once.
            await self.tracker.registry.release(self.pbx.name, [call_id])
            await ledger.unclaim(call_id, pbx=self.pbx.name, token=followed.token)

        await asyncio.wait(
            {self.tracker.writes.write(cell, "unclaim", give_back)}, timeout=WRITTEN_WITHIN_S
        )

    def _fail(self, followed: Followed, result: Result, code: str, message: str) -> None:
        error = CallError(code=code, message=message)
        self.tracker.end(followed, Ending(result=result, ended_at=datetime.now(UTC), error=error))

    def _fields(self, request: CallRequest, cell: Cell) -> dict[str, str | list[str]]:
        """The headers of the Originate."""
        trunk = request.trunk or cell.trunk or next(iter(self.pbx.trunks))
        target = {
            "CONTEXT": request.context or cell.context,
            "EXTEN": request.exten or cell.exten,
            "PRIORITY": str(request.priority or cell.priority),
        }
        given = (*request.variables, *CARRIER_DIALS_NOTHING)
        variables = [variable_line(name, value) for name, value in given]
        if self.reconciler.has_include:
            orders = target | _orders(request, cell)
            variables += [variable_line(f"DIALER_{name}", value) for name, value in orders.items()]
            target = {"CONTEXT": "dialer-enter", "EXTEN": "s", "PRIORITY": "1"}
        fields: dict[str, str | list[str]] = {
            "Channel": dial_string(self.pbx.trunks[trunk], request.number),
            "ChannelId": request.call_id,
            "Context": target["CONTEXT"],
            "Exten": target["EXTEN"],
            "Priority": target["PRIORITY"],
            "Timeout": str((request.ring_timeout_s or cell.ring_timeout) * 1000),
            "Variable": variables,
        }
        if request.caller_id is not None:
            fields["CallerID"] = request.caller_id
        return fields


def _orders(request: CallRequest, cell: Cell) -> dict[str, str]:
    """What the dialplan include is to do with the answered call, but for its context."""
    orders: dict[str, str] = {}
    if cell.amd != "off":
        orders["AMD"] = cell.amd
    if cell.amd_message is not None:
        orders["AMD_MESSAGE"] = cell.amd_message
    if cell.queue is not None and request.context is None:
        orders |= {"QUEUE": cell.queue, "QUEUE_TIMEOUT": str(cell.queue_timeout)}
    return orders
