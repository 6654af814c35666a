"""Charts: where bars, lines and marks are."""

from __future__ import annotations

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dialer.web.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Minutes, bars, lines

FLOOR_Y = HEIGHT - BOTTOM

numbers = st.none() | st.floats(min_value=0, max_value=1e9)
hours = st.lists(numbers, max_size=60)


def chart(*values: float | None, first: int = 0) -> Chart:
    return bars(Minutes(first=first, values=values))


def share(*values: float | None) -> Chart:
    return lines(0, values, most=1.0)


def test_a_bar_is_as_high_as_its_share_of_the_scale() -> None:
    low, high = chart(5, 10).bars
    assert math.isclose(high.height, HEIGHT - TOP - BOTTOM)
    assert math.isclose(low.height, high.height / 2)
    assert high.y == TOP
    assert math.isclose(low.y + low.height, FLOOR_Y)


def test_a_minute_without_calls_has_no_bar() -> None:
    assert chart(0, None, 0).bars == []


def test_only_the_last_minute_is_not_over() -> None:
    assert [bar.is_open for bar in chart(1, 2, 3).bars] == [False, False, True]


def test_the_scale_ends_at_a_round_number() -> None:
    tops = {most: chart(most).levels[-1].value for most in (0, 1, 3, 10, 11, 51, 999)}
    assert tops == {0: 2, 1: 2, 3: 5, 10: 10, 11: 20, 51: 100, 999: 1000}


def test_a_count_has_no_mark_at_half_a_call() -> None:
    assert [level.value for level in chart(3).levels] == [0, 5]
    assert [level.value for level in chart(8).levels] == [0, 5, 10]


def test_times_are_marked_each_quarter_of_an_hour() -> None:
    marks = chart(*[1] * 60, first=1_000_007).times
    assert [mark.at.minute % 15 for mark in marks] == [0, 0, 0, 0]
    assert [round(b.x - a.x) for a, b in pairwise(marks)] == [86, 86, 86]


def test_a_line_has_a_gap_where_there_is_no_number() -> None:
    found = share(0.5, 1.0, None, 0.25, None, 0.0, 0.0)
    assert len(found.lines) == 2
    assert len(found.lines[0][0].split()) == 2
    assert len(found.dots) == 1


def test_a_share_is_marked_in_halves() -> None:
    assert [level.value for level in share(0.1).levels] == [0, 0.5, 1]


def test_a_second_line_has_the_scale_of_the_first() -> None:
    found = lines(0, [0.04, 0.02], [0.3, math.inf])
    assert [level.value for level in found.levels] == [0, 0.25, 0.5]
    (first, a), (second, b) = found.lines
    assert (a, b) == (0, 1)
    assert second.endswith(f",{TOP}"), "what is too late to be measured is at the top"
    assert float(first.split(",")[-1]) > float(second.split(",")[1].split()[0])


def test_the_scale_of_short_times_is_not_below_a_tenth() -> None:
    assert lines(0, [0.002, 0.003]).levels[-1].value == 0.1


def test_an_hour_without_any_minute_is_an_empty_chart() -> None:
    assert (chart().bars, share().lines, share().dots) == ([], [], [])


@given(hours)
def test_everything_is_inside_the_picture(values: list[float | None]) -> None:
    minutes = Minutes(first=0, values=values)
    for bar in bars(minutes).bars:
        assert bar.x >= LEFT - 0.1
        assert bar.x + bar.width <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= bar.y <= FLOOR_Y
        assert 0 <= bar.height <= FLOOR_Y
    drawn = lines(0, values)
    points = [tuple(map(float, p.split(","))) for one, _ in drawn.lines for p in one.split()]
    for x, y in [*points, *((x, y) for x, y, _ in drawn.dots)]:
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= FLOOR_Y
    assert len(points) + len(drawn.dots) == sum(value is not None for value in values)
