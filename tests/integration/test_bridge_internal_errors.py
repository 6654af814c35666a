"""An element that our own code fails on gets one Response, and ends no bridge."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dialer.bridge import admission, codes, refusals
from dialer.multcall.code import parse_code
from dialer.multcall.request import admissible_request, parse_request
from dialer.store import entry
from tests.integration.cell_rig import BRIDGE, CELL, Bridge, Site, code_element, element
from tests.waiting import wait_until

POISON = "poison"


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        await site.beat("pbx01")
        yield site


def failing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but for what has the poison in its arguments."""

    def wrapped(*args: Any, **more: Any) -> Any:
        if POISON in repr(args):
            raise RecursionError("a defect of ours")
        return function(*args, **more)

    return wrapped


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.exc_info and r.levelno == logging.ERROR]


async def has_call(site: Site, name: str) -> bool:
    return await site.state(name) == "queued"


@pytest.mark.parametrize(
    ("module", "function"),
    [(refusals, "admissible_request"), (refusals, "expiry"), (admission, "expiry")],
)
async def test_request_with_an_internal_error_is_answered_once(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: Any,
    function: str,
) -> None:
    monkeypatch.setattr(module, function, failing(getattr(module, function)))
    async with Bridge.of(site).running():
        await site.push_requests(element(POISON), element("next"), element(POISON))
        await wait_until(lambda: has_call(site, "next"), "the next one is admitted")
        await wait_until(lambda: has_dead(site, 2), "both are dead")
    (response,) = await site.responses()
    assert (response["IdRequisicao"], response["Resultado"]) == (POISON, "FAILED")
    assert response["Erro"]["Codigo"] == "internal_error"
    assert (await site.dead())[0]["reason"] == "internal_error"
    assert (await site.dead())[0]["raw"] == element(POISON).decode()
    assert await site.ledger.hand(BRIDGE) == []
    assert await site.slots() == {"next"}
    assert 1 <= len(tracebacks(caplog)) <= 2


async def has_dead(site: Site, n: int) -> bool:
    return len(await site.dead()) >= n


async def test_request_with_no_readable_id_is_only_buried(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "admissible_request", failing(admissible_request))
    async with Bridge.of(site).running():
        await site.push_requests(POISON.encode(), element("next"))
        await wait_until(lambda: has_call(site, "next"), "the next one is admitted")
    assert [d["reason"] for d in await site.dead()] == ["internal_error"]
    assert await site.responses() == []


async def test_code_with_an_internal_error_is_buried(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await site.accepted()
    monkeypatch.setattr(codes, "parse_code", failing(parse_code))
    async with Bridge.of(site).running():
        await site.push_codes(code_element(code=POISON), code_element(code="C-1"))
        await wait_until(lambda: site.field("r-1", "code"), "the next code is stored")
        await wait_until(lambda: has_dead(site, 1), "it is dead")
    assert [d["reason"] for d in await site.dead()] == ["internal_error"]
    assert len(tracebacks(caplog)) == 1


@pytest.mark.parametrize(("is_claimed", "result"), [(False, "FAILED"), (True, "UNKNOWN")])
async def test_call_with_an_internal_error_is_answered_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, is_claimed: bool, result: str
) -> None:
    await site.admitted(POISON)
    await site.admitted("other")
    if is_claimed:
        assert await site.claimed(POISON)
        assert await site.claimed("other")
        await site.silence("pbx01", seconds=300)
    else:
        await site.redis.zadd(site.ledger.keys.queued, {f"{CELL}:{POISON}": 1, f"{CELL}:other": 1})
    monkeypatch.setattr(entry, "parse_request", failing(parse_request))
    bridge = Bridge.of(site)
    for _ in range(2):
        states = await bridge.cell.registry.pbxs(bridge.cell.pbxs)
        await bridge.recovery.move_late(states)
        await bridge.recovery.end_lost(states)
    by_id = {r["IdRequisicao"]: r for r in await site.responses()}
    assert (by_id[POISON]["Resultado"], by_id[POISON]["Erro"]["Codigo"]) == (
        result,
        "internal_error",
    )
    assert len(await site.responses()) == (2 if is_claimed else 1)
    assert [d["reason"] for d in await site.dead()] == ["internal_error"]
    assert await site.slots() == (set() if is_claimed else {"other"})
    assert bridge.nudges.calls == []
