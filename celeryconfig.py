"""Celery's settings, derived from dialer.settings.

Every difference from Celery's defaults has a reason found in tests.
"""

from __future__ import annotations

from kombu import Exchange, Queue

from dialer.settings import settings
from dialer.settings.broker_url import for_celery

_broker = for_celery(settings().broker.url)

broker_url = _broker.url
broker_use_ssl = _broker.tls or False
broker_transport_options = _broker.transport_options
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # by default Celery gives up after 100 retries
broker_channel_error_retry = True  # a RabbitMQ that refuses login or queue must not end a worker

# Tasks are never acknowledged (no_ack), not even early: the bridge publishes a lost task again
# from the ledger. This saves two round trips per call. Also, kombu 5.7 ends the worker if the
# connection to the broker breaks during an acknowledgement.
task_default_queue = "no -Q given"  # not a valid PBX name: marks a worker started without -Q
task_queues = [
    Queue(task_default_queue),
    *(
        Queue(pbx.name, Exchange(pbx.name), routing_key=pbx.name, no_ack=True)
        for pbx in settings().pbxs
    ),
]

task_ignore_result = True  # results are in the ledger
task_acks_late = False  # late acknowledgement would restart running tasks after a lost connection
task_create_missing_queues = True
task_store_errors_even_if_ignored = False

worker_consumer = "workers.consumer:PatientConsumer"
worker_pool = "threads"  # not used: workers/strategy.py gives each call to the event loop
worker_concurrency = 1
worker_cancel_long_running_tasks_on_connection_loss = False
worker_send_task_events = True  # Flower shows every call
worker_hijack_root_logger = False
worker_enable_remote_control = True

imports = ("workers.tasks", "workers.bootsteps", "workers.control")
