"""Operators correct dead elements: each is sent once, under a new id, linked to the old one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dialer.dead_list import Correction, DeadElements, Handled, SentBefore, StillWrong
from dialer.multcall.keys import CellKeys
from dialer.settings import load
from dialer.store.keys import LedgerKeys
from dialer.store.ledger import DeadEntry, DeadList, Replacement, reasons_of
from dialer.store.ledger import dead as module
from tests.integration.cell_rig import BRIDGE, CELL, Site
from tests.integration.stack import BIN, Program, Stack
from tests.integration.web_site import settings_at
from tests.waiting import wait_until

KEYS, WIRE = LedgerKeys(CELL), CellKeys(CELL)
LINK = Replacement(replaces="r-1", by="ana@ops", at="2026-11-27T10:00:00.000+00:00", entry="e")


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def buried(site: Site, name: str = "r-1", reason: str = "invalid_request") -> DeadEntry:
    raw = json.dumps({"IdRequisicao": name, "Telefone": "?"})
    entry = {"at": "2026-11-27T09:00:00.000Z", "source": "request", "reason": reason,
             "message": "Telefone", "raw": raw, "raw_base64": None}  # fmt: skip
    await site.redis.rpush(KEYS.dead, json.dumps(entry))
    (found,) = await dead(site).newest(1)
    return found


def dead(site: Site) -> DeadList:
    return DeadList(site.steps, CELL)


async def requests(site: Site) -> list[Any]:
    return list(await site.redis.lrange(WIRE.request, 0, -1))


async def send(site: Site, entry: DeadEntry, new_id: str = "r-1-c1") -> str:
    return await dead(site).send(entry, b"{}", request_id=new_id, link=LINK)


async def test_an_entry_is_sent_once(site: Site) -> None:
    entry = await buried(site)
    assert await send(site, entry) == "sent"
    assert await send(site, entry) == "sent", "the reply was lost"
    assert await requests(site) == [b"{}"]
    assert await dead(site).size() == 0
    assert await send(site, entry, "r-1-c2") == "gone"
    assert await requests(site) == [b"{}"]


async def test_a_sent_entry_leaves_a_link_and_a_trail(site: Site) -> None:
    entry = await buried(site)
    await send(site, entry)
    assert await dead(site).replaced_by("r-1-c1") == LINK
    assert await dead(site).replaced_by("r-1") is None
    trail = [json.loads(one) for one in await site.redis.lrange(KEYS.dead_trail, 0, -1)]
    assert [(one["did"], one["by"], one["sent_as"]) for one in trail] == [
        ("sent", "ana@ops", "r-1-c1")
    ]
    assert trail[0]["entry"].encode() == entry.text


async def test_a_used_id_is_not_used_again(site: Site) -> None:
    entry = await buried(site)
    await site.admitted("used")
    assert await send(site, entry, "used") == "used"
    other = await buried(site, "r-2")
    assert await send(site, entry) == "sent"
    theirs = replace(LINK, entry=other.name)
    assert await dead(site).send(other, b"{}", request_id="r-1-c1", link=theirs) == "used"
    assert await dead(site).size() == 1


async def test_discarded_entries_are_in_the_trail(site: Site) -> None:
    entries = [await buried(site, f"r-{n}") for n in range(3)]
    assert await dead(site).discard(entries[:2], by="ana", at="now", why="a test") == 2
    assert await dead(site).discard(entries, by="rui", at="now", why="") == 1
    assert await dead(site).size() == 0
    trail = [json.loads(one) for one in await site.redis.lrange(KEYS.dead_trail, 0, -1)]
    assert [(one["did"], one["by"]) for one in trail] == [
        ("discarded", "rui"), ("discarded", "ana"), ("discarded", "ana"),
    ]  # fmt: skip


async def test_entries_are_found_by_name_and_reason(site: Site) -> None:
    for n in range(1_200):
        await buried(site, f"r-{n}", "duplicate_request" if n % 2 else "invalid_request")
    every = await dead(site).newest(10_000)
    assert len(every) == len({entry.name for entry in every}) == 1_200
    assert reasons_of(every) == {"duplicate_request": 600, "invalid_request": 600}
    oldest = every[-1]
    assert await dead(site).newest(1, names=[oldest.name]) == [oldest]
    assert len(await dead(site).newest(700, reasons=["invalid_request"])) == 600
    assert [e.reason for e in await dead(site).newest(2)] == [
        "duplicate_request", "invalid_request",
    ]  # fmt: skip


async def test_of_two_entries_that_are_alike_one_is_taken(site: Site) -> None:
    twin = await buried(site)
    await site.redis.rpush(KEYS.dead, twin.text)
    other = await buried(site, "r-2")
    found = await dead(site).newest(2, names=[twin.name, other.name])
    assert [entry.name for entry in found] == [other.name, twin.name]
    assert await dead(site).discard([twin], by="ana", at="now", why="") == 1
    assert await dead(site).size() == 2


async def test_the_trail_keeps_the_last_ones(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEAD_TRAIL_KEPT", 3)
    for n in range(5):
        await buried(site, f"r-{n}" + "x" * 20_000 * (n == 4))
    await dead(site).discard(await dead(site).newest(9), by="ana", at="now", why="")
    rows: Any = await site.redis.lrange(KEYS.dead_trail, 0, -1)
    trail = [one.decode() for one in rows]
    assert [f"r-{n}" in text for n, text in zip((4, 3, 2), trail, strict=True)] == [True] * 3
    assert max(map(len, trail)) < 3 * module.NOTED_MAX


@pytest.mark.parametrize(
    "garbage",
    [b"", b"x", b"[]", b"{}", b"\xff", b'{"raw": "a"}', b'{"raw": null, "raw_base64": "?"}'],
)
async def test_garbage_in_the_list_is_shown_and_can_be_discarded(
    site: Site, garbage: bytes
) -> None:
    await site.redis.rpush(KEYS.dead, garbage)
    (entry,) = await dead(site).newest(5)
    assert (entry.reason, entry.raw) == ("unknown", garbage)
    assert await dead(site).discard([entry], by="ana", at="now", why="") == 1


async def test_a_binary_element_is_kept(site: Site) -> None:
    await site.in_hand(b"\xff\x00")
    entry = json.dumps({"at": "a", "source": "request", "reason": "r", "message": "m",
                        "raw": None, "raw_base64": "/wA="})  # fmt: skip
    assert await site.ledger.bury(site.ledger.keys.hand(BRIDGE), b"\xff\x00", entry)
    (found,) = await dead(site).newest(1)
    assert found.raw == b"\xff\x00"


async def test_of_two_entries_that_are_alike_one_is_sent(
    redis_url: str, site: Site, tmp_path: Path
) -> None:
    settings = settings_at(redis_url, tmp_path)
    ana = DeadElements(dead(site), settings, settings.cell(CELL), "ana")
    entry = await buried(site)
    await site.redis.rpush(KEYS.dead, entry.text)
    right = {"Telefone": '"11912345600"'}
    assert await ana.send(entry, Correction(changes=right)) == "r-1-c1"
    with pytest.raises(SentBefore, match=r"as r-1-c1: discard this one; .* --may-ring-again"):
        await ana.send(entry, Correction(changes=right))
    assert len(await requests(site)) == 1
    anyway = Correction(changes=right, may_ring_again=True)
    assert await ana.send(entry, anyway) == "r-1-c2"
    with pytest.raises(Handled):
        await ana.send(entry, Correction(changes=right))


async def test_a_given_id_does_not_hide_that_one_was_sent(
    redis_url: str, site: Site, tmp_path: Path
) -> None:
    settings = settings_at(redis_url, tmp_path)
    ana = DeadElements(dead(site), settings, settings.cell(CELL), "ana")
    entry = await buried(site)
    await site.redis.rpush(KEYS.dead, entry.text)
    given = {"Telefone": '"11912345600"', "IdRequisicao": '"new"'}
    assert await ana.send(entry, Correction(changes=given)) == "new"
    with pytest.raises(SentBefore, match="as new"):
        await ana.send(entry, Correction(changes=given))
    with pytest.raises(StillWrong, match="the id new was used already"):
        await ana.send(entry, Correction(changes=given, may_ring_again=True))


# --- with processes ---------------------------------------------------------------------


async def dialer(stack: Stack, *args: str, exits: int = 0) -> str:
    program: Program = await stack.run("dead", [str(BIN / "dialer"), "dead", *args])
    code = await program.exit_code(60)
    assert code == exits if exits >= 0 else code > 0, program.log
    return program.log


def elements(stack: Stack, site: Site, by: str) -> DeadElements:
    settings = load(stack.config_path)
    return DeadElements(dead(site), settings, settings.cell(CELL), by)


async def test_corrected_requests_are_dialed_once(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        wrong = [{"Telefone": "none", "IdRequisicao": "R1"}]
        wrong += [{"Tronco": "tmi", "IdRequisicao": f"R{n}"} for n in (2, 3)]
        await stack.push(wrong)
        assert {r["Resultado"] for r in await stack.responses(3)} == {"INVALID_REQUEST"}
        async with Site(stack.valkey.url(0)) as site:
            entries = await dead(site).newest(10)
            by_id = {json.loads(entry.raw)["IdRequisicao"]: entry for entry in entries}
            ana, rui = (elements(stack, site, by) for by in ("ana", "rui"))
            right = Correction(changes={"Telefone": '"11912345600"'})
            both = await asyncio.gather(
                ana.send(by_id["R1"], right), rui.send(by_id["R1"], right), return_exceptions=True
            )
            assert [one for one in both if isinstance(one, str)] == ["R1-c1"]
            assert [type(one) for one in both if not isinstance(one, str)] == [Handled]
            twice = replace(by_id["R2"], reason="duplicate_request")
            with pytest.raises(StillWrong, match="its number may have been rung already"):
                await ana.send(twice, right)
            with pytest.raises(StillWrong, match="a request has no field telefone"):
                await ana.send(by_id["R2"], Correction(changes={"telefone": '"1"'}))
            with pytest.raises(StillWrong, match="it would be refused again: Tronco"):
                await ana.send(by_id["R2"], Correction(changes={}))
            assert await dead(site).size() == 2
            link = await dead(site).replaced_by("R1-c1")
            assert link is not None
            assert (link.replaces, link.entry) == ("R1", by_id["R1"].name)
        responses = await stack.responses(4)
        assert (responses[3]["IdRequisicao"], responses[3]["Resultado"]) == ("R1-c1", "ANSWERED")

        shown = await dialer(stack, "list", CELL)
        assert "2 of 2 entries" in shown
        assert "tmi" in await dialer(stack, "show", CELL, by_id["R2"].name)
        refused = {
            ("--set", "Telefone=1"): "Telefone is for one entry",
            ("--set", "telefone=1"): "a request has no field telefone",
            ("--element", "{}"): "--element replaces one element",
            ("--may-ring-again",): "name each entry",
        }
        for args, said in refused.items():
            log = await dialer(stack, "send", CELL, "--reason", "invalid_request", *args, exits=-1)
            assert said in log
        for wrong_use in (["--all", "--reason", "invalid_request"], ["--reason", "nonsense"], []):
            assert "dialer: " in await dialer(stack, "discard", CELL, *wrong_use, exits=2)
        said = await dialer(stack, "send", CELL, "--reason", "invalid_request",
                            "--set", "Tronco=tim", "--why", "typing error")  # fmt: skip
        assert "sent as R2-c1" in said
        assert "sent as R3-c1" in said
        await stack.responses(6)
        story = await stack.run("call", [str(BIN / "dialer"), "call", "R2-c1"])
        assert await story.exit_code(60) == 0
        assert "replaces R2, corrected and sent again by " in story.log
        assert "0 of 0 entries" in await dialer(stack, "list", CELL)
        assert "no dead entry" in await dialer(stack, "send", CELL, by_id["R2"].name, exits=2)
        await wait_until(lambda: stack.rings.total() == 3, "three calls rang")
