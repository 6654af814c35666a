"""The Celery application, for `celery -A dialer …`.

Owns the name and arguments of the task, and the settings of Flower. The code of the task is in
`workers`, so that the bridge does not import it. Importing this module has no side effects.
"""

from __future__ import annotations

import os
from typing import Any, Final

import click
from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dialer.errors import ConfigError
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
BROKER_ERRORS: Final = (OperationalError, RedisError, AMQPError, MessageNacked, OSError)

app = Celery("dialer")
app.config_from_object("celeryconfig")


def _set_flower_environment(context: click.Context, _option: click.Parameter, _value: Any) -> None:
    """Set Flower's variables if this process runs `celery flower`; Flower reads them next.

    Celery calls this for each of its commands. No other command may get them, because one of them
    is the password (FLOWER_BASIC_AUTH, from the credentials folder).
    """
    if context.command.name != "flower":
        return
    try:
        variables = {**FLOWER, **effective(os.environ)}
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    for name, value in variables.items():
        if name.startswith("FLOWER_"):
            os.environ.setdefault(name, value)


app.user_options["preload"].add(
    click.Option(
        ["--set-flower-environment"],  # a click callback needs an option; this one is never given
        is_flag=True,
        hidden=True,
        expose_value=False,
        callback=_set_flower_environment,
    )
)
