"""The Celery application: `celery -A dialer …` finds it here.

Knows the task's name and arguments, which is all the bridge needs; what the task
does is in `workers`.
"""

from __future__ import annotations

from typing import Final

from celery import Celery

#: `dialer.originate(call_id, cell, epoch)`: a nudge to the PBX's worker; the ledger decides.
ORIGINATE: Final = "dialer.originate"

app = Celery("dialer")
app.config_from_object("celeryconfig")
