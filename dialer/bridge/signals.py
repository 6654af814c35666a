"""The signals of a bridge: stop, or read the settings again."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field


def block_sighup() -> None:
    """Block SIGHUP until `Signals.listen`, because it would end a starting bridge.

    Does nothing on a terminal: closing the terminal ends the program as usual.
    """
    if not _on_terminal():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


@dataclass(slots=True)
class Signals:
    """`stop` is set by SIGTERM and SIGINT, `reread` by SIGHUP. Belongs to one event loop."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reread: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def listen(cls) -> Signals:
        """Handle signals from now on, also a SIGHUP that `block_sighup` has delayed."""
        signals = cls()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, signals.stop.set)
        if not _on_terminal():
            loop.add_signal_handler(signal.SIGHUP, signals.reread.set)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        return signals


def _on_terminal() -> bool:
    return sys.stderr.isatty()
