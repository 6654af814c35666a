"""A short seeded run of the chaos, as CI runs it; `make chaos` runs the long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.acceptance.lab.lab import docker_available
from tests.chaos.run import Chaos, broken, table
from tests.conftest import require_service

SEED, FAULTS, CALLS = 20261123, 60, 500


@pytest.mark.chaos
@pytest.mark.timeout(280)
def test_no_call_is_lost_answered_twice_or_rung_twice_whatever_is_killed(tmp_path: Path) -> None:
    require_service("Docker", docker_available())
    chaos = Chaos(seed=SEED, faults=FAULTS, calls=CALLS, rate=12.0, pace_s=0.7, folder=tmp_path)
    summary = asyncio.run(chaos.run())
    said = "\n".join(table(chaos, summary))
    print(said)
    assert not broken(chaos, summary), said
    assert summary.calls == summary.responses == CALLS
    assert len(chaos.done) >= FAULTS / 2  # the calls may be over before all faults were made
