"""Workers on hosts with a wrong clock (libfaketime, else skew.c): Redis decides about time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.clock import Clock, compiler
from tests.conftest import require_service
from tests.integration.stack import Stack
from tests.waiting import wait_until


@pytest.fixture
def wrong_clock(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """Makes variables that give one process a wrong clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    lacks = "on Debian: apt-get install libfaketime (a C compiler does as well)"
    require_service("libfaketime", None if found or compiler() else lacks)

    def variables(seconds: int) -> dict[str, str]:
        if found:
            faked = {"FAKETIME": f"{seconds:+d}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            return {"LD_PRELOAD": str(found[0]), **faked}
        clock = Clock(tmp_path, "wrong")
        faked = clock.environment()
        clock.set(seconds)
        return faked

    return variables


async def fact(stack: Stack, name: str, pbx: str = "pbx01") -> str:
    raw: Any = await stack.redis.hget(f"dialer:pbx:{pbx}", name)
    return bytes(raw or b"").decode()


@pytest.mark.parametrize("seconds", [27, -27])  # from 30 on it would take no calls
async def test_a_wrong_clock_ends_no_request_too_early(
    tmp_path: Path, seconds: int, wrong_clock: Callable[[int], dict[str, str]]
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", table={"governor": False})  # this machine may be busy
        await stack.start(workers=False)
        worker = await stack.start_worker("pbx01", env=wrong_clock(seconds))
        created = datetime.now(UTC).isoformat()
        await stack.push(10, ValidadeSeg=25, CriadaEm=created)
        responses = await stack.responses(10)
        now = datetime.now(UTC).isoformat()
        due = (datetime.fromisoformat(created) + timedelta(seconds=25)).isoformat()
        early = [one for one in responses if one["EncerradaEm"] < due]
        assert {one["Resultado"] for one in early} == {"ANSWERED"}
        for one in early:
            for name in ("DiscadaEm", "AtendidaEm", "EncerradaEm"):
                assert created <= one[name] <= now, f"{name} is {one[name]}"
        assert abs(int(await fact(stack, "skew_ms")) - seconds * 1000) < 1500
        said = "The clock of this host differs from Redis; synchronize it (NTP, chrony)"
        assert worker.log.count(said) == 1


async def test_a_very_wrong_clock_takes_no_calls(
    tmp_path: Path, wrong_clock: Callable[[int], dict[str, str]]
) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01")
        await stack.start(bridges=0, workers=False)
        await stack.start_worker("pbx01", env=wrong_clock(600))

        async def says() -> bool:
            return "this host's clock is 600 s ahead of" in await fact(stack, "trouble")

        await wait_until(says, "the trouble names the clock")
