"""Redis URLs: accepted forms, refused forms, redaction."""

from __future__ import annotations

import pytest

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
        f"sentinel://:{MARK}@h/main?dbb=1",
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
