"""`dialer demo`: the whole system on this machine, with 200 calls, in less than a minute.

Starts the system (`system`), simulates Multcall and shows the progress (`screen`).
Owns the sequence, the signals and the exit code; leaves no process or file.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError
from rich.console import Console

from dialer.multcall.keys import CellKeys
from dialer.simulation.demo.screen import Screen, report
from dialer.simulation.demo.system import CELLS, CODE_WAIT_S, DemoSystem
from dialer.simulation.multcall.checker import Checker, Summary
from dialer.simulation.multcall.player import play
from dialer.store.client import cancel, connect

#: Seconds over which the requests are spread, within the limits of RATES.
PUSH_WITHIN_S: Final = 12.0
#: Lowest and highest number of requests per second.
RATES: Final = (4.0, 40.0)

#: Seconds after the last request within which the last call ends.
ANSWERED_WITHIN_S: Final = 30.0
COUNTERS_EVERY_S: Final = 0.2

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, calls: int, keep: bool) -> None:
    """Run the demo; exit with 1 if there were violations, with 128 + n after signal n.

    Raises:
        PartFailed: a process did not start or died.
    """
    code = asyncio.run(_Demo(calls=calls, keep=keep).run())
    if code:
        sys.exit(code)


@dataclass(slots=True, kw_only=True)
class _Demo:
    calls: int
    keep: bool
    console: Console = field(default_factory=Console)
    _signal: int = 0
    _code: int | None = None

    async def run(self) -> int:
        """Run everything and return the exit code."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def on_signal(number: int) -> None:
            if not self._signal:  # once: the stop itself must not be interrupted
                self._signal = number
                task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
        try:
            await self._run()
        except asyncio.CancelledError:
            if not self._signal:
                raise
            self._print("Stopped; nothing is left behind.")
        return 128 + self._signal if self._code is None else self._code

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    async def _run(self) -> None:
        self._print(
            "Starting Valkey, two simulated PBXs, the bridge, two Celery workers, the web page, "
            "Flower..."
        )
        async with DemoSystem() as system:
            await system.until_ready()
            missing = "not installed (multcall-dialer[web])"
            self._print(f"Web page, with a link that works once: {system.web_url or missing}")
            self._print(
                f"Flower: {system.flower_url or 'not installed (multcall-dialer[monitor])'}"
            )
            summary = await self._calls(system)
            self._code = 0 if summary.is_right else 1
            if self.keep:
                await self._keep(system)

    async def _calls(self, system: DemoSystem) -> Summary:
        """Simulate Multcall and report; raise PartFailed if a process dies in the meantime."""
        playing = asyncio.create_task(self._play(system))
        watching = asyncio.create_task(system.watch())
        try:
            await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            return playing.result()
        finally:
            await cancel([playing, watching])

    async def _play(self, system: DemoSystem) -> Summary:
        screen = Screen(self.console, system.pbxs, self.calls)
        counting = asyncio.create_task(_count(system, screen))
        seen: list[Checker] = []

        def watch(checker: Checker) -> None:
            seen[:] = [checker]
            screen.show(checker)

        low, high = RATES
        try:
            with screen.showing():
                summary = await play(
                    system.redis_url,
                    CELLS,
                    self.calls,
                    min(max(self.calls / PUSH_WITHIN_S, low), high),
                    code_wait_s=CODE_WAIT_S,
                    answered_within_s=ANSWERED_WITHIN_S,
                    rings=system.rings,
                    watch=watch,
                )
        finally:
            await cancel([counting])
        report(self.console, summary, seen[0], system.pbxs)
        return summary

    async def _keep(self, system: DemoSystem) -> None:
        self._print(
            "\nEverything continues to run until Ctrl-C. In another terminal:\n"
            f"  export DIALER_CONFIG={system.config_path}\n"
            "  dialer simulate multcall --calls 500 --rate 50\n"
            "  dialer monitor"
        )
        await system.watch()


async def _count(system: DemoSystem, screen: Screen) -> None:
    """Read Multcall's counters, summed over all cells, until cancelled."""
    names = {"Counter": "counter", "CounterACK": "counter_ack"}
    async with connect(system.redis_url) as redis:
        while True:
            counters: dict[str, int] = {}
            for name, key in names.items():
                try:
                    values = await redis.mget([getattr(CellKeys(cell), key) for cell in CELLS])
                except (RedisError, OSError):
                    continue
                counters[name] = sum(int(value or 0) for value in values)
            screen.counters = counters
            await asyncio.sleep(COUNTERS_EVERY_S)
