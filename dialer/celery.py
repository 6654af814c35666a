"""The Celery application, for `celery -A dialer …`.

Owns the name and arguments of the task, and the settings of Flower. The code of the task is in
`workers`, so that the bridge does not import it. Importing this module has no side effects.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery
from celery.app.utils import Settings
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.exceptions import RedisError

from dialer.errors import ConfigError
from dialer.settings import settings
from dialer.settings.environment import effective

#: `dialer.originate(call_id, cell, epoch)`: a nudge to the PBX's worker. The ledger decides.
ORIGINATE: Final = "dialer.originate"

#: Settings of `celery -A dialer flower` that neither its environment nor its command line sets.
FLOWER: Final = {
    "FLOWER_ADDRESS": "127.0.0.1",  # whoever reaches Flower can stop workers
    "FLOWER_MAX_TASKS": "10000",  # 45 MB of memory; Flower's default of 100,000 needs 450 MB
    "FLOWER_TASKS_COLUMNS": "received,args,state,runtime,result,worker,exception",
}

#: What sending raises if the broker is down, hangs or refuses, for Redis and RabbitMQ.
BROKER_ERRORS: Final = (
    *(OperationalError, BatchPublishError),
    *(RedisError, AMQPError, MessageNacked, OSError),
)

#: Exit code of a command that cannot run with these settings.
EXIT_USAGE: Final = 2

#: A pool that replaces threads by greenlets, in the arguments of the worker, joined by blanks.
_GREEN_POOL: Final = re.compile(r"(?:^| )(?:-P ?|--pool[= ])(gevent|eventlet)(?: |$)")

#: Celery reads these for other purposes than its settings, or sets them itself. The options of a
#: command can be variables too: `CELERY_WORKER_CONCURRENCY` is `celery worker --concurrency`.
_OTHERS: Final = (
    *("CELERY_LOG_", "CELERY_RDB_", "CELERY_BENCH", "CELERY_TRACE_APP", "CELERY_SKIP_CHECKS"),
    *("CELERY_WORKER_", "CELERY_FLOWER_", "CELERY_INSPECT_", "CELERY_CONTROL_", "CELERY_APP"),
)


class _OwnSettings(Settings):
    """Celery's settings, without the variables that override the broker (Celery 5.7).

    These are CELERY_BROKER_URL, which `-b` sets too, CELERY_BROKER_READ_URL,
    CELERY_BROKER_WRITE_URL and CELERY_RESULT_BACKEND. Bridge and workers must use one broker.
    """

    @property
    def broker_url(self) -> Any:
        return self["broker_url"]

    broker_read_url = broker_write_url = broker_url

    @property
    def result_backend(self) -> Any:
        return self["result_backend"]  # none: results are in the ledger


class _DialerApp(Celery):
    """Celery application whose settings come from dialer.toml alone."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        # Celery has no option for the class, and its __setattr__ would set an item. The object
        # stays when the settings are loaded.
        object.__setattr__(self.conf, "__class__", _OwnSettings)


def ignored_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of Celery's variables in the environment that have no effect here."""
    return sorted(n for n in environment if n.startswith("CELERY_") and not n.startswith(_OTHERS))


app = _DialerApp("dialer", loader="celery.loaders.app:AppLoader")  # not that of CELERY_LOADER
app.config_from_object("celeryconfig")


def _before_command(context: click.Context, _option: click.Parameter, _value: Any) -> None:
    """Check the settings before Celery reads them; it would print a traceback.

    Celery calls this for each of its commands. The worker logs ignored variables itself.
    """
    try:
        settings()
        variables = {**FLOWER, **effective(os.environ)}
    except ConfigError as error:
        click.echo(f"dialer: {error}", err=True)
        context.exit(EXIT_USAGE)
    names = ignored_variables(os.environ)
    if names and context.command.name != "worker":
        sentence = f"{', '.join(names)} (or -b) is ignored; dialer.toml has the broker"
        click.echo(f"dialer: warning: {sentence}", err=True)
    if context.command.name == "worker":
        _refuse_green_pool(context)
    if context.command.name in ("inspect", "control"):
        context.obj.app.loader.import_default_modules()  # our own commands
    if context.command.name == "flower":
        _set_flower_environment(variables)


def _refuse_green_pool(context: click.Context) -> None:
    """Refuse a pool of greenlets before Celery imports it, where that is possible.

    With `-P gevent` as two arguments Celery imports gevent before anything of ours. If it is not
    installed, the command ends there with `No module named 'gevent'`.
    """
    variable = os.environ.get("CELERY_WORKER_POOL", "")
    found = _GREEN_POOL.search(" ".join([*sys.argv, *([f"-P {variable}"] if variable else [])]))
    if found is not None:
        click.echo(
            f"dialer: the calls of a worker share one event loop, which a pool of {found[1]} would "
            "disturb: remove -P (--pool, CELERY_WORKER_POOL)",
            err=True,
        )
        context.exit(EXIT_USAGE)


def _set_flower_environment(variables: Mapping[str, str]) -> None:
    """Set Flower's variables; Flower reads them next.

    No other command may get them, because one of them is the password (FLOWER_BASIC_AUTH, from the
    credentials folder).
    """
    for name, value in variables.items():
        if name.startswith("FLOWER_"):
            os.environ.setdefault(name, value)


app.user_options["preload"].add(
    click.Option(
        ["--check-settings"],  # a click callback needs an option; this one is never given
        is_flag=True,
        is_eager=True,  # before other options read Celery's settings
        hidden=True,
        expose_value=False,
        callback=_before_command,
    )
)
