"""Docker's health check, as the containers run it: by the age of the heartbeat in Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from dialer.store import keys
from tests.integration.stack import CELL, ROOT

SETTINGS = """
[multcall]
redis_url = "{url}"
[broker]
url = "{url}"
[[pbxs]]
name = "pbx01"
max_calls = 1
cps = 1
trunks = {{ t = "PJSIP/{{number}}@t" }}
[[cells]]
nome = "ASR_TIM"
threads = 1
pbxs = ["pbx01"]
"""


def check(folder: Path, url: str, *arguments: str) -> tuple[int, str]:
    """The exit code and what `docker inspect` would show."""
    config = folder / "dialer.toml"
    config.write_text(SETTINGS.format(url=url))
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "docker" / "healthcheck.py"), *arguments],
        env={**os.environ, "DIALER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def beat(url: str, at_ms: int) -> None:
    """A heartbeat of this host's bridge and of the worker of pbx01."""
    with redis.Redis.from_url(url) as client:
        client.zadd(keys.LedgerKeys(CELL).bridges, {f"{socket.gethostname()}-1-a": at_ms})
        client.hset(keys.pbx("pbx01"), "seen_ms", at_ms)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["bridge"], "this bridge has written no heartbeat for 15 s"),
        (["pbx", "pbx01"], "the worker of pbx01 has written no heartbeat for 15 s"),
    ],
)
def test_a_process_without_fresh_heartbeat_is_unhealthy(
    arguments: list[str], reason: str, tmp_path: Path, redis_url: str
) -> None:
    now_ms = int(time.time() * 1000)
    beat(redis_url, now_ms)
    assert check(tmp_path, redis_url, *arguments) == (0, "healthy")
    beat(redis_url, now_ms - 16_000)
    code, said = check(tmp_path, redis_url, *arguments)
    assert code == 1
    assert said.startswith(reason)


@pytest.mark.parametrize("arguments", [["bridge"], ["pbx", "pbx01"], ["redis"]])
def test_a_redis_that_is_down_is_the_reason_and_no_traceback(
    arguments: list[str], tmp_path: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: it refuses
        code, said = check(tmp_path, f"redis://127.0.0.1:{closed.getsockname()[1]}/0", *arguments)
    assert code == 1
    assert "Redis" in said
