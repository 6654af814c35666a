"""What the registry reads out of a heartbeat: each limit exactly, and whatever else is in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, cast

import pytest

from dialer.domain.room import PbxLimits
from dialer.domain.taking import Results, Verdict
from dialer.store.keys import BRIDGE_SHOWN_S
from dialer.store.registry import BridgeState, PbxState, Registry, skew_words
from dialer.store.steps import Steps
from tests.unit.stand_ins import Notes, a

NOW_S = 1_000
LIMITS = PbxLimits(name="pbx01", max_calls=50, cps=10, trunks=frozenset({"tim"}))


def beat(**fields: Any) -> dict[str, Any]:
    """A heartbeat of now: the fields that `loads` reads, in its order."""
    known = {"seen": NOW_S * 1000, "link": "up", "instance": "i1", "ready": NOW_S * 1000}
    later = ("lacking", "trouble", "skew_ms", "cap", "results", "governor")
    latest = ("limits", "rival", "rival_ms", "agents")
    return known | dict.fromkeys((*later, *latest), "") | fields


async def read(
    *verdict: Any, cell: str | None = None, starts: tuple[Any, Any] = ("", ""), **fields: Any
) -> PbxState:
    """What the registry says of a PBX whose keys have these values."""

    def text(value: Any) -> bytes:
        return str(value).encode()

    judged = [text(value) for value in verdict] or [b""] * 7
    row = [
        [text(value) for value in beat(**fields).values()],
        0,
        0,
        [text(value) for value in starts],
        judged,
        [],
    ]
    steps = a(run=Notes().of("run", [NOW_S * 1_000_000, row]))
    return (await Registry(cast(Steps, steps)).pbxs([LIMITS], cell))["pbx01"]


def seen(seconds: float) -> Any:
    return {"seen": int((NOW_S - seconds) * 1000)}


async def test_a_pbx_is_ready_until_it_was_silent_for_5_s() -> None:
    assert (await read(**seen(4.999))).load.ready
    silent = await read(**seen(5))
    assert not silent.load.ready
    assert silent.why_not_taking() == "no heartbeat of its worker for 5 s"
    assert (await read(**seen(4.999))).why_not_taking() == ""


async def test_a_worker_is_alive_until_it_was_silent_for_10_s() -> None:
    assert (await read(**seen(9.999))).is_alive
    assert not (await read(**seen(10))).is_alive


async def test_a_heartbeat_that_never_came_is_infinitely_old() -> None:
    never = await read(seen="", ready="", instance="", link="")
    assert (never.silent_s, never.unready_s) == (math.inf, math.inf)
    assert never.why_not_taking() == "no worker of it ever came"


async def test_the_time_without_a_link_is_told() -> None:
    down = await read(link="down", ready=(NOW_S - 7) * 1000)
    assert down.unready_s == 7
    assert down.why_not_taking() == "no AMI link for 7 s"


@pytest.mark.parametrize("ms", [30_001, -30_001])
async def test_a_clock_that_is_30_s_wrong_stops_calls(ms: int) -> None:
    state = await read(skew_ms=ms)
    assert not state.load.ready
    way = "ahead of" if ms > 0 else "behind"
    assert state.why_not_taking().startswith(f"the clock of its host is 30 s {way} that of Redis")
    assert state.skew_s == ms / 1000


@pytest.mark.parametrize("ms", [30_000, -30_000, 0])
async def test_a_clock_that_is_less_wrong_stops_none(ms: int) -> None:
    state = await read(skew_ms=ms)
    assert state.load.ready
    assert state.why_not_taking() == ""


async def test_the_reasons_have_an_order() -> None:
    """The first of them is what the operator has to mend first."""
    verdict = Verdict(reason="judged", instance="i1", age_s=1)
    state = PbxState(
        load=(await read()).load,
        instance="",
        link="stopping",
        lacking={"A": "no queue"},
        silent_s=5,
        unready_s=6,
        trouble="no broker",
        skew_s=31,
        verdict=verdict,
    )
    mended: list[dict[str, Any]] = [
        {"instance": "i1"},
        {"link": "down"},
        {"silent_s": 0},
        {"trouble": ""},
        {"link": "up"},
        {"skew_s": 0},
        {"lacking": {}},
        {"verdict": None},
    ]
    reasons = [state.why_not_taking("A")]
    for fields in mended:
        state = replace(state, **fields)
        reasons.append(state.why_not_taking("A"))
    assert reasons == [
        "no worker of it ever came",
        "its worker was stopped",
        "no heartbeat of its worker for 5 s",
        "no broker",
        "no AMI link for 6 s",
        "the clock of its host is 31 s ahead of that of Redis; run chrony or ntpd on both",
        "no queue",
        "judged",
        "",
    ]


async def test_a_lacking_target_stops_only_its_cell() -> None:
    lacking = json.dumps({"A": "no queue", "B": 7})
    assert not (await read(cell="A", lacking=lacking)).load.ready
    for cell in ("C", None):
        state = await read(cell=cell, lacking=lacking)
        assert state.load.ready
        assert state.why_not_taking(cell) == ""
        assert state.lacking == {"A": "no queue", "B": "7"}


async def test_asterisks_own_limit_lowers_the_settings() -> None:
    for cap, most in (("", 50), ("0", 50), ("7", 7), ("99", 50)):
        state = await read(cap=cap)
        assert (state.load.max_calls, state.max_calls, state.cap) == (most, 50, int(cap or 0))


async def test_recent_starts_of_now_count_in_full() -> None:
    assert (await read(starts=("2.5", NOW_S * 1_000_000))).load.recent_starts == 2.5
    assert (await read(starts=("inf", NOW_S * 1_000_000))).load.recent_starts == 0
    assert (await read()).load.recent_starts == 0


async def test_a_verdict_has_its_ages_and_numbers() -> None:
    at = (NOW_S - 20) * 1000, (NOW_S - 4) * 1000
    state = await read("no word", "i1", at[0], "ASR:1", at[1], 3, "")
    assert state.verdict == Verdict(
        reason="no word", instance="i1", age_s=20, trial="ASR:1", trial_age_s=4, trials=3
    )
    assert (state.load.is_held, state.load.is_trial_due) == (True, False)
    assert state.why_not_taking() == "no word"


@pytest.mark.parametrize("verdict", [("no word", "i0"), ("", "i1")])
async def test_a_verdict_on_another_worker_does_not_count(verdict: tuple[str, str]) -> None:
    state = await read(*verdict, 0, "", 0, 0, "")
    assert (state.verdict, state.load.is_held, state.load.is_trial_due) == (None, False, False)


async def test_results_are_read_as_far_as_they_are_known() -> None:
    results = '{"claimed": 3, "expired": -1, "accepted": "2", "no_word": null, "new": 9}'
    lifted = '{"no_word": 4}'
    state = await read("", "", "", "", "", "", lifted, results=results)
    assert state.results == Results(claimed=3, accepted=2, expired=-1)
    assert state.lifted == Results(no_word=4)


@pytest.mark.parametrize("text", ["[1]", '"claimed"', "no JSON", "1e400", "[" * 100_000])
async def test_what_is_no_json_object_counts_as_none(text: str) -> None:
    state = await read(results=text, lacking=text)
    assert (state.results, state.lacking) == (Results(), {})


# --- bridges ------------------------------------------------------------------------------


async def test_a_bridge_says_its_clock_and_its_broker() -> None:
    notes = Notes()
    registry = Registry(cast(Steps, a(run=notes.of("run"))))
    await registry.bridge_beat("bridge-1", BridgeState(skew_s=-1.25, broker="refused"))
    ((step, _, args),) = notes.given("run")
    assert step == "bridge_beat"
    assert args == [BRIDGE_SHOWN_S, "skew_ms", -1250, "broker", "refused"]


async def test_only_bridges_that_said_something_are_known() -> None:
    rows = [[b"-1250", b"refused"], [None, None], [b"0", None]]
    registry = Registry(cast(Steps, a(read_many=Notes().of("read_many", rows))))
    assert await registry.bridges(["a", "b", "c"]) == {
        "a": BridgeState(skew_s=-1.25, broker="refused"),
        "c": BridgeState(skew_s=0, broker=""),
    }


# --- a worker's heartbeat -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "number", "is_holder"), [("w", 12, True), ("w", 0, False), ("", 0, True)]
)
async def test_a_worker_learns_if_it_has_the_lease(
    holder: str, number: int, *, is_holder: bool
) -> None:
    registry = Registry(cast(Steps, a(run=Notes().of("run", [b"17", number]))))
    reply = await registry.heartbeat("pbx01", instance="i", link="up", facts={}, holder=holder)
    assert (reply.now_ms, reply.is_holder) == (17, is_holder)


async def test_a_bridge_releases_slots_without_a_number() -> None:
    notes = Notes()
    registry = Registry(cast(Steps, a(run=notes.of("run"))))
    await registry.release("pbx01", ["A:1"])
    await registry.release("pbx01", ["A:1"], fence=7)
    assert [args for _, _, args in notes.given("run")] == [["", "A:1"], [7, "A:1"]]


@pytest.mark.parametrize(("skew_s", "way"), [(0.6, "1 s ahead of"), (-0.6, "1 s behind")])
def test_a_clock_is_ahead_or_behind(skew_s: float, way: str) -> None:
    assert skew_words(skew_s).startswith(f"the clock of its host is {way} that of Redis")


async def test_nothing_is_sent_for_no_calls() -> None:
    notes = Notes()
    registry = Registry(cast(Steps, a(run=notes.of("run"))))
    await registry.release("pbx01", [])
    assert await registry.restore_slots("pbx01", []) == 0
    assert notes == []


async def test_the_asterisk_of_a_pbx_is_told() -> None:
    for raw, asterisk in ((b"00:1b at host:5038", "00:1b at host:5038"), (None, "")):
        registry = Registry(cast(Steps, a(read=Notes().of("read", raw))))
        assert await registry.asterisk("pbx01") == asterisk


async def test_slots_are_asked_for_by_age_and_cell() -> None:
    notes = Notes()
    registry = Registry(cast(Steps, a(run=notes.of("run", [[b"A:1"], []]))))
    found = await registry.slots(["pbx01", "pbx02"], "A", older_than_s=10.5)
    assert found == {"pbx01": ["A:1"], "pbx02": []}
    ((_, keys, args),) = notes.given("run")
    assert (keys, args) == (["dialer:slots:pbx01", "dialer:slots:pbx02"], [10_500, "A:"])


async def test_many_numbers_are_looked_up_in_batches() -> None:
    notes = Notes()
    registry = Registry(cast(Steps, a(read=notes.of("read", lambda *args: [0] * len(args[2:])))))
    numbers = [f"+5511{n:08}" for n in range(2_345)]
    assert await registry.dnc_contains(numbers) == [False] * 2_345
    asked = [set(command[2:]) for command in notes.given("read")]
    assert len(asked) == 3
    assert set(numbers) <= set().union(*asked)
