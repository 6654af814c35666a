"""`dialer web` ends with a reason: a port that is taken, steps that have stopped."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from sse_starlette.sse import AppStatus
from starlette.applications import Starlette

from dialer.cli import programs
from dialer.errors import DialerError, StepsStopped
from dialer.monitor import metrics
from dialer.web import server as web_server
from dialer.web.server import CONNECTIONS_MAX, _listener, _Server, serve_until_stopped
from tests.processes import ROOT
from tests.unit.stand_ins import a
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def end_of_a_server_is_forgotten() -> Iterator[None]:
    """sse-starlette notes for the whole process that a server ends, and ends later streams."""
    yield
    AppStatus.should_exit = False


def made() -> uvicorn.Server:
    return _Server(uvicorn.Config(Starlette(), log_config=None, lifespan="off"))


async def test_stopped_steps_end_the_server() -> None:
    stopped: asyncio.Queue[StepsStopped] = asyncio.Queue()
    with closing(_listener("127.0.0.1", 0)) as listener:
        server = made()
        serving = asyncio.create_task(serve_until_stopped(server, [listener], stopped))
        await wait_until(lambda: server.started, "the page is served")
        stopped.put_nowait(StepsStopped("the steps have stopped"))
        with pytest.raises(StepsStopped, match="have stopped"):
            await asyncio.wait_for(serving, 10)


async def test_signal_ends_the_server_without_an_error() -> None:
    with closing(_listener("127.0.0.1", 0)) as listener:
        server = made()
        serving = asyncio.create_task(serve_until_stopped(server, [listener], asyncio.Queue()))
        await wait_until(lambda: server.started, "the page is served")
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(serving, 10)


def test_a_port_that_is_taken_is_said() -> None:
    with closing(_listener("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(DialerError, match=rf"cannot listen on 127.0.0.1:{port} \(.+\): choose"):
            _listener("127.0.0.1", port)


@pytest.mark.parametrize(("command", "module"), [("web", web_server), ("metrics", metrics)])
def test_another_error_of_the_system_stays_itself(
    monkeypatch: pytest.MonkeyPatch, command: str, module: Any
) -> None:
    async def serve(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(module, "serve", serve)
    monkeypatch.setattr(programs, "settings_with_log", lambda _: a())
    run = getattr(programs, command)
    more = {"proxy": ""} if command == "web" else {}
    with pytest.raises(OSError, match="the disk is full"):  # a DialerError is no OSError
        run(host="127.0.0.1", port=1, **more)


def test_the_unit_allows_a_file_for_each_connection() -> None:
    unit = (ROOT / "deploy" / "systemd" / "dialer-web.service").read_text(encoding="utf-8")
    limit = re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    assert int(limit[1]) > 2 * CONNECTIONS_MAX
