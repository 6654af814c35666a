"""A list that another program made something else: a step that needs it changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest
from redis.exceptions import ResponseError

from dialer.store.ledger import WorkerLedger
from dialer.store.ledger.fence import Fence
from tests.integration.cell_rig import BRIDGE, BUSY, Site, code_element, element

REQUEST: Final = element("r-9")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    """`r-1` is accepted and its code overdue, `r-2` is claimed, `r-3` has ended without its code.

    The bridge has a request, a repeat and an unreadable element in hand, and a code.
    """
    async with Site(redis_url) as site:
        for request_id in ("r-1", "r-3"):
            await site.accepted(request_id, wait_s=0)
        await site.end("r-3")
        await site.admitted("r-2")
        await site.claimed("r-2")
        await site.in_hand(b"\xff", REQUEST, element("r-1"))
        await site.redis.rpush(site.ledger.keys.code_hand(BRIDGE), code_element("r-3"))
        yield site


async def accept(site: Site) -> object:
    return await site.accept(await site.entry("r-2"))


async def end_without_a_code(site: Site) -> object:
    return await site.end("r-2")


async def end_before_its_code(site: Site) -> object:
    return await site.end("r-1")


async def late_codes(site: Site) -> object:
    return await site.ledger.late_codes()


async def code(site: Site) -> object:
    return await site.code(code_element("r-3"), put=False)


async def end_and_release(site: Site) -> object:
    entry = await site.entry("r-2")
    ledger = WorkerLedger(site.steps, site.cell, "right", fence=Fence("pbx01"))
    return await ledger.end_release(entry.call, entry.request, BUSY)


async def refuse_unreadable(site: Site) -> object:
    hand = site.ledger.keys.hand(BRIDGE)
    return await site.ledger.refuse(hand, b"\xff", request_id=None, dead="{}")


async def refuse(site: Site) -> object:
    hand = site.ledger.keys.hand(BRIDGE)
    return await site.ledger.refuse(hand, REQUEST, request_id="r-9", response="{}", dead="{}")


async def bury_a_repeat(site: Site) -> object:
    return await site.ledger.bury(site.ledger.keys.hand(BRIDGE), element("r-1"), "{}")


async def bury(site: Site) -> None:
    await site.ledger.bury(site.ledger.keys.code_hand(BRIDGE), code_element("r-3"), "{}")


async def bury_call(site: Site) -> None:
    await site.ledger.bury_call("ASR_TIM:r-2", "{}")


async def return_hand(site: Site) -> object:
    return await site.ledger.return_hand(BRIDGE)


async def park(site: Site) -> object:
    return await site.ledger.park(site.ledger.keys.hand(BRIDGE), [("tim", REQUEST)])


async def park_two(site: Site) -> object:
    two = [("tim", REQUEST), ("oi", element("r-1"))]
    return await site.ledger.park(site.ledger.keys.hand(BRIDGE), two)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (accept, "ack"),
        (end_without_a_code, "response"),
        (end_before_its_code, "response"),
        (end_and_release, "response"),
        (late_codes, "response"),
        (code, "response"),
        (refuse_unreadable, "dead"),
        (refuse, "dead"),
        (refuse, "response"),
        (bury_a_repeat, "dead"),
        (bury, "dead"),
        (bury_call, "dead"),
        (return_hand, "request"),
        (return_hand, "code"),
        (park, "dialer:parked:ASR_TIM:tim"),
        (park, "dialer:parking:ASR_TIM"),
        (park_two, "dialer:parked:ASR_TIM:oi"),
    ],
)
async def test_a_step_without_its_list_changes_nothing(
    site: Site, step: Callable[[Site], Awaitable[object]], wanted: str
) -> None:
    ours = {"dead": site.ledger.keys.dead}
    key = str(ours.get(wanted) or getattr(site.ledger.wire, wanted, wanted))
    await site.redis.delete(key)
    await site.redis.set(key, "not a list")
    before = await site.snapshot()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await step(site)
    assert await site.snapshot() == before
    await site.redis.delete(key)
    await step(site)  # only the list stood in its way
    assert await site.snapshot() != before
