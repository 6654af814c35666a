"""What Celery's signals do to the PBX worker of the process."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from celery import signals

from workers import bootsteps
from workers.call_events import CallEvents
from workers.worker import PbxWorker


class Worker:
    """Stands where the PBX worker does."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()

    async def begin_stop(self) -> None:
        self.has_begun.set()


async def test_a_shutdown_begins_the_stop_before_the_pool_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()
    serving = bootsteps.Serving(asyncio.get_running_loop(), cast(PbxWorker, worker), CallEvents())
    monkeypatch.setattr(bootsteps, "_serving", serving)
    ends: list[int] = []
    monkeypatch.setattr(bootsteps, "_end_process_later", ends.append)
    signals.worker_shutting_down.send(sender="pbx01@host", sig="SIGTERM", how="Warm", exitcode=0)
    async with asyncio.timeout(5):
        await worker.has_begun.wait()
    assert ends == [0], "a broker that does not answer must not keep the process alive"


def test_a_shutdown_before_the_start_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootsteps, "_serving", None)
    sent = signals.worker_shutting_down.send(sender="w", sig="SIGTERM", how="Warm", exitcode=0)
    assert [reply for _, reply in sent] == [None] * len(sent)
