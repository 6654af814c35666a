"""Delivers Multcall's own call numbers (CODLIGACAO) to the calls that wait for them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from redis.asyncio import Redis

from dialer.bridge.cell import BridgeCell
from dialer.domain.request import call_id
from dialer.errors import InvalidRequest, StoreUnavailable
from dialer.multcall.answers import DeadReason, dead
from dialer.multcall.code import parse_code
from dialer.store.client import wait_and_move
from dialer.store.ledger import Delivery

logger = logging.getLogger(__name__)

BATCH: Final = 100

#: Longest wait for a code, in seconds.
BLOCK_S: Final = 1.0

#: How often calls are looked for whose code is late, in seconds.
LATE_EVERY_S: Final = 0.25


@dataclass(slots=True)
class Codes:
    """The codes of one cell. `blocking` is a client of its own, for BLMOVE occupies it."""

    site: BridgeCell
    blocking: Redis

    async def run(self) -> None:
        """Runs for ever."""
        ledger, bridge = self.site.ledger, self.site.bridge
        while True:
            batch = await ledger.fetch_codes(bridge, at_most=BATCH)
            if batch:
                await asyncio.gather(*(self._deliver(raw) for raw in batch))
            else:
                await self._wait()

    async def run_late(self) -> None:
        """Lets calls go on whose code does not come, for ever."""
        while True:
            for late in await self.site.ledger.late_codes():
                logger.info("No CODLIGACAO came in time", extra={"call_id": late})
            await asyncio.sleep(LATE_EVERY_S)

    async def _wait(self) -> None:
        """Waits until a code is in hand, for a while."""
        ledger = self.site.ledger
        try:
            await wait_and_move(
                self.blocking,
                ledger.wire.code,
                ledger.keys.code_hand(self.site.bridge),
                head=ledger.head,
                within_s=BLOCK_S,
            )
        except StoreUnavailable:  # the ledger's own steps say so
            await asyncio.sleep(LATE_EVERY_S)

    async def _deliver(self, raw: bytes) -> None:
        ledger = self.site.ledger
        try:
            code = parse_code(raw)
        except InvalidRequest as error:
            logger.warning("Code refused", extra={"cell": ledger.cell, "reason": str(error)})
            await self._bury(raw, "invalid_code", str(error))
            return
        delivery = await ledger.code(
            self.site.bridge,
            raw,
            call_id=call_id(ledger.cell, code.request_id),
            code_json=code.code_json,
        )
        if delivery is Delivery.ORPHAN:
            await self._bury(raw, "orphan_code", "no such call is under way")
        elif delivery is Delivery.SECOND:
            await self._bury(raw, "duplicate_code", "the call has its code already")

    async def _bury(self, raw: bytes, reason: DeadReason, message: str) -> None:
        """Move a code that cannot be used from the hand to the dead list."""
        entry = dead(raw=raw, source="code", reason=reason, message=message, at=datetime.now(UTC))
        await self.site.ledger.bury_code(self.site.bridge, raw, entry)
