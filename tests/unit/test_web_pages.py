"""Pages of cells and PBXs: what forms say, and where a person is after them."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.requests import Request

from dialer.domain.call import Result
from dialer.domain.parameters import CELL_KNOBS, OF_FILE, PBX_KNOBS
from dialer.domain.people import Did
from dialer.settings.typed import shown
from dialer.store.ledger import Minute, Outcomes
from dialer.web import words
from dialer.web.pages.cells import minutes_of, outcome_table
from dialer.web.pages.parameters import CHOICES, changed, values
from dialer.web.pages.steer import number_in, way_back
from dialer.web.texts import NOTHING, texts

NOW = datetime(2026, 11, 27, 10, 42, 30, tzinfo=UTC)


def form(**fields: str) -> dict[str, str]:
    return {name.replace("was_", "was-"): text for name, text in fields.items()}


def posted(referer: str = "", **fields: str) -> Request:
    headers = [(b"host", b"dialer.test")]
    headers += [(b"referer", referer.encode())] if referer else []
    scope: dict[str, Any] = {"type": "http", "scheme": "https", "headers": headers}
    scope |= {"server": ("dialer.test", 443), "path": "/cells/TIM/pause", "query_string": b""}
    request = Request(scope | {"state": {}})
    request.state.form = fields
    return request


# --- forms ----------------------------------------------------------------------------------


def test_only_what_the_person_changed_is_set() -> None:
    typed = form(threads="30", was_threads="50", retries="2", was_retries=" 2 ", other="x")
    assert changed("cell", typed) == {"threads": "30"}


def test_an_emptied_field_is_a_change() -> None:
    typed = changed("cell", form(threads=" ", was_threads="50"))
    assert values("cell", typed) == ({"threads": OF_FILE}, {})


def test_a_field_in_an_inner_table_has_a_short_name() -> None:
    typed = changed("cell", form(outside_hours="expire", was_outside_hours="hold"))
    assert values("cell", typed) == ({"limits/outside_hours": "expire"}, {})


def test_every_wrong_field_has_a_sentence() -> None:
    found, wrong = values("cell", {"threads": "many", "retries": "1.5", "ring_timeout": "20"})
    assert found == {"ring_timeout": 20}
    assert wrong.keys() == {"threads", "retries"}


def test_choices_are_those_of_the_settings() -> None:
    assert CHOICES["amd"] == ("off", "hangup", "message", "pass")
    assert set(CHOICES["limits/outside_hours"]) == {"hold", "expire"}


def test_every_parameter_and_deed_has_words() -> None:
    assert {shown(name) for name in (*CELL_KNOBS, *PBX_KNOBS)} <= words.KNOBS.keys()
    assert words.DEEDS.keys() == set(Did)
    assert words.RESULTS.keys() == set(Result)


# --- the way back ---------------------------------------------------------------------------


def test_a_form_names_the_way_back() -> None:
    assert way_back(posted("https://dialer.test/calls", back="/cells/TIM")) == "/cells/TIM"


def test_else_it_is_the_page_of_the_form() -> None:
    assert way_back(posted("https://dialer.test/cells/TIM?at=10:42")) == "/cells/TIM?at=10:42"


@pytest.mark.parametrize(
    "referer",
    [
        "",
        "https://evil.test/cells/TIM",
        "https://dialer.test.evil.test/x",
        "https://dialer.test",
        "https://dialer.test//evil.test",
        "https://dialer.test/\\evil.test",
        "http://dialer.test/cells/TIM",
        "https://[",
    ],
)
def test_another_site_is_no_way_back(referer: str) -> None:
    assert way_back(posted(referer)) == "/"
    assert way_back(posted(referer, back="//evil.test")) == "/"


def test_numbers_of_changes_are_short() -> None:
    assert number_in("12") == 12
    assert [number_in(text) for text in ("", "-1", "1e9", "٣", "9" * 15, "9" * 5000)] == [None] * 6


# --- outcomes -------------------------------------------------------------------------------


def of(**pbxs: dict[Result, int]) -> Outcomes:
    return Counter(
        {(pbx.strip("_"), one): n for pbx, some in pbxs.items() for one, n in some.items()}
    )


def test_the_last_minute_is_the_present_one() -> None:
    present = int(NOW.timestamp()) // 60
    dialed = of(pbx01={Result.ANSWERED: 3, Result.BUSY: 1})
    found = minutes_of({present: Minute(outcomes=dialed), present - 59: Minute()}, NOW)
    assert [found[0].at, found[-1].at] == [
        datetime(2026, 11, 27, 9, 43, tzinfo=UTC),
        datetime(2026, 11, 27, 10, 42, tzinfo=UTC),
    ]
    assert (found[-1].dialed, found[-1].rate) == (4, 0.75)
    assert (found[0].dialed, found[0].rate) == (0, None)


def test_requests_without_a_pbx_were_not_dialed() -> None:
    present = int(NOW.timestamp()) // 60
    found = minutes_of({present: Minute(outcomes=of(_={Result.EXPIRED: 9}))}, NOW)
    assert (found[-1].dialed, found[-1].rate) == (0, None)


def test_a_minute_says_how_soon_its_acks_came() -> None:
    present = int(NOW.timestamp()) // 60
    found = minutes_of({present: Minute(peak=7, acks={5: 98, 20: 1, math.inf: 1})}, NOW)[-1]
    assert (found.peak, found.ack_p50_s, found.ack_p99_s) == (7, 0.005, 0.02)
    assert (found.rate, minutes_of({}, NOW)[0].ack_p50_s) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, NOTHING),
        (0.0, "0 ms"),
        (0.005, "5 ms"),
        (1.5, "1.5 s"),
        (30.0, "30.0 s"),
        (math.inf, "> 30 s"),
    ],
)
def test_times_until_an_ack_have_their_unit(seconds: float | None, said: str) -> None:
    assert texts("en").delay(seconds) == said


def test_without_outcomes_the_minutes_are_those_of_now() -> None:
    found = minutes_of({}, NOW)
    assert len(found) == 60
    assert found[-1].at == datetime(2026, 11, 27, 10, 42, tzinfo=UTC)


def test_outcomes_are_counted_by_result_and_pbx() -> None:
    table = outcome_table(
        of(
            pbx02={Result.BUSY: 2},
            pbx01={Result.BUSY: 1, Result.ANSWERED: 5},
            _={Result.EXPIRED: 4},
        )
    )
    assert table.pbxs == ["", "pbx01", "pbx02"]
    assert dict(table.rows) == {
        Result.ANSWERED: [0, 5, 0, 5],
        Result.BUSY: [0, 1, 2, 3],
        Result.EXPIRED: [4, 0, 0, 4],
    }
    assert table.totals == [4, 6, 2, 12]


def test_no_outcomes_are_an_empty_table() -> None:
    table = outcome_table(Outcomes({("pbx01", Result.BUSY): 0}))
    assert (table.pbxs, table.rows, table.totals) == ([], [], [])
