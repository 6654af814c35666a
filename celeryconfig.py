"""Celery's settings, made from dialer.settings.

Each line that differs from Celery's default does so for a reason seen in a trial.
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
broker_connection_max_retries = None  # the default gives up after 100
broker_channel_error_retry = True  # a RabbitMQ that refuses login or queue ends no worker

# Never acknowledged at all, not even early: what a worker loses, the ledger sends again. It saves
# two round trips a call, and kombu 5.7 brings the worker down when an acknowledgement is under
# way as the broker's connection breaks.
task_default_queue = "no -Q given"  # is no PBX's name: a worker that has it was given none
task_queues = [
    Queue(task_default_queue),
    *(
        Queue(pbx.name, Exchange(pbx.name), routing_key=pbx.name, no_ack=True)
        for pbx in settings().pbxs
    ),
]

task_ignore_result = True  # the ledger is the truth
task_acks_late = False  # acknowledged late, every running task starts again after a blip
task_create_missing_queues = True
task_store_errors_even_if_ignored = False

worker_consumer = "workers.consumer:PatientConsumer"
worker_pool = "threads"
worker_concurrency = 32
worker_disable_prefetch = _broker.is_redis  # RabbitMQ pushes, and Celery would only warn
worker_prefetch_multiplier = 1
worker_cancel_long_running_tasks_on_connection_loss = False
worker_send_task_events = True  # so that Flower shows every call
worker_hijack_root_logger = False
worker_enable_remote_control = True

imports = ("workers.tasks", "workers.bootsteps")
