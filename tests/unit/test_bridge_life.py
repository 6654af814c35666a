"""What the parts of a cell know of it between two pulses."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from dialer.bridge.life import Life
from dialer.domain.taking import CLAIM_WITHIN_S
from dialer.store.ledger import Pulsed

LONG_S = 60.0


def pulsed(**found: Any) -> Pulsed:
    return Pulsed(is_quiet=False, can_take_over=False, **found)


async def test_without_a_pulse_everything_may_be_due() -> None:
    life = Life()
    assert not life.is_quiet
    assert life.has_late_calls
    await life.until_code_late()


async def test_a_call_is_late_when_its_time_is_over() -> None:
    life, late = Life(), []
    for found in (CLAIM_WITHIN_S - LONG_S, CLAIM_WITHIN_S, -math.inf):
        life.see(pulsed(unclaimed_s=found))
        late.append(life.has_late_calls)
    assert late == [False, True, False]


@pytest.mark.parametrize("left_s", [LONG_S, math.inf])
async def test_a_code_that_is_late_sooner_ends_the_wait(left_s: float) -> None:
    life = Life()
    life.see(pulsed(code_in_s=left_s))
    waiting = asyncio.create_task(life.until_code_late())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    life.see(pulsed(code_in_s=0.001))
    async with asyncio.timeout(10):
        await waiting


async def test_a_wait_ends_when_the_code_is_late() -> None:
    life = Life()
    life.see(pulsed(code_in_s=0.01))
    async with asyncio.timeout(10):
        await life.until_code_late()


async def test_no_pulse_any_longer_ends_the_wait() -> None:
    life = Life()
    life.see(Pulsed(is_quiet=True, can_take_over=False))
    waiting = asyncio.create_task(life.until_code_late())
    await asyncio.sleep(0)
    life.forget()
    async with asyncio.timeout(10):
        await waiting
    assert not life.is_quiet


async def test_a_cell_that_moved_something_is_not_quiet() -> None:
    life = Life()
    life.see(Pulsed(is_quiet=True, can_take_over=False))
    life.stir()
    assert (life.is_quiet, life.is_known) == (False, True)
