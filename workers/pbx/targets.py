"""Check that this Asterisk can take each cell's answered calls.

That is: limits of asterisk.conf, trunks, include, AMD, queue and its operators, context and
extension. A call whose target is missing would be cut off as soon as the customer answers. So the
worker dials no calls of such a cell, and its heartbeat reports it: the bridge sends them to other
PBXs of the cell, or waits, as if the PBX were down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.limits import Limit
from dialer.domain.why import Obstacle
from dialer.settings import Cell, Pbx
from workers.ami import AmiLink
from workers.pbx.hand_overs import HandOvers
from workers.pbx.questions import Questions, can_take_calls
from workers.pbx.state import PbxState

logger = logging.getLogger(__name__)

#: Shortest pause between two checks of the targets, in seconds; longer if there are many.
CHECK_EVERY_S: Final = 3.0

#: Shortest pause before a check that an event of a queue caused, in seconds.
CHECK_SOON_S: Final = 0.5

#: Events of a queue's members. They are of class `agent`.
QUEUE_EVENTS: Final = frozenset(
    {"QueueMemberAdded", "QueueMemberRemoved", "QueueMemberPause", "QueueMemberStatus"}
)

#: The endpoint in a PJSIP dial string: `PJSIP/{number}@tim`, `PJSIP/tim/sip:{number}@host`.
_ENDPOINT: Final = re.compile(r"PJSIP/(?:[^/@]*@)?([^/@{}]+)", re.IGNORECASE)

#: Average limit of AMI actions per second for these checks.
QUESTIONS_PER_S: Final = 10.0

Ask = Callable[..., Awaitable[bool]]


def endpoint_of(dial_string: str) -> str | None:
    """Return the PJSIP endpoint of a trunk's dial string; None for other technologies."""
    found = _ENDPOINT.match(dial_string)
    return found[1] if found else None


@dataclass(slots=True)
class Targets:
    """Checker of targets; updates `state.lacking`. Belongs to the worker's event loop.

    `known_operator` tells if a queue has an operator, None if Asterisk must be asked.
    """

    pbx: Pbx
    state: PbxState
    link: AmiLink
    hand_overs: HandOvers
    questions: Questions
    known_operator: Callable[[str], bool | None] = lambda _: None
    _asked: int = 0
    _missing: dict[str, str] = field(default_factory=dict)
    _is_due: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, event: Mapping[str, str]) -> None:
        """Check soon if a queue may have lost its last operator, or may have one again."""
        is_gone = event.get("Event") == "QueueMemberRemoved" or not can_take_calls(event)
        if is_gone or self.state.lacking:
            self._is_due.set()

    def check_soon(self) -> None:
        """Check soon, because a cell or the PBX has other settings now."""
        self._is_due.set()

    async def wait_until_due(self) -> None:
        """Wait for the next check: regularly, or soon after an event of a queue."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_due.wait(), self.pause_s)
            await asyncio.sleep(CHECK_SOON_S)
        self._is_due.clear()

    @property
    def pause_s(self) -> float:
        """Pause until the next check, by the number of actions of the last check."""
        return max(CHECK_EVERY_S, self._asked / QUESTIONS_PER_S)

    async def check(self, cells: Iterable[Cell]) -> bool:
        """Check that each cell's answered calls can be taken here, and log what has changed.

        Return true if calls of a cell may be dialed that could not be before.

        Raises:
            AmiUnavailable: the link was lost in the meantime.
        """
        if not await self._is_include_as_before():
            return False
        everywhere = await self._blocks_all()
        known: dict[tuple[object, ...], bool] = {}  # cells may share a queue or context

        async def ask(question: Ask, *names: str | int) -> bool:
            key = (question, *names)
            if key not in known:
                known[key] = await question(*names)
            return known[key]

        # A list, not a generator: any() would skip cells.
        restored = [self._note(cell, everywhere or await self._lacks(cell, ask)) for cell in cells]
        self._asked = len(known) + 5
        return any(restored)

    async def _is_include_as_before(self) -> bool:
        """False if the include came, went or changed; all calls use it, so the link is dropped."""
        include = await self.link.has_include()
        confirms = include and await self.link.has_current_include()
        if (include, confirms) == (self.state.has_include, self.state.confirms):
            return True
        if include == self.state.has_include:
            what = "another one now"
        else:
            what = "there now" if include else "gone"
        self.link.drop(f"the dialplan include is {what}")
        return False

    async def _blocks_all(self) -> Obstacle | None:
        """Return what prevents all calls; update `state.cap`."""
        if sentence := await self._exceeds_limits():
            return Obstacle(limit=Limit.ASTERISK_FULL, reason=sentence)
        if sentence := await self.dials_forwarded_calls():
            return Obstacle(limit=Limit.MISSING_TARGET, reason=sentence)
        return None

    async def _exceeds_limits(self) -> str | None:
        pbx = self.state.name
        limits = await self.questions.limits()
        foreign = max(0, limits.calls - self.state.answered())
        cap = max(1, limits.max_calls - foreign) if limits.max_calls else 0
        if cap and cap < self.pbx.max_calls and not self.state.cap:
            logger.warning(
                "maxcalls of asterisk.conf leaves room for fewer calls than max_calls: raise it, "
                "or lower max_calls",
                extra={"pbx": pbx, "maxcalls": limits.max_calls, "max_calls": self.pbx.max_calls},
            )
        self.state.cap = cap
        if limits.max_calls and foreign >= limits.max_calls:
            return (
                f"{pbx} has as many calls as maxcalls of asterisk.conf allows, "
                f"{limits.max_calls}: raise it"
            )
        load = await self.questions.load() if limits.max_load else None
        if load is not None and load >= limits.max_load:
            return (
                f"the load of {pbx} is {load:.1f}, and Asterisk cuts off answered calls from "
                f"maxload = {limits.max_load:g} in asterisk.conf: lower max_calls of {pbx}, "
                "or raise maxload"
            )
        return None

    async def dials_forwarded_calls(self) -> str | None:
        """Return the sentence if a trunk dials on when the carrier forwards a call."""
        for trunk, dial_string in self.pbx.trunks.items():
            endpoint = endpoint_of(dial_string)
            if endpoint and await self.questions.redirect_method(endpoint) == "uri_core":
                return (
                    f"trunk {trunk} of {self.state.name} dials on if the carrier forwards a call, "
                    f"and would cut off who answers: set redirect_method = user at endpoint "
                    f"{endpoint} in pjsip.conf"
                )
        return None

    def _note(self, cell: Cell, lack: Obstacle | None) -> bool:
        """Store and log what a cell lacks; return true if it may be dialed again."""
        now = lack.reason if lack is not None else None
        self.state.limits.pop(cell.name, None)
        if lack is not None:
            self.state.limits[cell.name] = lack.limit
        before = self._missing.pop(cell.name, None)
        held = self.state.lacking.pop(cell.name, None)
        if now is not None:
            self._missing[cell.name] = now
        if (reason := now or self.hand_overs.why_held(cell.name)) is not None:
            self.state.lacking[cell.name] = reason
        if now != before and self.state.name in cell.pbxs:
            extra = {"pbx": self.state.name, "cell": cell.name}
            if now is not None:
                logger.error(
                    "Calls of a cell are not dialed here, because answered calls would be cut off",
                    extra={**extra, "reason": now},
                )
            else:
                logger.warning("Calls of a cell are dialed here again", extra=extra)
        return reason is None and held is not None

    async def missing(self, cell: Cell) -> str | None:
        """Return the first thing that a cell's answered calls lack here, None if nothing is."""

        async def ask(question: Ask, *names: str | int) -> bool:
            return await question(*names)

        lack = await self._lacks(cell, ask)
        return lack.reason if lack is not None else None

    async def _lacks(self, cell: Cell, ask: Ask) -> Obstacle | None:
        """Return the first missing thing, None if nothing is missing."""
        if sentence := await self._lacks_target(cell, ask):
            return Obstacle(limit=Limit.MISSING_TARGET, reason=sentence)
        if cell.queue is not None and not await self._has_operator(cell.queue, ask):
            return Obstacle(
                limit=Limit.NO_AGENTS,
                reason=f"queue {cell.queue} of {self.state.name} has no available member: have an "
                "operator of it log in or end a pause",
            )
        return None

    async def _has_operator(self, queue: str, ask: Ask) -> bool:
        known = self.known_operator(queue)
        return await ask(self.questions.has_operator, queue) if known is None else known

    async def _lacks_target(self, cell: Cell, ask: Ask) -> str | None:
        """Return the first missing part of the target as a sentence with the cure."""
        pbx = self.state.name
        if cell.needs_include and not self.state.confirms:
            return (
                f"{pbx} lacks the dialplan include, or has an old one; queue and amd of cell "
                f"{cell.name} need it: put the present deploy/asterisk/dialer.conf into "
                "extensions.conf"
            )
        if cell.amd != "off" and not await ask(self.link.has_amd):
            return (
                f"{pbx} cannot detect answering machines, but cell {cell.name} has amd: "
                "put deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so"
            )
        if cell.queue is not None and not await ask(self.link.has_queue, cell.queue):
            return (
                f"{pbx} has no queue {cell.queue}: add it to queues.conf and load it, or "
                f"correct queue of cell {cell.name}"
            )
        # Check only a context from the settings: without one each request may name its own.
        named = cell.queue is None and "context" in cell.model_fields_set
        if named and not await ask(self.link.has_context, cell.context):
            return (
                f"{pbx} has no context {cell.context}: add it to the dialplan, or correct "
                f"context of cell {cell.name}"
            )
        place = (cell.context, cell.exten, cell.priority)
        if named and not await ask(self.questions.has_place, *place):
            return (
                f"{pbx} has no extension {cell.exten}, priority {cell.priority} in context "
                f"{cell.context}: add it to the dialplan, or correct cell {cell.name}"
            )
        return None
