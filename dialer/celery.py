"""The Celery application: `celery -A dialer …` finds it here.

Knows the task's name and arguments, which is all the bridge needs; what the task
does is in `workers`.
"""

from __future__ import annotations

import os
from typing import Final

from amqp.exceptions import AMQPError, MessageNacked
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dialer.settings.environment import effective

#: `dialer.originate(call_id, cell, epoch)`: a nudge to the PBX's worker; the ledger decides.
ORIGINATE: Final = "dialer.originate"

#: What `celery -A dialer flower` takes where neither environment nor command line says otherwise.
FLOWER: Final = {
    "FLOWER_ADDRESS": "127.0.0.1",  # whoever reaches Flower may stop workers
    "FLOWER_MAX_TASKS": "10000",  # 45 MB; its own default of 100,000 takes ten times that
    "FLOWER_TASKS_COLUMNS": "received,args,state,runtime,result,worker,exception",
}
for _name, _value in {**FLOWER, **effective(os.environ)}.items():
    if _name.startswith("FLOWER_"):
        os.environ.setdefault(_name, _value)  # Flower has no other way to be told by the app

#: What sending to a broker raises that is away, hangs or refuses, whichever kind it is.
BROKER_ERRORS: Final = (OperationalError, RedisError, AMQPError, MessageNacked, OSError)

app = Celery("dialer")
app.config_from_object("celeryconfig")
