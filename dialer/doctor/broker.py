"""Check of the broker: publish a probe to a throw-away queue and consume it, as Celery does."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import secrets
import ssl
import threading
from typing import Any, Final

from amqp.exceptions import AMQPError
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError, RedisError

from dialer.doctor.findings import Finding, good, wrong
from dialer.settings.broker_url import CeleryBroker, for_celery
from dialer.store.redis_url import redacted

#: Time limit of the whole probe, in seconds.
WITHIN_S: Final = 10.0

#: The fanout exchange of Celery's remote control.
CONTROL: Final = "celery.pidbox"


async def check_broker(url: str) -> list[Finding]:
    """Publish and consume a probe; check Celery's remote control too."""
    where = f"broker {redacted(url).partition('?')[0]}"
    try:
        await asyncio.wait_for(_in_thread(for_celery(url)), WITHIN_S)
    except _Forbidden as error:
        return [_rights(where, str(error))]
    except (OperationalError, RedisError, AMQPError, OSError, TimeoutError) as error:
        return [_failed(where, error)]
    except _Lost:
        cure = "see its log; is its memory full?"
        return [wrong("broker.probe", where, "did not hand over a message", cure)]
    return [good("broker.probe", where, "a message went in and came out")]


class _Forbidden(Exception):
    """The user lacks a right; the text is the server's."""


class _Lost(Exception):
    """The probe did not come back."""


async def _in_thread(broker: CeleryBroker) -> None:
    """Run the probe in a thread that does not hold the process up if the broker never answers."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            _probe(broker)
        except Exception as raised:  # noqa: BLE001  # raised again in the event loop
            error = raised
        with contextlib.suppress(RuntimeError):  # the event loop is closed already
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="broker probe", daemon=True).start()
    await done


def _probe(broker: CeleryBroker) -> None:
    name = f"dialer-doctor-{secrets.token_hex(6)}"
    connection = Connection(
        broker.url,
        ssl=broker.tls or False,
        transport_options={**broker.transport_options, "max_retries": 0},
        connect_timeout=5,
    )
    with connection:
        try:
            _round_trip(connection, name)
            if broker.is_redis:
                _hear_control(connection)
        except (NoPermissionError, OperationalError) as error:
            if "permission" in str(error).lower():
                raise _Forbidden(str(error)) from error
            raise


def _round_trip(connection: Any, name: str) -> None:
    probes = Queue(name, Exchange(name, auto_delete=True), routing_key=name, auto_delete=True)
    channel = connection.default_channel
    bound = probes(channel)
    bound.declare()
    try:
        with connection.SimpleBuffer(bound, no_ack=True, serializer="json") as buffer:
            buffer.put({"probe": name})
            try:
                message = buffer.get(timeout=3)
            except queue.Empty:
                raise _Lost from None
            if message.payload != {"probe": name}:
                raise _Lost
    finally:
        bound.delete()


def _hear_control(connection: Any) -> None:
    """Publish and subscribe where Celery's remote control does, on a topic that nobody hears."""
    client = connection.default_channel.client
    topic = f"/{connection.virtual_host or 0}.{CONTROL}/dialer-doctor".replace("//", "/")
    with client.pubsub() as listener:
        listener.psubscribe(topic)
        listener.get_message(timeout=1)
        client.publish(topic, "probe")


def _rights(where: str, said: str) -> Finding:
    cure = (
        "ACL SETUSER USER ~* &* +@all for the broker's user, or the rights in docs/operations.md"
        if "channel" not in said
        else "ACL SETUSER USER &* (Celery's remote control uses channels)"
    )
    return wrong("broker.rights", where, f"its user lacks a right ({said})", cure)


def _failed(where: str, error: BaseException) -> Finding:
    said = str(error) or "no answer in time"
    if "WRONG_VERSION_NUMBER" in said:
        cure = "use its TLS port (RabbitMQ: 5671), or a URL without TLS"
        return wrong("broker.tls", where, "does not speak TLS at that port", cure)
    if "CERTIFICATE_VERIFY_FAILED" in said or isinstance(error, ssl.SSLError):
        cure = "name its CA with ssl_ca_certs= in [broker] url; its certificate needs the host name"
        return wrong("broker.tls", where, f"has a certificate that is not trusted ({said})", cure)
    if "refused for user" in said:
        cure = "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
        return wrong("broker.rights", where, f"its user lacks a right ({said})", cure)
    if isinstance(error, TimeoutError):
        cure = "is it in a memory or disk alarm (rabbitmqctl list_alarms), or behind a firewall?"
        return wrong("broker.reach", where, "does not answer in time", cure)
    if "ACCESS_REFUSED" in said or "NOT_ALLOWED" in said:
        cure = "correct user, password and vhost in [broker] url"
        return wrong("broker.login", where, f"refuses ({said})", cure)
    cure = "start it, or correct [broker] url in dialer.toml"
    return wrong("broker.reach", where, f"cannot be reached ({said})", cure)
