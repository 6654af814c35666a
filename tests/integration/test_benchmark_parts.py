"""What the benchmarks dial with: a bare AMI client, the old script, a lean Multcall."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.bare import BareClient, Manager
from benchmarks.caller import Caller, requests
from benchmarks.idle import QuietStack
from benchmarks.pbxs import LAST_TWO, dialed
from dialer.multcall.keys import CellKeys
from dialer.simulation.pbx.server import SimulatedPbx
from dialer.simulation.valkey import EmbeddedValkey
from tests.integration.stack import CELL, QUICK, SECRET
from tests.processes import ROOT, Program
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.integration

ANSWERED, BUSY = 60, 70


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


async def test_bare_client_counts_answered_calls_only() -> None:
    numbers = [f"+55119{n:05d}{BUSY if n % 3 == 0 else ANSWERED}" for n in range(9)]
    async with SimulatedPbx(secret=SECRET, **QUICK) as pbx:
        manager = Manager(host=pbx.host, port=pbx.port, username="dialer", secret=SECRET)
        client = BareClient(run="t", trunk="PJSIP/{number}@tim", at_once=4)
        calls = await client.dial(manager, numbers, 200.0, PATIENCE_S)
        assert pbx.peak_live <= 4
    assert Counter(call.is_good for call in calls.values()) == {True: 6, False: 3}
    assert all(call.ended_at and call.accepted_at for call in calls.values())


async def test_bare_client_refuses_to_measure_a_refused_login() -> None:
    async with SimulatedPbx(secret=SECRET) as pbx:
        manager = Manager(host=pbx.host, port=pbx.port, username="dialer", secret="wrong")
        client = BareClient(run="t", trunk="PJSIP/{number}@tim", at_once=4)
        with pytest.raises(ConnectionError):
            await client.dial(manager, ["+551190000060"], 10.0, PATIENCE_S)


async def test_caller_subtracts_its_own_commands(valkey: EmbeddedValkey) -> None:
    async with Caller(valkey.url(0), [CELL]) as caller:
        await caller.push(requests("R", 1, ANSWERED, [CELL]))
        before = await caller.others_traffic()
        for one in requests("R", 50, ANSWERED, [CELL], 1):
            await caller.push([one])
        traffic = await caller.others_traffic() - before
    # The reading's own commands, and what blocks in the meantime, may be on either side.
    assert abs(traffic.commands) <= 10
    assert abs(traffic.reads) <= 10
    assert traffic.steps == 0


async def test_caller_has_its_answers_checked(valkey: EmbeddedValkey) -> None:
    keys = CellKeys(CELL)
    async with Caller(valkey.url(0), [CELL]) as caller:
        calling = asyncio.create_task(
            caller.call(requests("R", 2, ANSWERED, [CELL]), 1000.0, within_s=0.5)
        )
        await caller.redis.rpush(keys.response, json.dumps({"IdRequisicao": "R-0"}))
        assert not await calling
    kinds = {violation.kind for violation in caller.checked().violations()}
    assert kinds == {"schema", "no_response"}


async def test_old_script_answers_as_the_dialer_does(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with SimulatedPbx(secret=SECRET, **QUICK) as pbx:
        command = [
            *(sys.executable, "-m", "benchmarks.old_script", "--redis", valkey.url(0)),
            *("--cell", CELL, "--ami", f"{pbx.host}:{pbx.port}"),
            *("--user", "dialer", "--secret", SECRET),
        ]
        script = Program("old", command, tmp_path / "none.toml", tmp_path / "old.log")
        script.start(PYTHONPATH=str(ROOT))
        try:
            async with Caller(valkey.url(0), [CELL]) as caller:
                asked = requests(secrets.token_hex(2), 10, ANSWERED, [CELL])
                assert await caller.call(asked, 50.0, PATIENCE_S), script.said()
        finally:
            await asyncio.to_thread(script.stop)
    checker = caller.checked()
    assert checker.violations() == ()
    assert (checker.acks, checker.codes, checker.responses) == (10, 10, 10)
    cpu_s, switches = script.said().split()
    assert float(cpu_s) > 0
    assert int(switches) > 10


async def test_figures_of_a_stack_are_all_there(tmp_path: Path) -> None:
    async with QuietStack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        row = await dialed(stack, rate=40.0, calls=20)
    assert row["violations"] == 0
    assert all(isinstance(value, int | float) for value in row.values()), row
    assert 3 <= float(row["steps"] or 0) <= 40
    assert LAST_TWO == ANSWERED
