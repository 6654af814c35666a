"""Delivers Multcall's own call numbers (CODLIGACAO) to the calls that wait for them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from redis.asyncio import Redis

from dialer.bridge.cell import BridgeCell
from dialer.domain.request import call_id
from dialer.errors import InvalidRequest, StoreUnavailable
from dialer.multcall.answers import dead
from dialer.multcall.code import parse_code
from dialer.store.client import wait_and_move

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
        now = datetime.now(UTC)
        ledger, bridge = self.site.ledger, self.site.bridge

        def entry(
            reason: Literal["invalid_code", "orphan_code", "duplicate_code"], message: str
        ) -> str:
            return dead(raw=raw, source="code", reason=reason, message=message, at=now)

        try:
            code = parse_code(raw)
        except InvalidRequest as error:
            logger.warning("Code refused", extra={"cell": ledger.cell, "reason": str(error)})
            await ledger.bury_code(bridge, raw, entry("invalid_code", str(error)))
            return
        await ledger.code(
            bridge,
            raw,
            call_id=call_id(ledger.cell, code.request_id),
            code_json=code.code_json,
            orphan=entry("orphan_code", "no such call is under way"),
            second=entry("duplicate_code", "the call has its code already"),
        )
