"""Bridge and workers run in uvloop's event loop if that is installed, else in asyncio's."""

from __future__ import annotations

import asyncio
import sys

import pytest

from dialer.event_loop import new_event_loop, running_name


def name_in_a_new_loop() -> str:
    async def name() -> str:
        return running_name()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(name())


def test_an_installed_uvloop_is_used() -> None:
    pytest.importorskip("uvloop")
    assert name_in_a_new_loop() == "uvloop"


def test_without_uvloop_asyncio_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    assert name_in_a_new_loop() == "asyncio"
