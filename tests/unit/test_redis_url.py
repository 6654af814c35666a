"""Redis URLs: accepted forms, refused forms, redaction."""

from __future__ import annotations

import pytest

from dialer.store.redis_options import OptionRefused
from dialer.store.redis_url import RedisAddress, Scheme, redacted

MARK = "S3cr3tM4rk"


def test_sentinel_url_is_parsed() -> None:
    address = RedisAddress.parse(
        "sentinel://u:p%40ss@h1:26379,h2/main?db=3&sentinel_username=su&sentinel_password=sp&tls=1"
    )
    assert address.scheme is Scheme.SENTINEL
    assert address.hosts == (("h1", 26379), ("h2", 26379))
    assert (address.service, address.db, address.tls) == ("main", 3, True)
    assert (address.username, address.password) == ("u", "p@ss")
    assert (address.sentinel_username, address.sentinel_password) == ("su", "sp")


@pytest.mark.parametrize(
    ("url", "hosts", "path", "db"),
    [
        ("redis://h", (("h", 6379),), None, 0),
        ("redis://h:1/2", (("h", 1),), None, 2),
        ("rediss://u:p@h:1?db=4", (("h", 1),), None, 4),
        ("redis://[::1]:6380/1", (("::1", 6380),), None, 1),
        ("unix:///run/r.sock?db=5", (), "/run/r.sock", 5),
    ],
)
def test_tcp_tls_and_unix_urls_are_parsed(
    url: str, hosts: tuple[tuple[str, int], ...], path: str | None, db: int
) -> None:
    address = RedisAddress.parse(url)
    assert (address.hosts, address.path, address.db) == (hosts, path, db)


@pytest.mark.parametrize(
    "url",
    [
        "",
        MARK,
        f"user:{MARK}@h:6379",
        f"http://:{MARK}@h",
        f"redis://:{MARK}/x@h:6379/0",
        f"redis://:{MARK}@h:port/0",
        f"redis://:{MARK}@/0",
        f"redis://:{MARK}@h/zero",
        f"redis://:{MARK}@h/0#x",
        f"redis://:{MARK} @h/0",
        f"redis://:{MARK}@h\r\n/0",
        "unix://relative.sock",
        f"sentinel://:{MARK}@h",
        f"sentinel://:{MARK}@h,/main",
        f"redis://:pass?{MARK}@h/0",
        f"redis://:pass?x={MARK}@h/0",
    ],
)
def test_bad_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="is not a Redis URL") as caught:
        RedisAddress.parse(url)
    assert MARK not in str(caught.value)
    assert MARK not in redacted(url)


def test_url_shows_its_user_and_hides_its_password() -> None:
    assert redacted("redis://u:p@h/0") == "redis://u:***@h/0"
    assert redacted("redis://p@h/0") == "redis://***@h/0"
    assert redacted("redis://h/0") == "redis://h/0"
    assert redacted("unix:///s?password=p&db=1") == "unix:///s?password=***&db=1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"redis://:{MARK}@h/0?decode_responses=true", "decode_responses.*leave it out"),
        (f"redis://:{MARK}@h/0?abortConnect=false", "abortConnect.*[.]NET.*leave it out"),
        (f"redis://:{MARK}@h/0?connectTimeout=5000", "connectTimeout.*write timeout, in seconds"),
        (f"redis://:{MARK}@h/0?ssl_cert_reqs=none", "ssl_cert_reqs.*needs TLS; write rediss://"),
        (f"redis://:{MARK}@h/0?ssl=true", "ssl.*write rediss://"),
        (f"redis://:{MARK}@h/0?max_connections=5", "max_connections.*leave it out"),
        (f"redis://:{MARK}@h/0?retry_on_timeout=true", "retry_on_timeout.*leave it out"),
        (f"redis://:{MARK}@h/0?healthcheck_interval=3", "did you mean health_check_interval[?]"),
        (f"redis://:{MARK}@h/0?zzz=1", "zzz.*known are db, timeout"),
        (f"redis://:{MARK}@h/0?z-z={MARK}", "an option that is not known"),
        (f"redis://:{MARK}@h/0?timeout={MARK}", "timeout with a wrong value.*seconds from 1"),
        (f"redis://:{MARK}@h/0?timeout=0", "timeout with a wrong value"),
        (f"redis://:{MARK}@h/0?protocol=4", "protocol with a wrong value.*2 or 3"),
        (f"redis://:{MARK}@h/0?client_name=a%20b", "client_name with a wrong value"),
        (f"rediss://:{MARK}@h/0?ssl_check_hostname=x", "ssl_check_hostname.*true or false"),
        (f"rediss://:{MARK}@h/0?ssl_ca_certs=", "ssl_ca_certs.*the path of a PEM file"),
        (f"rediss://:{MARK}@h/0?ssl_keyfile=/k", "ssl_keyfile without ssl_certfile"),
        (f"rediss://:{MARK}@h/0?ssl_cert_reqs=none&ssl_check_hostname=1", "leave both out"),
        (f"sentinel://:{MARK}@h/main?dbb=1", "dbb.*did you mean db[?]"),
        (f"sentinel://:{MARK}@h/main?ssl_ca_certs=/a", "ssl_ca_certs.*needs TLS"),
        (f"h:6379,password={MARK},abortConnect=false", "[.]NET; write it as redis://"),
        (f"redis://h:6379,password={MARK}", "[.]NET; write it as redis://"),
        (f"redis://:{MARK}@h1:7000,h2:7001/0", "Redis Cluster cannot be used"),
    ],
)
def test_unusable_option_is_named_with_its_cure(url: str, said: str) -> None:
    with pytest.raises(OptionRefused, match=said) as caught:
        RedisAddress.parse(url)
    assert MARK not in str(caught.value)


def test_a_comma_in_a_password_is_no_dotnet_string() -> None:
    assert RedisAddress.parse("redis://:a,b=c@h/0").password == "a,b=c"


def test_tls_is_verified_unless_the_url_says_no() -> None:
    verified = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert RedisAddress.parse("rediss://h").tls_options == verified
    assert RedisAddress.parse("rediss://h?ssl_ca_certs=/a").tls_options == {
        **verified, "ssl_ca_certs": "/a"
    }  # fmt: skip
    assert RedisAddress.parse("rediss://h?ssl_cert_reqs=none").tls_options == {
        "ssl_cert_reqs": "none", "ssl_check_hostname": False
    }  # fmt: skip


def test_login_may_be_given_as_options() -> None:
    address = RedisAddress.parse("unix://u@/run/r.sock?password=p%40&db=1")
    assert (address.username, address.password) == ("u", "p@")
