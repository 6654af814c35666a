"""`dialer metrics` with real processes: a scrape tells what happened, also while Redis is away."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

from tests.integration.stack import BIN, CELL, Program, Stack
from tests.integration.test_flower import free_port
from tests.waiting import wait_until


async def scrape(port: int) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


def value(text: str, sample: str) -> float | None:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def command(port: int) -> list[str]:
    return [str(BIN / "dialer"), "metrics", "--port", str(port)]


async def serving(stack: Stack, port: int) -> Program:
    program = await stack.run("metrics", command(port))
    await wait_until(lambda: "Metrics ready" in program.log, "the metrics are served")
    return program


async def test_a_scrape_tells_what_happened(tmp_path: Path) -> None:
    async with Stack(tmp_path, cell={"threads": 5}) as stack:
        stack.add_pbx()
        await stack.start()
        port = free_port()
        program = await serving(stack, port)
        await stack.push(6)
        await stack.push(2, last_two=70)  # busy
        await stack.responses(8)
        text = await scrape(port)
        label = f'cell="{CELL}"'
        assert value(text, "dialer_up") == 1
        answered = f'dialer_responses_total{{{label},outcome="ANSWERED",pbx="pbx01"}}'
        assert value(text, answered) == 6
        await stack.push(3)
        await stack.responses(11)
        again = await scrape(port)
        assert value(again, answered) == 9
        assert value(again, f"dialer_threads{{{label}}}") == 5
        assert value(again, 'dialer_pbx_ready{pbx="pbx01"}') == 1
        assert value(again, f'dialer_cell_limit{{{label},reason="no_requests"}}') is not None
        second = await stack.run("second", command(port))
        assert await second.exit_code(40) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in second.log
        assert await program.stop() == 0


async def test_a_scrape_without_redis_says_so(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        port = free_port()
        program = await serving(stack, port)
        assert value(await scrape(port), "dialer_up") == 1
        stack.valkey.kill()
        text = await scrape(port)
        assert value(text, "dialer_up") == 0
        assert "dialer_threads" not in text
        assert "Metrics cannot be read" in program.log
        await stack.start_valkey()
        assert value(await scrape(port), "dialer_up") == 1
