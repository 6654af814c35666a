"""A real Flower beside the workers: what a supervisor sees of every call, and what nobody sees."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.integration.stack import BIN, CELL, ROOT, Stack
from tests.waiting import wait_until

LOGIN = "supervisor:secret"
REFUSED = 85
COLUMNS = ("received", "args", "state", "runtime", "result", "worker", "exception")


@dataclass(frozen=True, slots=True)
class Flower:
    """Flower's pages and API."""

    port: int

    async def text(self, path: str) -> str:
        return await asyncio.to_thread(self._get, path)

    async def tasks(self) -> dict[str, dict[str, Any]]:
        """Every task by its id, which is the call's."""
        found: dict[str, dict[str, Any]] = json.loads(await self.text("/api/tasks"))
        return found

    async def demands_login(self) -> bool:
        """True if the start page is refused without the password."""
        page = f"http://127.0.0.1:{self.port}/"
        try:
            await asyncio.to_thread(urllib.request.urlopen, page, timeout=10)
        except urllib.error.HTTPError as error:
            with error:
                return error.code == HTTPStatus.UNAUTHORIZED
        return False

    async def answers(self) -> bool:
        try:
            return bool(await self.text("/api/workers"))
        except OSError:
            return False

    def _get(self, path: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        login = base64.b64encode(LOGIN.encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=10) as reply:
            content: bytes = reply.read()
        return content.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def flower_of(stack: Stack) -> AsyncIterator[Flower]:
    """Flower as an operator starts it; ready once it knows the worker."""
    flower = Flower(free_port())
    command = [str(BIN / "celery"), "-A", "dialer", "flower", f"--port={flower.port}"]
    folder = stack.folder / "credentials"
    folder.mkdir()
    (folder / "FLOWER_BASIC_AUTH").write_text(f"{LOGIN}\n")
    await stack.run("flower", command, env={"CREDENTIALS_DIRECTORY": str(folder)})
    await wait_until(flower.answers, "Flower answers")

    async def knows_the_worker() -> bool:
        return "pbx01@" in await flower.text("/api/workers?refresh=1")

    await wait_until(knows_the_worker, "Flower knows the worker")
    yield flower


async def test_flower_shows_a_call_while_up_and_how_it_ended(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx("pbx01", talk_time=(300.0, 300.0))  # until Flower has seen them
        await stack.start()
        async with flower_of(stack) as flower:
            assert await flower.demands_login()
            answered = await stack.push(5)
            (refused,) = await stack.push(1, last_two=REFUSED)
            await stack.until_live(5)
            calls = {f"{CELL}:{request['IdRequisicao']}": request for request in answered}

            async def states() -> dict[str, str]:
                return {uuid: task["state"] for uuid, task in (await flower.tasks()).items()}

            async def are(state: str) -> bool:
                now = await states()
                return all(now.get(call_id) == state for call_id in calls)

            await wait_until(lambda: are("STARTED"), "every call is STARTED")
            assert sum(pbx.live for pbx in stack.pbxs.values()) == 5
            await stack.until_answered(5)
            stack.end_calls()
            await stack.responses(6)
            await wait_until(lambda: are("SUCCESS"), "every call is SUCCESS")

            async def has_failed() -> bool:
                return (await states()).get(f"{CELL}:{refused['IdRequisicao']}") == "FAILURE"

            await wait_until(has_failed, "the refused call is a FAILURE")

            tasks = await flower.tasks()
            by_id = {r["IdRequisicao"]: r for r in stack.multcall.responses}
            for call_id, request in calls.items():
                response, task = by_id[request["IdRequisicao"]], tasks[call_id]
                assert task["result"].strip("'").startswith("ANSWERED cause=16 talked=")
                assert abs(task["runtime"] - response["DuracaoSeg"]) < 0.01
                assert request["Telefone"][-4:] in task["args"]
            failed = tasks[f"{CELL}:{refused['IdRequisicao']}"]
            assert failed["state"] == "FAILURE"
            assert failed["exception"].startswith("FAILED: Asterisk refused the Originate")
            await _shows_no_number(flower, [*answered, refused], tasks)


async def _shows_no_number(
    flower: Flower, requests: list[dict[str, Any]], tasks: dict[str, dict[str, Any]]
) -> None:
    columns = "&".join(f"columns[{i}][data]={name}" for i, name in enumerate(COLUMNS))
    table = f"/tasks/datatable?draw=1&start=0&length=100&search[value]=&{columns}"
    order = "&order[0][column]=1&order[0][dir]=asc"
    worker = urllib.parse.quote(next(iter(tasks.values()))["worker"])
    pages = ["/", "/workers", f"/worker/{worker}", "/tasks", table + order, "/broker"]
    pages += ["/api/tasks", "/api/workers?refresh=1", "/api/queues/length", "/metrics"]
    for call_id in tasks:
        pages += [f"/task/{call_id}", f"/api/task/info/{call_id}"]
    seen = {page: await flower.text(page) for page in pages}
    assert "ANSWERED cause=16" in seen[table + order]
    for page, text in seen.items():
        for request in requests:
            assert request["Telefone"] not in text, page
            assert request["Telefone"][:-4] not in text, page


#: Runs `celery -A dialer flower` and prints its options instead of serving.
ASK = """
import sys
import flower.command as command
from celery.bin.celery import main

def show():
    options = command.options
    print(options.max_tasks, repr(options.address), options.tasks_columns)
    sys.exit()

command.extract_settings = show
sys.argv[:] = ["celery", "-A", "dialer", "flower"]
main()
"""


def test_flower_takes_our_limits_unless_the_operator_sets_them(tmp_path: Path) -> None:
    config = tmp_path / "dialer.toml"
    example = ROOT / "deploy" / "dialer.toml"
    config.write_text(example.read_text())

    def options(**environment: str) -> str:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("FLOWER_")}
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env={**plain, "DIALER_CONFIG": str(config), **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert options() == f"10000 '127.0.0.1' {','.join(COLUMNS)}"
    (tmp_path / "FLOWER_MAX_TASKS").write_text("9\n")  # as FLOWER_BASIC_AUTH, of a secret's folder
    assert options(CREDENTIALS_DIRECTORY=str(tmp_path)).startswith("9 ")
    assert options(FLOWER_MAX_TASKS="7").startswith("7 ")
