"""The Celery application, which `celery -A dialer …` finds here.

Owns the task's name and arguments, which is all that the bridge needs, and the settings of
Flower. What the task does is in `workers`. Importing this module changes nothing outside it.
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

    Celery calls this for each of its commands. Other commands must not get them: one of them is
    the password (FLOWER_BASIC_AUTH, from the folder of credentials).
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
        ["--set-flower-environment"],  # a click callback needs an option; nobody gives this one
        is_flag=True,
        hidden=True,
        expose_value=False,
        callback=_set_flower_environment,
    )
)
