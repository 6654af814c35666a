"""The overview: rates by the clock of Redis, and names that cells and PBXs share."""

from __future__ import annotations

from dialer.domain.call import Result
from dialer.store.ledger import Minute, Outcomes
from dialer.web.pages.overview import _per_minute

SOME = Outcomes(
    {("pbx01", Result.ANSWERED): 3, ("pbx02", Result.BUSY): 2, ("", Result.INVALID_REQUEST): 9}
)


def test_calls_a_minute_are_those_before_the_newest_minute() -> None:
    minutes = {28_000_000: Minute(), 27_999_999: Minute(outcomes=SOME)}
    assert _per_minute(minutes) == 5


def test_a_cell_that_was_never_read_has_no_calls_a_minute() -> None:
    assert _per_minute({}) == 0
