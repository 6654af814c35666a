"""What every test of the AMI link stands on: a simulated PBX, and no long waits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dialer.simulation.pbx.server import SimulatedPbx
from tests.integration.ami.rig import (
    SECRET,
)
from workers.ami import link as ami


@pytest.fixture
async def pbx() -> AsyncIterator[SimulatedPbx]:
    async with SimulatedPbx(
        secret=SECRET,
        ring_time=(0.02, 0.05),
        talk_time=(0.05, 0.1),
        reject_time=(0.01, 0.02),
        read="system,call,user",
    ) as simulated:
        yield simulated


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setattr(ami, "PING_EVERY_S", 0.2)
    monkeypatch.setattr(ami, "ANSWER_WITHIN_S", 1.0)
