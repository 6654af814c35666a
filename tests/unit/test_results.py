"""What a worker counts of its calls in the last minute."""

from __future__ import annotations

from workers.pbx.results import NAMES, WINDOW_S, Results


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_calls_every_count_is_zero() -> None:
    assert Results().last_minute() == dict.fromkeys(NAMES, 0)


def test_calls_of_one_minute_are_counted_together() -> None:
    clock = Clock()
    results = Results(clock)
    results.count("claimed")
    clock.now += WINDOW_S - 1
    results.count("claimed")
    results.count("no_word")
    assert results.last_minute() == dict.fromkeys(NAMES, 0) | {"claimed": 2, "no_word": 1}


def test_an_older_call_is_forgotten() -> None:
    clock = Clock()
    results = Results(clock)
    results.count("expired")
    clock.now += WINDOW_S
    assert results.last_minute()["expired"] == 0


def test_a_busy_hour_needs_memory_of_one_minute() -> None:
    clock = Clock()
    results = Results(clock)
    for _ in range(3600):
        clock.now += 1
        results.count("claimed")
    assert results.last_minute()["claimed"] == WINDOW_S
    assert len(results._seconds) == WINDOW_S


def test_a_busy_second_needs_memory_of_one_count() -> None:
    clock = Clock()
    results = Results(clock)
    for _ in range(2):
        clock.now += 1
        for _ in range(100):
            results.count("claimed")
    assert len(results._seconds) == 2


def test_counting_forgets_what_is_too_old() -> None:
    clock = Clock()
    results = Results(clock)
    for _ in range(2 * WINDOW_S):
        clock.now += 1
        results.count("claimed")
    assert len(results._seconds) == WINDOW_S


def test_a_call_that_went_well_in_the_end_is_taken_back() -> None:
    clock = Clock()
    results = Results(clock)
    results.count("not_handed_over")
    clock.now += 1
    results.count("not_handed_over")
    clock.now += 1
    results.count("claimed")
    for left in (1, 0, 0):
        results.take_back("not_handed_over")
        assert results.last_minute()["not_handed_over"] == left
    assert results.last_minute()["claimed"] == 1
