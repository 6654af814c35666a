"""`dialer call`: what a call of the last 24 hours went through, from a real ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.domain.call import Result as Outcome
from tests.integration.cell_rig import BUSY, CELL, Site, code_element
from tests.processes import PbxPlace, site_toml


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


@pytest.fixture(autouse=True)
def config(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pbx = PbxPlace(name="pbx01", port=5038, secret="x")
    cells: dict[str, dict[str, Any]] = {"OTHER": {}, CELL: {}}
    path = tmp_path / "dialer.toml"
    path.write_text(site_toml(redis_url, redis_url, [pbx], cells=cells))
    monkeypatch.setenv("DIALER_CONFIG", str(path))


async def shown(*arguments: str) -> Result:
    """Run the command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["call", *arguments])


async def test_a_call_that_is_up_is_shown(site: Site) -> None:
    await site.accepted("r-1")
    lines = (await shown("r-1")).stdout.splitlines()
    assert lines[0] == f"{CELL}:r-1: accepted"
    assert [line.split()[2] for line in lines[2:]] == ["queued", "originating", "accepted"]
    assert lines[2].endswith("bridge           to pbx01")
    assert lines[4].endswith("Asterisk         ACK sent, no code yet")


async def test_a_done_call_keeps_its_story(site: Site) -> None:
    entry = await site.accepted("r-1")
    await site.ledger.answer(entry.call.call_id, at=BUSY.ended_at)
    await site.code(code_element("r-1"))
    await site.end("r-1", replace(BUSY, result=Outcome.ANSWERED))
    assert await site.state("r-1") == "done"
    (line,) = (await shown(f"{CELL}:r-1", "--json")).stdout.splitlines()
    story = json.loads(line)
    assert (story["call"], story["state"], story["pbx"]) == (f"{CELL}:r-1", "done", "pbx01")
    assert (story["result"], story["error"]) == ("ANSWERED", None)
    states = [(one["state"], one["by"]) for one in story["states"]]
    assert states == [
        ("queued", "bridge"),
        ("originating", "worker of pbx01"),
        ("accepted", "Asterisk"),
        ("answered", "the customer"),
        ("ended", "worker of pbx01"),
    ]
    assert story["states"][2]["detail"] == "ACK sent, the code came"
    assert await site.field("r-1", "request") is None, "and nothing of its request"


async def test_an_unknown_call_is_one_sentence(site: Site) -> None:
    ran = await shown("r-9")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"there is no call r-9 of the last 24 hours in OTHER, {CELL}; its request may still wait "
        "in Multcall's list, or be on the dead list\n"
    )
    assert str((await shown("r-9", "--cell", "ASR")).exception).startswith("there is no cell ASR")
