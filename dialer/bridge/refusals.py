"""Parsing and refusal of one cell's requests.

Every refused request gets a Response, an entry on the dead list, or both. Requests wait in the
bridge's hand or in the parked list of a trunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dialer.bridge.cell import BridgeCell
from dialer.domain.call import CallError, Ending, Result
from dialer.domain.limits import Limit
from dialer.domain.request import CallRequest, call_id
from dialer.domain.why import Lately
from dialer.errors import InvalidRequest
from dialer.multcall.answers import DeadReason, dead, invalid_response, response_parts
from dialer.multcall.identity import readable_id, request_id_of
from dialer.multcall.request import admissible_request
from dialer.store.ledger.reads import is_of_one_element

logger = logging.getLogger(__name__)

#: Message in the Response and on the dead list after an internal error.
INTERNAL_ERROR = CallError(
    code="internal_error",
    message="the dialer failed on this element; its log has the reason",
)


#: `Erro.Codigo` of a number on the do-not-call set.
DO_NOT_CALL: Final = "do_not_call"

#: The field of a request that names its trunk.
TRUNK: Final = "Tronco"


@dataclass(frozen=True, slots=True)
class Element:
    """A request that is not parsed yet; `source` is the key of its list."""

    raw: bytes
    source: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A valid request that may become a call."""

    element: Element
    request: CallRequest


@dataclass(slots=True)
class Refusals:
    """The refusals of one cell. `lately` is what became of its requests in the last seconds."""

    cell: BridgeCell
    lately: Lately = field(default_factory=Lately)
    #: The requests that were read last. Those that had to stay are read again soon.
    _parsed: dict[bytes, CallRequest] = field(default_factory=dict)

    async def read(self, elements: Sequence[Element]) -> list[Candidate]:
        """Parse requests; refuse invalid ones."""
        candidates: list[Candidate] = []
        refusals: list[Awaitable[None]] = []
        for element in elements:
            try:
                request = self._parsed.get(element.raw) or self._parse(element.raw)
                candidates.append(Candidate(element, request))
            except InvalidRequest as error:
                refusals.append(self._refuse_invalid(element, error))
            except Exception as error:  # noqa: BLE001  # logged and answered
                refusals.append(self.fail(element, error))
        self._parsed = {candidate.element.raw: candidate.request for candidate in candidates}
        await asyncio.gather(*refusals)
        return candidates

    async def allowed(
        self, candidates: Sequence[Candidate], *, before_lease: bool = True
    ) -> tuple[list[Candidate], int]:
        """Select the requests that may be dialed now, and refuse those that never may.

        `before_lease` also checks for used ids and the limit per number, so that no slot is leased
        for a call that `admit` would refuse. A second request with the same id or number then
        waits until the first is admitted.

        Return the selected requests, and how many were refused.
        """
        forbidden, attempts = await asyncio.gather(
            self._forbidden(candidates), self._attempts(candidates if before_lease else ())
        )
        attempts = attempts or [0] * len(candidates)
        allowed: list[Candidate] = []
        refusals: list[Awaitable[None]] = []
        ahead: Counter[str] = Counter()
        for candidate, on_list, count in zip(candidates, forbidden, attempts, strict=True):
            request = candidate.request
            number = self.cell.ledger.keys.number(request.number)
            if count is None:
                refusals.append(self.bury_repeat(candidate.element, request.call_id))
                continue
            try:
                reason = self._reason(request, on_list=on_list, attempts=count)
            except Exception as error:  # noqa: BLE001  # logged and answered
                refusals.append(self.fail(candidate.element, error))
                continue
            if reason is not None:
                refusals.append(self.answer(candidate, *reason))
            elif not ahead[request.call_id] and self._has_attempts_left(count + ahead[number]):
                ahead.update((request.call_id, number))
                allowed.append(candidate)
        await asyncio.gather(*refusals)
        return allowed, len(refusals)

    async def answer(self, candidate: Candidate, result: Result, error: CallError) -> None:
        """Send the Response of a request that is not dialed."""
        self._note(Limit.DO_NOT_CALL if error.code == DO_NOT_CALL else Limit.REFUSED)
        element, request = candidate.element, candidate.request
        try:
            response = self._response(request, result, error)
        except Exception as internal:  # noqa: BLE001  # logged and answered
            await self.fail(element, internal)
            return
        reply = await self.cell.ledger.refuse(
            element.source,
            element.raw,
            request_id=request.request_id,
            response=response,
            result=result,
        )
        if reply == "duplicate":
            await self.bury_repeat(element, request.call_id)

    async def bury_repeat(self, element: Element, call_id: str) -> None:
        """Bury a request whose id was used before."""
        self._note(Limit.REFUSED)
        message = self.cell.wire.fields.said(
            "this IdRequisicao was used before; it was not dialed again", "IdRequisicao"
        )
        entry = _dead(element.raw, "duplicate_request", message, self.cell.clock.now())
        if await self.cell.ledger.bury(element.source, element.raw, entry):
            logger.warning("Duplicate request, not dialed again", extra={"call_id": call_id})

    async def fail(self, element: Element, error: Exception) -> None:
        """Refuse a request that caused an internal error, so that it does not end the bridge.

        Raises:
            Exception: `error`, if the request did not cause it.
        """
        if not is_of_one_element(error):
            raise error
        self._note(Limit.REFUSED)
        logger.error(
            "Internal error on a request; it goes to the dead list as internal_error",
            extra={"cell": self.cell.name},
            exc_info=error,
        )
        id_json, now = readable_id(element.raw, self.cell.wire), self.cell.clock.now()
        response = (
            self._response(_unknown(self.cell.name, id_json), Result.FAILED, INTERNAL_ERROR)
            if id_json
            else ""
        )
        await self._refuse_dead(
            element,
            id_json,
            response,
            _dead(element.raw, "internal_error", INTERNAL_ERROR.message, now),
            Result.FAILED,
        )

    # --- details -------------------------------------------------------------------

    def _note(self, why: Limit) -> None:
        self.lately.refused(why, asyncio.get_running_loop().time())

    def _parse(self, raw: bytes) -> CallRequest:
        cell = self.cell
        return admissible_request(
            raw,
            cell=cell.name,
            allowed=cell.settings.allowed,
            trunks=cell.trunks,
            wire=cell.wire,
        )

    async def _forbidden(self, candidates: Sequence[Candidate]) -> list[bool]:
        if not self.cell.settings.limits.do_not_call:
            return [False] * len(candidates)
        return await self.cell.registry.dnc_contains([c.request.number for c in candidates])

    async def _attempts(self, candidates: Sequence[Candidate]) -> list[int | None]:
        """Return the calls to each number in the cell's window; None for a used id."""
        limits = self.cell.settings.limits
        window_s = limits.attempts_window_hours * 3600 if limits.max_attempts_per_number else 0
        requests = [c.request for c in candidates]
        return await self.cell.ledger.check(requests, number_window_s=window_s)

    def _has_attempts_left(self, attempts: int) -> bool:
        most = self.cell.settings.limits.max_attempts_per_number
        return not most or attempts < most

    def _reason(
        self, request: CallRequest, *, on_list: bool, attempts: int
    ) -> tuple[Result, CallError] | None:
        """Return why the request must never be dialed, None if it may be dialed."""
        limits, fields = self.cell.settings.limits, self.cell.wire.fields
        now = self.cell.clock.now()
        expires_at = expiry(request)
        if on_list:
            message = "the number is on the do-not-call set"
            return Result.CANCELLED, CallError(code=DO_NOT_CALL, message=message)
        if expires_at is not None and expires_at <= now:
            message = fields.said("ValidadeSeg passed before it was dialed", "ValidadeSeg")
            return Result.EXPIRED, CallError(code="expired", message=message)
        if limits.outside_hours == "expire" and not limits.is_open(now):
            message = "the cell's calling hours are over"
            return Result.EXPIRED, CallError(code="outside_hours", message=message)
        return None if self._has_attempts_left(attempts) else self.number_limit()

    def number_limit(self) -> tuple[Result, CallError]:
        """Return result and error for a number that was called as often as the cell allows."""
        limits = self.cell.settings.limits
        message = (
            f"the number was called {limits.max_attempts_per_number} times "
            f"within {limits.attempts_window_hours:g} hours"
        )
        return Result.CANCELLED, CallError(code="number_limit", message=message)

    async def _refuse_invalid(self, element: Element, error: InvalidRequest) -> None:
        self._note(Limit.UNKNOWN_TRUNK if error.field == TRUNK else Limit.REFUSED)
        now, id_json = self.cell.clock.now(), error.request_id_json
        logger.warning("Request refused", extra={"cell": self.cell.name, "reason": str(error)})
        response = (
            invalid_response(
                cell=self.cell.name,
                request_id_json=id_json,
                error=error,
                at=now,
                fields=self.cell.wire.fields,
            )
            if id_json
            else ""
        )
        await self._refuse_dead(
            element, id_json, response, _dead(element.raw, "invalid_request", str(error), now)
        )

    async def _refuse_dead(
        self,
        element: Element,
        id_json: str | None,
        response: str,
        entry: str,
        result: Result = Result.INVALID_REQUEST,
    ) -> None:
        request_id = request_id_of(id_json) if id_json else None
        reply = await self.cell.ledger.refuse(
            element.source,
            element.raw,
            request_id=request_id,
            response=response,
            dead=entry,
            result=result,
        )
        if reply == "duplicate":
            await self.bury_repeat(element, call_id(self.cell.name, request_id or ""))

    def _response(self, request: CallRequest, result: Result, error: CallError) -> str:
        parts = response_parts(
            request=request,
            pbx=None,
            uniqueid=None,
            attempts=0,
            dialed_at=None,
            answered_at=None,
            ending=Ending(result=result, ended_at=self.cell.clock.now(), error=error),
            fields=self.cell.wire.fields,
        )
        return f"{parts.head}null{parts.tail}"


def expiry(request: CallRequest) -> datetime | None:
    """Return the time when the request expires, None if unknown before the admission."""
    if request.created_at is None or request.valid_for_s is None:
        return None
    return request.created_at + timedelta(seconds=request.valid_for_s)


def _unknown(cell: str, id_json: str) -> CallRequest:
    """Return a request of which only the id is known."""
    return CallRequest(cell=cell, request_id="", request_id_json=id_json, number="")


def _dead(raw: bytes, reason: DeadReason, message: str, at: datetime) -> str:
    return dead(raw=raw, source="request", reason=reason, message=message, at=at)
