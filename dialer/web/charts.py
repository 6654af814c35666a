"""Charts of minutes: where bars, lines and marks are. Pure; a template draws them as SVG.

Coordinates are those of the SVG's view box, `WIDTH` by `HEIGHT`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

WIDTH: Final = 400
HEIGHT: Final = 150

#: Room for the texts of the axes.
LEFT: Final = 48
RIGHT: Final = 8
TOP: Final = 10
BOTTOM: Final = 20

#: A text at the axis of time each so many minutes.
MARK_EVERY_MIN: Final = 15

#: This share of a minute's place is its bar.
BAR_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Minutes:
    """One number for each minute; None if there is none. `first` is in minutes since 1970."""

    first: int
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar. `is_open`: its minute is not over."""

    x: float
    y: float
    width: float
    height: float
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A number at the axis of values, with a line through the chart."""

    x: float
    y: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """A time at the axis of time."""

    x: float
    y: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart. `lines` has the points of lines and the series of each, 0 for the first.

    `dots` are single minutes of a series, (x, y, series).
    """

    bars: Sequence[Bar] = ()
    lines: Sequence[tuple[str, int]] = ()
    dots: Sequence[tuple[float, float, int]] = ()
    levels: Sequence[Level]
    times: Sequence[Time]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT


def bars(minutes: Minutes) -> Chart:
    """Return a chart with a bar for each minute. The last minute is not over."""
    place = _Place.of(minutes, most=_round_up(max([0.0, *filter(None, minutes.values)])))
    last = len(minutes.values) - 1
    found = [
        Bar(
            x=_short(place.x(n) - place.step * BAR_SHARE / 2),
            y=place.y(value),
            width=_short(place.step * BAR_SHARE),
            height=_short(place.y(0) - place.y(value)),
            is_open=n == last,
        )
        for n, value in enumerate(minutes.values)
        if value
    ]
    return Chart(bars=found, levels=place.levels(), times=place.times(minutes.first))


def lines(first: int, *series: Sequence[float | None], most: float = 0.0) -> Chart:
    """Return a chart with a line for each series of minutes, which have the same length.

    The scale goes from 0 to `most`, or to a round number above the highest. A line has a gap where
    there is no number. Infinite numbers are at the top.
    """
    highest = max([0.0, *(v for one in series for v in one if v is not None and v < math.inf)])
    place = _Place.of(Minutes(first=first, values=series[0]), most=most or _round_up(highest, 0.1))
    runs = [(run, n) for n, values in enumerate(series) for run in _runs(place, values)]
    return Chart(
        lines=[(" ".join(f"{x:g},{y:g}" for x, y in run), n) for run, n in runs if len(run) > 1],
        dots=[(*run[0], n) for run, n in runs if len(run) == 1],
        levels=place.levels(),
        times=place.times(first),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where values are: `n` minutes side by side, from 0 up to `most`."""

    n: int
    most: float

    @classmethod
    def of(cls, minutes: Minutes, *, most: float) -> _Place:
        return cls(max(1, len(minutes.values)), most)

    @property
    def step(self) -> float:
        return (WIDTH - LEFT - RIGHT) / self.n

    def x(self, n: float) -> float:
        """Return the middle of a minute."""
        return _short(LEFT + (n + 0.5) * self.step)

    def y(self, value: float) -> float:
        room = HEIGHT - TOP - BOTTOM
        return _short(TOP + room * (1 - min(value, self.most) / self.most))

    def levels(self) -> list[Level]:
        half = self.most / 2
        shown = [0.0, half, self.most] if half == int(half) or self.most <= 1 else [0.0, self.most]
        return [Level(x=LEFT - 4, y=self.y(value), value=value) for value in shown]

    def times(self, first: int) -> list[Time]:
        return [
            Time(x=self.x(n), y=HEIGHT - 5, at=time_of(first + n))
            for n in range(self.n)
            if (first + n) % MARK_EVERY_MIN == 0
        ]


def time_of(minute: int) -> datetime:
    """Return when a minute since 1970 begins."""
    return datetime.fromtimestamp(minute * 60, UTC)


def _runs(place: _Place, values: Sequence[float | None]) -> Iterator[list[tuple[float, float]]]:
    """Yield the points of minutes in a row that have a number."""
    for has_number, run in groupby(enumerate(values), lambda pair: pair[1] is not None):
        if has_number:
            yield [(place.x(n), place.y(value)) for n, value in run if value is not None]


def _round_up(value: float, least: float = 2.0) -> float:
    """Return 1, 2 or 5 times a power of ten, not less than the value and than `least`."""
    if value <= least:
        return least
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _short(value: float) -> float:
    return round(value, 1)
