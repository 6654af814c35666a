"""`dialer why`: the times that people type, and what is printed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from dialer.cli import app
from dialer.domain.limits import Limit
from dialer.domain.why import Decision
from dialer.errors import ConfigError
from dialer.monitor import why as monitor_why
from dialer.monitor.why import Why, time_of
from dialer.settings import Cell

ZONE = ZoneInfo("Asia/Kolkata")
CELL = Cell.model_validate(
    {"nome": "COB", "threads": 1, "pbxs": ["pbx01"], "limits": {"time_zone": "Asia/Kolkata"}}
)


@pytest.mark.parametrize("form", ["%H:%M", "%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"])
def test_a_time_is_that_of_the_cell(form: str) -> None:
    then = datetime.now(ZONE) - timedelta(minutes=2)
    assert abs(time_of(then.strftime(form), CELL) - then) < timedelta(minutes=1)


def test_a_time_of_day_that_has_not_come_was_yesterday() -> None:
    soon = datetime.now(ZONE) + timedelta(minutes=2)
    found = time_of(soon.strftime("%H:%M"), CELL)
    assert timedelta(hours=23, minutes=56) < datetime.now(ZONE) - found < timedelta(hours=24)


def test_a_time_with_a_zone_of_its_own_keeps_it() -> None:
    found = time_of("2026-11-27T10:42:00Z", CELL)
    assert found == datetime(2026, 11, 27, 10, 42, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["now", "25:00", "10h42", "2026-13-01T10:00", "", "10:42pm", "10.42", "2026-11-27"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time: write 10:42"):
        time_of(text, CELL)


def test_a_time_to_come_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has not come yet; it is .* in Asia/Kolkata"):
        time_of("2999-01-01T10:00", CELL)


@pytest.mark.usefixtures("config")
def test_the_command_names_its_option() -> None:
    result = CliRunner().invoke(app, ["why", "COB", "--at", "10h42"])
    assert str(result.exception).startswith("--at 10h42 is no time: write 10:42")


AT = datetime(2026, 11, 27, 5, 12, tzinfo=UTC)
DECISION = Decision(
    cell="COB", limit=Limit.THREADS_FULL, numbers={"calls": 3, "threads": 3, "waiting": 87}
)


@pytest.fixture
def config(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "dialer.toml"
    path.write_text(
        """
[multcall]
redis_url = "redis://127.0.0.1:6379/0"
[broker]
url = "redis://127.0.0.1:6379/1"
[[pbxs]]
name = "pbx01"
host = "127.0.0.1"
username = "dialer"
secret = "a-secret"
max_calls = 5
cps = 5
[pbxs.trunks]
tim = "PJSIP/{number}@tim"
[[cells]]
nome = "COB"
threads = 3
pbxs = ["pbx01"]
[cells.limits]
time_zone = "Asia/Kolkata"
"""
    )
    monkeypatch.setenv("DIALER_CONFIG", str(path))


def run(monkeypatch: pytest.MonkeyPatch, found: Why, *args: str) -> Any:
    async def stand_in(*_: object) -> Why:
        return found

    monkeypatch.setattr(monitor_why, "why", stand_in)
    return CliRunner().invoke(app, ["why", "COB", *args])


@pytest.mark.usefixtures("config")
def test_people_read_the_time_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    since, until = AT - timedelta(minutes=9), AT + timedelta(minutes=1)
    result = run(monkeypatch, Why(decision=DECISION, at=AT, since=since, until=until))
    assert result.output.splitlines() == [
        "COB: threads_full since 2026-11-27 10:33:00 (Asia/Kolkata) until 2026-11-27 10:43:00",
        "COB has 3 calls of at most 3 and 87 requests wait: "
        "'dialer cells set COB threads=N' allows more",
    ]


@pytest.mark.usefixtures("config")
def test_programs_read_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, Why(decision=DECISION, at=AT, since=AT, age_s=0.12345), "--json")
    shown = json.loads(result.output)
    assert shown == {
        "cell": "COB",
        "dialing": True,
        "limit": "threads_full",
        "sentence": DECISION.sentence,
        "at": "2026-11-27T05:12:00.000+00:00",
        "since": "2026-11-27T05:12:00.000+00:00",
        "until": None,
        "age_s": 0.123,
        "numbers": {"calls": 3, "threads": 3, "waiting": 87},
    }


@pytest.mark.usefixtures("config")
def test_signs_from_redis_do_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = Decision(cell="COB", limit=Limit.AMI_DOWN, reason="\x1b[2J\nall is well")
    result = run(monkeypatch, Why(decision=decision, at=AT))
    assert result.output.splitlines()[1:] == ["no PBX takes calls of COB:  [2J all is well"]
    assert "\x1b" not in result.output
