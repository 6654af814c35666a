"""Broker URLs: accepted forms, refused forms, Celery's settings."""

from __future__ import annotations

import pytest
from kombu import Connection

from dialer.settings.broker_url import for_celery, require_broker_url
from dialer.store.redis_url import redacted

MARK = "S3cr3tM4rk"


def test_celery_gets_its_own_form_of_sockets_and_sentinels() -> None:
    assert for_celery("redis://:p@h:1/2").url == "redis://:p@h:1/2"
    assert (
        for_celery("unix://:p@/run/r.sock?db=5").url
        == "redis+socket://:p@/run/r.sock?virtual_host=5"
    )
    sentinel = for_celery("sentinel://:p%40@h1,h2:3/main?db=4&sentinel_password=sp")
    assert sentinel.url == "sentinel://:p%40@h1:26379/4;sentinel://:p%40@h2:3/4"
    assert sentinel.transport_options["master_name"] == "main"
    assert sentinel.transport_options["sentinel_kwargs"]["password"] == "sp"
    assert sentinel.transport_options["priority_steps"] == [0]


@pytest.mark.parametrize(
    ("url", "user", "password", "host", "port", "vhost"),
    [
        ("amqp://h", None, None, "h", None, "/"),
        ("amqp://u:p%2F%40@h:5673/calls", "u", "p/@", "h", 5673, "calls"),
        ("amqp://u:p@h/%2Fcalls", "u", "p", "h", None, "/calls"),
    ],
)
def test_a_rabbitmq_url_is_understood_by_celery(
    url: str, user: str | None, password: str | None, host: str, port: int | None, vhost: str
) -> None:
    broker = for_celery(url)
    assert not broker.is_redis
    assert broker.tls is None
    assert not {"priority_steps", "socket_timeout"} & broker.transport_options.keys()
    read = Connection(broker.url)
    assert (read.userid, read.password, read.hostname, read.port) == (user, password, host, port)
    assert read.virtual_host == vhost


def test_rabbitmq_over_tls_checks_certificate_and_name() -> None:
    assert for_celery("amqps://u:p@h/v").tls == {"server_hostname": "h"}
    broker = for_celery("amqps://u:p@h/v?ssl_ca_certs=/a.pem&ssl_certfile=/b&ssl_keyfile=/c")
    assert broker.url == "amqps://u:p@h/v"
    assert broker.tls == {
        "server_hostname": "h", "ca_certs": "/a.pem", "certfile": "/b", "keyfile": "/c"
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "",
        MARK,
        f"http://:{MARK}@h",
        f"redis://:{MARK}@h/zero",
        "amqp://",
        f"amqp://u:{MARK}@",
        f"amqp://u:{MARK}@h:port/v",
        f"amqp://u:{MARK}@h:99999/v",
        f"amqp://u:{MARK}/x@h/v",
        f"amqp://u:1/{MARK}@h",
        f"amqp://u:{MARK}@h/a/b",
        f"amqp://u:{MARK}@h/v#x",
        f"amqp://u:{MARK} @h/v",
        f"amqp://u:{MARK}@h/v\r\n",
    ],
)
def test_wrong_broker_url_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a broker") as caught:
        require_broker_url(url)
    said = str(caught.value)
    assert "redis://HOST:PORT/DB" in said
    assert "amqp://USER:PASSWORD@HOST:PORT/VHOST" in said
    assert MARK not in said
    assert MARK not in redacted(url)


def test_a_rabbitmq_url_shows_its_user_and_hides_its_password() -> None:
    assert redacted("amqp://u:p@h:5672/v") == "amqp://u:***@h:5672/v"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"amqp://u:{MARK}@h/v?ssl_ca_certs=/a", "ssl_ca_certs, which needs TLS; write amqps://"),
        (f"amqps://u:{MARK}@h/v?ssl_cert_reqs=none", "has ssl_cert_reqs .* not known for RabbitMQ"),
        (f"amqp://u:{MARK}@h/v?heartbeat=5", "has heartbeat .* not known for RabbitMQ"),
        (f"amqps://u:{MARK}@h/v?ssl_ca_certs=", "ssl_ca_certs without a value"),
        (f"redis://:{MARK}@h/0?abortConnect=false", "abortConnect"),
        (f"redis://:{MARK}@h/0?protocol=3", "protocol, which Celery cannot set; leave it out"),
    ],
)
def test_unusable_option_of_a_broker_is_named(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        require_broker_url(url)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("url", ["rediss://:p@h:1/2", "sentinel://h/main?tls=true"])
def test_redis_over_tls_is_verified_as_broker_too(url: str) -> None:
    assert for_celery(url).tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert for_celery("redis://h").tls is None


def test_sentinels_themselves_may_need_tls() -> None:
    broker = for_celery("sentinel://h/main?sentinel_tls=true&tls=true&ssl_ca_certs=/a")
    told = broker.transport_options["sentinel_kwargs"]
    assert (told["ssl"], told["ssl_cert_reqs"], told["ssl_ca_certs"]) == (True, "required", "/a")
