"""Delivery of call codes (CODLIGACAO) to the calls that wait for them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from dialer.bridge.cell import BridgeCell
from dialer.bridge.life import ALONE_AFTER_S, ALONE_AGE_S, Life
from dialer.domain.request import call_id
from dialer.errors import InvalidRequest, StoreUnavailable
from dialer.multcall.answers import DeadReason, dead
from dialer.multcall.code import parse_code
from dialer.store.client import wait_and_move
from dialer.store.ledger import Delivery
from dialer.store.ledger.reads import is_of_one_element

logger = logging.getLogger(__name__)

#: Maximum number of codes in the hand.
BATCH: Final = 100

#: Pause between two searches for overdue codes, in seconds.
LATE_EVERY_S: Final = 0.25


@dataclass(slots=True)
class Codes:
    """The codes of one cell. `blocking` is a separate client, because BLMOVE occupies it."""

    cell: BridgeCell
    blocking: Redis
    life: Life = field(default_factory=Life)

    async def run(self) -> None:
        """Deliver codes until cancelled."""
        ledger, bridge = self.cell.ledger, self.cell.bridge
        while True:
            batch = await ledger.fetch_codes(bridge, at_most=BATCH)
            await asyncio.gather(*(self._deliver_or_bury(raw) for raw in batch))
            if len(batch) <= 1:
                await self._deliver_each_alone()

    async def run_late(self) -> None:
        """Time out overdue codes, until cancelled."""
        while True:
            await self.life.until_code_late()
            for late in await self.cell.ledger.late_codes():
                logger.info("No CODLIGACAO arrived in time", extra={"call_id": late})
            await asyncio.sleep(LATE_EVERY_S)

    async def _deliver_each_alone(self) -> None:
        """Wait for codes and deliver each; return when the hand must be read again."""
        loop = asyncio.get_running_loop()
        read_at = loop.time()
        try:
            while True:
                began = loop.time()
                raw = await self._wait_once()
                now = loop.time()
                if raw is None:
                    if not self.life.is_quiet:
                        return
                elif now - began < ALONE_AFTER_S or now - read_at > ALONE_AGE_S:
                    return
                else:
                    await self._deliver_or_bury(raw)
        except StoreUnavailable:  # `Steps` logs it
            await asyncio.sleep(LATE_EVERY_S)

    async def _wait_once(self) -> bytes | None:
        ledger = self.cell.ledger
        return await wait_and_move(
            self.blocking,
            ledger.wire.code,
            ledger.keys.code_hand(self.cell.bridge),
            head=ledger.head,
            within_s=self.life.block_s,
            reply_within_s=self.cell.reply_within_s,
        )

    async def _deliver_or_bury(self, raw: bytes) -> None:
        """Deliver one code. An internal error on it must not end the bridge: bury it."""
        try:
            await self._deliver(raw)
        except Exception as error:
            if not is_of_one_element(error):
                raise
            logger.exception(
                "Internal error on a code; it goes to the dead list as internal_error",
                extra={"cell": self.cell.name},
            )
            message = "the dialer failed on this element; its log has the reason"
            await self._bury(raw, "internal_error", message)

    async def _deliver(self, raw: bytes) -> None:
        ledger = self.cell.ledger
        try:
            code = parse_code(raw, self.cell.wire)
        except InvalidRequest as error:
            logger.warning("Code refused", extra={"cell": ledger.cell, "reason": str(error)})
            await self._bury(raw, "invalid_code", str(error))
            return
        delivery = await ledger.code(
            self.cell.bridge,
            raw,
            call_id=call_id(ledger.cell, code.request_id),
            code_json=code.code_json,
        )
        if delivery is Delivery.ORPHAN:
            await self._bury(raw, "orphan_code", "no such call is under way")
        elif delivery is Delivery.SECOND:
            await self._bury(raw, "duplicate_code", "the call has its code already")

    async def _bury(self, raw: bytes, reason: DeadReason, message: str) -> None:
        """Move an unusable code from the hand to the dead list."""
        hand = self.cell.ledger.keys.code_hand(self.cell.bridge)
        entry = dead(
            raw=raw, source="code", reason=reason, message=message, at=self.cell.clock.now()
        )
        await self.cell.ledger.bury(hand, raw, entry)
