"""Options of Celery's worker that cannot work here."""

from __future__ import annotations

from typing import Any

import pytest
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads

from dialer.celery import ignored_variables
from workers.options import refusal


@pytest.mark.parametrize(
    "options", [{}, {"pool": Threads}, {"pool_cls": Threads, "autoscale": None}, {"beat": False}]
)
def test_what_can_work_is_accepted(options: dict[str, Any]) -> None:
    assert refusal(options) is None


@pytest.mark.parametrize(
    ("options", "extra", "said"),
    [
        ({"pool": Solo}, (), "not solo: remove -P"),
        ({"pool_cls": "my.pool:Pool"}, (), "threads, not"),
        ({"autoscale": (64, 4)}, (), "remove --autoscale"),
        ({"beat": True}, (), "remove -B"),
        ({}, ("broker.url=redis://x",), "remove broker.url=redis://x"),
    ],
)
def test_what_cannot_work_is_refused(
    options: dict[str, Any], extra: tuple[str, ...], said: str
) -> None:
    assert said in (refusal(options, extra) or "")


def test_only_variables_without_effect_are_named() -> None:
    ignored = ("CELERY_BROKER_URL", "CELERY_LOADER", "CELERY_RESULT_BACKEND", "CELERY_TIMEZONE")
    others = ("CELERY_LOG_LEVEL", "CELERY_WORKER_CONCURRENCY", "BROKER_URL", "DIALER_CONFIG")
    assert ignored_variables(dict.fromkeys((*ignored, *others), "x")) == sorted(ignored)
