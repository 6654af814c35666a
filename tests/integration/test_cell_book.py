"""The last settings of each cell, kept in its Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from dialer.settings.kept import cells_of, text_of
from dialer.store.cells import CellBook
from tests.integration.cell_rig import CELL, Site, cell, code_element, element

LIMITS: Final[dict[str, Any]] = {
    "max_attempts_per_number": 3,
    "calling_hours": [{"days": ["mon", "sat"], "from": "08:00", "to": "24:00"}],
    "outside_hours": "expire",
}


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def test_cell_book_returns_a_cell_without_its_redis_url(
    site: Site,
) -> None:
    written = cell(
        "pbx01", "pbx02", queue="cobranca", amd="message", amd_message="aviso", ring_timeout=41,
        redis_url="redis://:s3cret@127.0.0.1:6399/3", limits=LIMITS,
    )  # fmt: skip
    other = cell("pbx02", nome="ura-2", context="ivr")
    book = CellBook(site.steps)
    for one in (written, other):
        await book.write(one.name, text_of(one))
    assert "s3cret" not in str(await site.redis.hvals("dialer:cells"))
    assert cells_of(await book.read()) == [written.model_copy(update={"redis_url": None}), other]
    assert cells_of(await book.read())[1].model_fields_set >= {"context"}
    assert 0 < await site.redis.ttl("dialer:cells") <= 30 * 24 * 3600


async def test_unserved_cells_have_no_bridge_and_something_left(
    site: Site,
) -> None:
    book = CellBook(site.steps)
    await book.write(CELL, text_of(cell()))
    await site.ledger.take_over("bridge-1")
    await site.push_requests(element())
    await site.ledger.fetch("bridge-1", at_most=1, threads=1)
    assert cells_of(await book.unserved()) == [], "a bridge serves it"
    await dies(site, "bridge-1")
    assert cells_of(await book.unserved()) == [cell()], "a request is in its hand"
    await site.ledger.return_hand("bridge-1")
    assert cells_of(await book.unserved()) == []
    assert cells_of(await book.read()) == [], "there is nothing to remember it for"


@pytest.mark.parametrize("left", ["call", "code in hand", "parked request"])
async def test_a_cell_with_one_thing_left_is_unserved(site: Site, left: str) -> None:
    book = CellBook(site.steps)
    await book.write(CELL, text_of(cell()))
    await site.ledger.take_over("bridge-1")
    if left == "call":
        await site.redis.zadd(f"dialer:live:{CELL}", {f"{CELL}:r-1": 1})
    elif left == "parked request":
        await site.redis.sadd(f"dialer:parking:{CELL}", "tim")
    else:
        await site.push_codes(code_element())
        await site.ledger.fetch_codes("bridge-1", at_most=1)
    await dies(site, "bridge-1")
    assert cells_of(await book.unserved()) == [cell()]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_hand_of_every_dead_bridge_is_looked_at(site: Site, place: int) -> None:
    book = CellBook(site.steps)
    await book.write(CELL, text_of(cell()))
    for n in range(3):
        await site.redis.zadd(f"dialer:bridges:{CELL}", {f"bridge-{n}": n})
    await site.in_hand(element(), bridge=f"bridge-{place}")
    assert cells_of(await book.unserved()) == [cell()]


async def test_each_of_many_unserved_cells_is_found(site: Site) -> None:
    book = CellBook(site.steps)
    cells = [cell(nome=f"ura-{n}") for n in range(4)]
    for one in cells:
        await book.write(one.name, text_of(one))
        await site.redis.zadd(f"dialer:live:{one.name}", {f"{one.name}:r-1": 1})
    assert sorted(cells_of(await book.unserved()), key=lambda c: c.name) == cells


async def test_unreadable_settings_are_skipped_with_one_warning(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    book = CellBook(site.steps)
    await book.write(CELL, text_of(cell()))
    await site.redis.hset("dialer:cells", "ura-2", '{"nome": "ura-2", "novelty": 1}')
    for _ in range(3):
        assert [c.name for c in cells_of(await book.read())] == [CELL]
    assert caplog.text.count("put the cell back into dialer.toml until its calls are over") == 1


async def dies(site: Site, bridge: str) -> None:
    """Set the last heartbeat of a bridge to eleven seconds ago."""
    seconds, _ = await site.redis.time()
    await site.redis.zadd(f"dialer:bridges:{CELL}", {bridge: (seconds - 11) * 1000})
