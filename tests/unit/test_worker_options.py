"""Options of Celery's worker that cannot work here."""

from __future__ import annotations

import sys
from typing import Any

import click
import pytest
from celery.concurrency.prefork import TaskPool as Processes
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads

from dialer.celery import _refuse_green_pool, ignored_variables
from workers.options import refusal


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": Threads},
        {"pool_cls": Threads, "autoscale": None},
        {"pool": Solo},
        {"beat": False},
    ],
)
def test_what_can_work_is_accepted(options: dict[str, Any]) -> None:
    assert refusal(options) is None


@pytest.mark.parametrize(
    ("options", "extra", "said"),
    [
        ({"pool": Processes}, (), "which a pool of prefork would disturb: remove -P"),
        ({"pool_cls": "my.pool:Pool"}, (), "which a pool of pool:Pool would disturb: remove -P"),
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


@pytest.mark.parametrize(
    ("arguments", "variable", "pool"),
    [
        (["-P", "gevent"], "", "gevent"),
        (["-Peventlet"], "", "eventlet"),
        (["--pool=gevent", "-c", "9"], "", "gevent"),
        (["--pool", "eventlet"], "", "eventlet"),
        ([], "gevent", "gevent"),
        (["-P", "threads", "-Q", "gevent"], "", ""),
        (["-Q", "gevent", "--pool-start-method", "fork"], "", ""),
        (["-P", "gevents"], "solo", ""),
    ],
)
def test_a_pool_of_greenlets_is_refused_before_its_import(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    variable: str,
    pool: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["celery", "-A", "dialer", "worker", *arguments])
    monkeypatch.setenv("CELERY_WORKER_POOL", variable)
    context = click.Context(click.Command("worker"))
    if pool:
        with pytest.raises(click.exceptions.Exit) as end:
            _refuse_green_pool(context)
        assert end.value.exit_code == 2
        assert f"a pool of {pool} would disturb: remove -P" in capsys.readouterr().err
    else:
        _refuse_green_pool(context)
        assert capsys.readouterr().err == ""
