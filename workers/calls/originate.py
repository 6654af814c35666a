"""Dial one call: claim it, send the Originate, retry only if nothing was dialed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

from dialer.domain.call import CallError, Result
from dialer.domain.channel import action_id, channel_id
from dialer.domain.endings import HUNG_UP, HUNG_UP_WORDS, REVOKED
from dialer.domain.follow_events import (
    GivenUp,
    OriginateAccepted,
    OriginateNotSent,
    OriginateSent,
    OriginateUnclear,
)
from dialer.domain.followed import Followed
from dialer.domain.originate import (
    CALL_ID_VARIABLE,
    CARRIER_DIALS_NOTHING,
    dial_string,
    variable_line,
)
from dialer.domain.request import CallRequest, cell_of
from dialer.errors import (
    BETWEEN_PROBLEMS,
    AmiUnavailable,
    OriginateOutcomeUnknown,
    OriginateRefused,
)
from dialer.failpoints import failpoint
from dialer.settings import Cell, Pbx
from dialer.store.entry import Entry
from workers.ami import AmiLink
from workers.calls.calls import Calls
from workers.calls.cells import Cells
from workers.calls.journal import Journal
from workers.calls.tracker import Tracker
from workers.pbx.governor import PbxGovernor
from workers.pbx.questions import Questions
from workers.pbx.state import PbxState
from workers.recovery.replay import Replay

logger = logging.getLogger(__name__)

#: Pause after Asterisk refused an Originate, in seconds.
RETRY_PAUSE_S: Final = 0.5

#: A place of the dialplan that was found is not asked for again for this long, in seconds.
PLACE_KNOWN_S: Final = 10.0

#: Bridge and worker may use other live parameters for so long after a change, in seconds.
CHANGING_FOR_S: Final = 3.0

#: If a process was stopped this long between claim and Originate, it does not send the Originate,
#: because the bridge may have ended the call in the meantime. In seconds.
STALE_CLAIM_S: Final = 10.0


async def _nothing() -> None:
    pass


@dataclass(slots=True)
class Originator:
    """Dialer of calls on one PBX. Belongs to the worker's event loop.

    `monotonic` returns seconds of a monotonic clock. `is_revoked` tells if somebody revoked a call.
    `refresh` reads the live parameters now.
    """

    pbx: Pbx
    state: PbxState
    link: AmiLink
    cells: Cells
    calls: Calls
    tracker: Tracker
    replay: Replay
    journal: Journal
    governor: PbxGovernor
    retry_pause_s: float = RETRY_PAUSE_S
    monotonic: Callable[[], float] = time.monotonic
    is_revoked: Callable[[str], bool] = frozenset[str]().__contains__
    refresh: Callable[[], Awaitable[None]] = _nothing
    #: When each place that a request named was last found in the dialplan, by `monotonic`.
    _places: dict[tuple[str, str, int], float] = field(default_factory=dict)

    async def dial(self, call_id: str, epoch: int) -> None:
        """Dial the call if it is still queued to this PBX; return when Asterisk has replied.

        Do nothing for a void, late or repeated task.

        Raises:
            RedisError: the cell's Redis refused the claim; the call stays queued.
        """
        cell = self.cells.get(cell_of(call_id))
        if cell is None or self.state.reason_not_to_claim(cell.name) is not None:
            return  # it stays queued, and the bridge publishes or moves it
        turns, key = self.governor.turns, (call_id, epoch)
        if not await turns.take(key):  # wait before the claim: the call may expire or move
            return
        try:
            cell = self.cells.get(cell.name) or cell  # live parameters may have changed it
            checked = await self._claim_and_check(cell, call_id, epoch)
        finally:
            turns.end(key)
        if checked is not None:
            await self._originate(*checked)

    async def _claim_and_check(
        self, cell: Cell, call_id: str, epoch: int
    ) -> tuple[Followed, Cell] | None:
        """Claim the call; return it, with the settings of its cell, if it is to be dialed now."""
        if self.state.reason_not_to_claim(cell.name) is not None:
            return None
        began = self.monotonic()
        with self.calls.claiming(call_id):
            followed, expires_at = await self._claim(cell, call_id, epoch)
        if followed is None:
            return None
        if self._lacks_trunk_of_cell(followed.request, cell):
            # The bridge may know other live parameters, or have known others when it chose.
            await self.refresh()
            cell = self.cells.get(cell.name) or cell
            if self._lacks_trunk_of_cell(followed.request, cell) and self._is_changing:
                self._give_back(followed)
                return None
        if (failure := self._reason_never_to_dial(followed.request, cell, expires_at)) is not None:
            self.tracker.feed(call_id, failure)
        elif not await self._has_place(followed.request, cell):
            self.tracker.feed(call_id, self._no_place(followed.request, cell))
        elif self._must_give_back(cell, followed, claimed_s=self.monotonic() - began):
            self._give_back(followed)
        else:
            return followed, cell
        return None

    async def _claim(
        self, cell: Cell, call_id: str, epoch: int
    ) -> tuple[Followed | None, datetime | None]:
        """Claim the call and follow it; return it with the time when it expires."""
        token = secrets.token_hex(8)
        entry: Entry | None = await self.cells.ledger(cell.name).claim(
            call_id,
            pbx=self.pbx.name,
            epoch=epoch,
            at=self.state.clock.now(),
            boot=self.state.boot,
            token=token,
        )
        if entry is None:
            logger.info("Void task", extra={"call_id": call_id, "epoch": epoch})
            return None, None
        if self.replay.resend(entry, token):  # a failed-over Redis forgot the claim
            logger.error("Call claimed twice, dialed once", extra={"call_id": call_id})
            return None, None
        self.state.results.count("claimed")
        return self.tracker.follow(entry, token), entry.expires_at

    def _lacks_trunk_of_cell(self, request: CallRequest, cell: Cell) -> bool:
        """True if the call needs a trunk that its cell names, and this PBX does not have."""
        return request.trunk is None and cell.trunk not in (None, *self.pbx.trunks)

    @property
    def _is_changing(self) -> bool:
        """True if live parameters changed a moment ago: bridge and worker may differ."""
        return self.monotonic() - self.state.changed_at < CHANGING_FOR_S

    def _reason_never_to_dial(
        self, request: CallRequest, cell: Cell, expires_at: datetime | None
    ) -> GivenUp | None:
        """Return why the call must never be dialed, None if it may be dialed."""
        trunk, fields = request.trunk or cell.trunk, self.cells.ledger(cell.name).fields
        if self.is_revoked(request.call_id):
            message = "somebody revoked the call before it was dialed (celery control revoke)"
            return _given_up(REVOKED, message, result=Result.CANCELLED)
        if expires_at is not None and expires_at <= self.state.clock.now():
            self.state.results.count("expired")
            message = fields.said("ValidadeSeg passed before it was dialed", "ValidadeSeg")
            return _given_up("expired", message, result=Result.EXPIRED)
        if trunk is not None and trunk not in self.pbx.trunks:
            name = self.pbx.name
            message = (
                f"{name} has no trunk {trunk!r}, as its worker read dialer.toml: add it to its "
                "trunks there, and restart the worker"
            )
            return _given_up("no_trunk", message)
        if refusals := [fields.said(r.sentence, r.field) for r in cell.allowed.refusals(request)]:
            return _given_up("not_allowed", BETWEEN_PROBLEMS.join(refusals))
        if not self.cells.is_in_file(request, cell):
            message = (
                f"{cell.name} is not in dialer.toml, and no cell there allows this target and "
                "these variables: put the cell back until its calls are over"
            )
            return _given_up("not_allowed", message)
        return None

    async def _has_place(self, request: CallRequest, cell: Cell) -> bool:
        """False if the dialplan lacks the place that the request names itself.

        The cell's own place is checked with the other targets. If the link is down, True: the call
        is then given back.
        """
        if (request.context, request.exten, request.priority) == (None, None, None):
            return True
        place = _place(request, cell)
        now = self.monotonic()
        if now - self._places.get(place, -PLACE_KNOWN_S) < PLACE_KNOWN_S:
            return True
        try:
            found = await Questions(self.link).has_place(*place)
        except AmiUnavailable:
            return True
        if found:
            self._places[place] = now
        return found

    def _no_place(self, request: CallRequest, cell: Cell) -> GivenUp:
        context, exten, priority = _place(request, cell)
        message = (
            f"{self.pbx.name} has no extension {exten}, priority {priority} in context {context}: "
            "add it to the dialplan, or correct Contexto, Extensao and Prioridade"
        )
        return _given_up("no_extension", message)

    def _must_give_back(self, cell: Cell, followed: Followed, *, claimed_s: float) -> bool:
        """True if the call must not be dialed now: stale claim, calling hours, target missing."""
        is_stale = claimed_s > STALE_CLAIM_S or followed.boot != self.state.boot
        is_open = cell.limits.is_open(self.state.clock.now())
        return is_stale or not is_open or self.state.reason_not_to_dial(cell.name) is not None

    async def _originate(self, followed: Followed, cell: Cell) -> None:
        call_id = followed.call.call_id
        self.tracker.hand_overs.dialed(cell.name, call_id)
        fields = self._fields(followed.request, cell)
        uniqueid, trunk = channel_id(call_id), self._trunk(followed.request, cell)
        refusal = ""
        for attempt in range(1, cell.retries + 2):
            if not self._may_try(followed, cell, attempt):
                return
            try:
                failpoint("originate.before")
                self.governor.sent(uniqueid, trunk)
                self.tracker.feed(call_id, OriginateSent(attempt=attempt))
                await self.link.originate(
                    fields,
                    action_id=action_id(uniqueid, attempt),
                    within_s=cell.timeout_command_response,
                )
            except ValueError as error:
                self.governor.refused(uniqueid)
                message = f"the request cannot be sent over AMI: {error}"
                self.tracker.feed(call_id, _given_up("not_sendable", message, tried=True))
                return
            except AmiUnavailable:
                self.governor.refused(uniqueid)
                self._give_back(followed)
                return
            except OriginateRefused as error:
                self.governor.refused(uniqueid)
                refusal = str(error)
                self.tracker.feed(call_id, OriginateNotSent())
                await asyncio.sleep(self.retry_pause_s)
                if self._has_channel(call_id):  # whatever that reply was: the telephone rings
                    self.tracker.feed(call_id, OriginateAccepted())
                    return
            except OriginateOutcomeUnknown as error:
                logger.warning(
                    "No reply to an Originate; Asterisk will be asked for its channel",
                    extra={"call_id": call_id, "reason": str(error)},
                )
                within_s = cell.timeout_command_response
                self.tracker.feed(call_id, OriginateUnclear(within_s=within_s))
                return
            else:
                failpoint("originate.after")
                self.governor.accepted(uniqueid)
                self.state.results.count("accepted")
                self.tracker.feed(call_id, OriginateAccepted())
                return
        if not self._is_hung_up(call_id):
            message = f"Asterisk refused the Originate: {refusal}"
            self.tracker.feed(call_id, _given_up("originate_refused", message, tried=True))

    def _may_try(self, followed: Followed, cell: Cell, attempt: int) -> bool:
        """True if the Originate may be sent (again); else the call is ended or given back."""
        if self._is_hung_up(followed.call.call_id):
            return False
        if attempt > 1 and self.state.reason_not_to_dial(cell.name) is not None:
            self._give_back(followed)
            return False
        return True

    def _is_hung_up(self, call_id: str) -> bool:
        """End the call and return true if an operator wants no (further) attempt."""
        followed = self.calls.get(call_id)
        if followed is None or not followed.hang_up or followed.channel is not None:
            return False
        error = _given_up(HUNG_UP, HUNG_UP_WORDS, result=Result.CANCELLED)
        self.tracker.feed(call_id, replace(error, tried=followed.call.attempts > 1))
        return True

    def _trunk(self, request: CallRequest, cell: Cell) -> str:
        return request.trunk or cell.trunk or self.pbx.default_trunk

    def _has_channel(self, call_id: str) -> bool:
        """True if an event showed the call's channel."""
        followed = self.calls.get(call_id)
        return followed is not None and followed.channel is not None

    def _give_back(self, followed: Followed) -> None:
        """Give back a call of which nothing was sent; the bridge queues it again."""
        call_id, cell = followed.call.call_id, followed.request.cell
        current = self.calls.get(call_id) or followed  # a replay may have claimed it again
        self.calls.drop(call_id)
        self.tracker.hand_overs.ended(cell, call_id)
        not_sent = ExitStack()  # until then a reconciliation must not adopt it
        not_sent.enter_context(self.calls.claiming(call_id))
        unclaim = partial(self._unclaim, call_id, current.token)
        task = self.journal.write(cell, "unclaim", unclaim)
        task.add_done_callback(lambda _: not_sent.close())

    async def _unclaim(self, call_id: str, token: str) -> None:
        # Release the slot first: after the unclaim the call may get a new one here at once.
        await self.tracker.release([call_id])
        ledger = self.cells.ledger(cell_of(call_id))
        await ledger.unclaim(call_id, pbx=self.pbx.name, token=token)

    def _fields(self, request: CallRequest, cell: Cell) -> dict[str, str | list[str]]:
        """Return the headers of the Originate."""
        trunk = self._trunk(request, cell)
        context, exten, priority = _place(request, cell)
        target = {"CONTEXT": context, "EXTEN": exten, "PRIORITY": str(priority)}
        given = (*request.variables, *CARRIER_DIALS_NOTHING, (CALL_ID_VARIABLE, request.call_id))
        variables = [variable_line(name, value) for name, value in given]
        if self.state.has_include:
            ours = target | _include_variables(request, cell)
            variables += [variable_line(f"DIALER_{name}", value) for name, value in ours.items()]
            target = {"CONTEXT": "dialer-enter", "EXTEN": "s", "PRIORITY": "1"}
        fields: dict[str, str | list[str]] = {
            "Channel": dial_string(self.pbx.trunks[trunk], request.number),
            "ChannelId": channel_id(request.call_id),
            "Account": request.call_id,
            "Context": target["CONTEXT"],
            "Exten": target["EXTEN"],
            "Priority": target["PRIORITY"],
            "Timeout": str((request.ring_timeout_s or cell.ring_timeout) * 1000),
            "Variable": variables,
        }
        if request.caller_id is not None:
            fields["CallerID"] = request.caller_id
        return fields


def _place(request: CallRequest, cell: Cell) -> tuple[str, str, int]:
    """Return the place in the dialplan of an answered call, if it goes to no queue."""
    return (
        request.context or cell.context,
        request.exten or cell.exten,
        request.priority or cell.priority,
    )


def _given_up(
    code: str, message: str, *, result: Result = Result.FAILED, tried: bool = False
) -> GivenUp:
    return GivenUp(result=result, error=CallError(code=code, message=message), tried=tried)


def _include_variables(request: CallRequest, cell: Cell) -> dict[str, str]:
    """Return the variables for the dialplan include, without the target."""
    variables: dict[str, str] = {}
    if cell.amd != "off":
        variables["AMD"] = cell.amd
    if cell.amd_message is not None:
        variables["AMD_MESSAGE"] = cell.amd_message
    if cell.queue is not None and request.context is None:
        variables |= {"QUEUE": cell.queue, "QUEUE_TIMEOUT": str(cell.queue_timeout)}
    return variables
