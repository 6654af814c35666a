"""Celery's control commands, as an operator gives them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from dialer.celery import BROKER_ERRORS
from dialer.settings.broker_url import for_celery
from tests.processes import Program

#: A command is sent again so often and for so long, in seconds.
REPLIES_WITHIN_S = 1.5
OBEYED_WITHIN_S = 60.0


@dataclass(slots=True)
class Control:
    """Sends commands to the workers at one broker."""

    broker_url: str
    _app: Any = field(init=False)

    def __post_init__(self) -> None:
        broker = for_celery(self.broker_url)
        self._app = Celery("chaos", broker=broker.url, set_as_current=False)
        self._app.conf.broker_transport_options = broker.transport_options

    async def command(
        self, command: str, queue: str, names: Sequence[str], programs: dict[str, Program]
    ) -> None:
        """Send a command to the workers of these PBXs until each has obeyed.

        Celery's broadcasts get lost while a worker connects to the broker. A worker that started
        in the meantime needs none.
        """
        pids = {name: programs[name].pid for name in names}
        deadline = time.monotonic() + OBEYED_WITHIN_S
        while pids and time.monotonic() < deadline:
            with contextlib.suppress(*BROKER_ERRORS):
                for name in await asyncio.to_thread(self._obeyed, command, queue, [*pids]):
                    pids.pop(name, None)
            pids = {name: pid for name, pid in pids.items() if programs[name].pid == pid}

    def _obeyed(self, command: str, queue: str, names: Sequence[str]) -> list[str]:
        """Send the command; return the PBXs whose workers have replied."""
        with self._app.connection_for_write() as connection:
            replies = self._app.control.broadcast(
                command,
                arguments={"queue": queue},
                destination=[f"{name}@{socket.gethostname()}" for name in names],
                connection=connection,
                reply=True,
                timeout=REPLIES_WITHIN_S,
                limit=len(names),
            )
        return [node.partition("@")[0] for reply in replies or () for node in reply]
