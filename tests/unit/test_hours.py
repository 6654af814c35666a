"""Calling hours: in the customers' zone, over midnight, over a change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.hours import Window, is_open

SAO_PAULO = ZoneInfo("America/Sao_Paulo")
MONDAY = datetime(2026, 5, 4, tzinfo=SAO_PAULO)
DAY = Window(days=frozenset(range(5)), start=time(8), end=time(20))
NIGHT = Window(days=frozenset({4}), start=time(22), end=time(6))

days = st.frozensets(st.integers(0, 6))
minutes = st.times().map(lambda t: t.replace(second=0, microsecond=0))
windows = st.builds(Window, days=days, start=minutes, end=minutes)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(SAO_PAULO))  # noqa: DTZ001


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        (at(0, 7, 59), False),
        (at(0, 8), True),
        (at(0, 19, 59), True),
        (at(0, 20), False),
        (at(5, 12), False),
    ],
)
def test_window_includes_its_start_but_not_its_end(moment: datetime, is_in: bool) -> None:
    assert is_open([DAY], SAO_PAULO, moment) is is_in


@pytest.mark.parametrize(
    ("moment", "is_in"),
    [
        (at(4, 21, 59), False),
        (at(4, 22), True),
        (at(5, 0), True),
        (at(5, 5, 59), True),
        (at(5, 6), False),
        (at(4, 5), False),
        (at(5, 22), False),
    ],
)
def test_window_may_end_on_the_next_day(moment: datetime, is_in: bool) -> None:
    assert is_open([NIGHT], SAO_PAULO, moment) is is_in


def test_the_night_of_a_sunday_ends_on_monday() -> None:
    sunday = Window(days=frozenset({6}), start=time(22), end=time(6))
    assert is_open([sunday], SAO_PAULO, at(7, 5))
    assert is_open([sunday], SAO_PAULO, at(0, 5))


def test_hours_are_local_time_of_the_customers() -> None:
    assert is_open([DAY], SAO_PAULO, datetime(2026, 5, 4, 11, 0, tzinfo=UTC))
    assert not is_open([DAY], SAO_PAULO, datetime(2026, 5, 4, 10, 59, tzinfo=UTC))
    assert not is_open([DAY], SAO_PAULO, datetime(2026, 5, 4, 23, 0, tzinfo=UTC))


def test_no_windows_means_always_open() -> None:
    assert is_open([], SAO_PAULO, MONDAY)


@given(windows, moments)
def test_window_and_complement_cover_each_moment_once(window: Window, moment: datetime) -> None:
    every_day = Window(days=frozenset(range(7)), start=window.start, end=window.end)
    other = Window(days=frozenset(range(7)), start=window.end, end=window.start)
    if window.start != window.end:
        assert every_day.contains(moment) != other.contains(moment)


@given(windows, moments)
def test_window_with_equal_start_and_end_is_always_open(window: Window, moment: datetime) -> None:
    whole = Window(days=frozenset(range(7)), start=window.start, end=window.start)
    assert whole.contains(moment)


@given(st.lists(windows, max_size=4), moments)
def test_one_open_window_is_enough(open_at: list[Window], moment: datetime) -> None:
    assert is_open(iter(open_at), SAO_PAULO, moment) == (
        not open_at or any(is_open([w], SAO_PAULO, moment) for w in open_at)
    )
