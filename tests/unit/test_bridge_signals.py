"""Which signals a bridge handles, on a terminal and without one."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import pytest

from dialer.bridge.signals import Signals, block_sighup
from tests.unit.stand_ins import Notes

HUP = {signal.SIGHUP}


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Notes:
    notes = Notes()
    monkeypatch.setattr(signal, "pthread_sigmask", notes.now_of("mask"))
    return notes


def terminal(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: there)


@pytest.mark.parametrize("there", [True, False])
def test_sighup_is_blocked_except_on_a_terminal(
    masks: Notes, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    terminal(monkeypatch, there=there)
    block_sighup()
    assert masks == ([] if there else [("mask", signal.SIG_BLOCK, HUP)])


@pytest.mark.parametrize("there", [True, False])
async def test_a_bridge_listens_to_its_signals(
    masks: Notes, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    terminal(monkeypatch, there=there)
    handlers: dict[int, Any] = {}
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "add_signal_handler", handlers.__setitem__)
    signals = Signals.listen()
    stops = {signal.SIGTERM, signal.SIGINT}
    assert handlers.keys() == (stops if there else stops | HUP)
    assert masks == ([] if there else [("mask", signal.SIG_UNBLOCK, HUP)])
    for signum in stops:
        handlers[signum]()
        assert signals.stop.is_set()
        signals.stop.clear()
    assert not signals.reread.is_set()
    if not there:
        handlers[signal.SIGHUP]()
        assert signals.reread.is_set()
        assert not signals.stop.is_set()
