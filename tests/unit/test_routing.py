"""Which PBX takes a call: never over its room, the fewest starts, the same every time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.room import PbxLoad, recent_starts
from dialer.domain.routing import Returns, Turns, plan

TRUNKS = ["tim", "vivo", "claro"]

wishes = st.lists(st.none() | st.sampled_from(TRUNKS), max_size=40)


@st.composite
def loads(draw: st.DrawFn) -> list[PbxLoad]:
    count = draw(st.integers(0, 5))
    return [
        PbxLoad(
            name=f"pbx{i:02}",
            ready=draw(st.booleans()),
            calls=draw(st.integers(0, 12)),
            max_calls=draw(st.integers(1, 10)),
            starts=draw(st.integers(0, 12)),
            trunks=frozenset(draw(st.sets(st.sampled_from(TRUNKS)))),
            recent_starts=draw(st.sampled_from([0.0, 0.5, 3.0, 12.0])),
            is_held=draw(st.booleans()),
            is_trial_due=draw(st.booleans()),
            default_trunk=draw(st.sampled_from(TRUNKS)),
            trunk_starts=draw(st.dictionaries(st.sampled_from(TRUNKS), st.integers(0, 3))),
        )
        for i in range(count)
    ]


def pbx(name: str, **fields: object) -> PbxLoad:
    known: dict[str, object] = {"ready": True, "calls": 0, "max_calls": 10, "starts": 10}
    return PbxLoad(name=name, **{**known, **fields})  # type: ignore[arg-type]


@given(wishes, loads())
def test_no_pbx_gets_more_calls_than_it_has_room_for(
    trunks: list[str | None], pbxs: list[PbxLoad]
) -> None:
    given_to = Counter(plan(trunks, pbxs))
    for p in pbxs:
        assert given_to[p.name] <= p.room
        assert given_to[p.name] == 0 or p.ready
        assert given_to[p.name] + p.calls <= p.max_calls or given_to[p.name] == 0


@given(wishes, loads())
def test_call_gets_its_trunk_and_waits_only_without_room(
    trunks: list[str | None], pbxs: list[PbxLoad]
) -> None:
    by_name = {p.name: p for p in pbxs}
    given_to = Counter[str]()
    chosen = plan(trunks, pbxs)
    assert len(chosen) == len(trunks)
    for trunk, name in zip(trunks, chosen, strict=True):
        could = [
            p for p in pbxs if p.room > given_to[p.name] and (trunk is None or trunk in p.trunks)
        ]
        if name is None:
            assert not could
            continue
        assert by_name[name] in could
        started = {p.name: (p.recent_starts + given_to[p.name]) / p.max_calls for p in could}
        assert started[name] == min(started.values())
        given_to[name] += 1


@given(wishes, loads())
def test_the_same_loads_give_the_same_plan(trunks: list[str | None], pbxs: list[PbxLoad]) -> None:
    assert plan(trunks, pbxs) == plan(trunks, iter(pbxs))


def test_the_order_of_the_cell_breaks_a_tie() -> None:
    assert plan([None], [pbx("b"), pbx("a")]) == ["b"]
    assert plan([None], [pbx("a"), pbx("b")]) == ["a"]


def test_idle_pbxs_take_turns_by_capacity() -> None:
    turns = Turns()
    large, small, down = pbx("large", max_calls=20), pbx("small"), pbx("down", ready=False)
    chosen = [plan([None], [large, small, down], turns)[0] for _ in range(300)]
    assert Counter(chosen) == {"large": 200, "small": 100}
    assert chosen[:6] == ["large", "small", "large", "large", "small", "large"]


def test_a_pbx_that_comes_late_does_not_get_what_it_has_missed() -> None:
    turns = Turns()
    for _ in range(99):
        plan([None], [pbx("a"), pbx("b")], turns)
    chosen = [plan([None], [pbx("a"), pbx("b"), pbx("new")], turns)[0] for _ in range(30)]
    assert Counter(chosen)["new"] <= 11


def spread(talk_s: dict[str, float], *, cps: float, seconds: float, most: int = 50) -> Counter[str]:
    """Start calls at an even rate on PBXs whose calls last so long; return the starts of each."""
    turns, started = Turns(), Counter[str]()
    ends: dict[str, list[float]] = {name: [] for name in talk_s}
    counted: dict[str, tuple[float, int]] = dict.fromkeys(talk_s, (0.0, 0))
    for i in range(int(cps * seconds)):
        now = i / cps
        now_us = int(now * 1e6)
        loads = []
        for name in talk_s:
            ends[name] = [end for end in ends[name] if end > now]
            recent = recent_starts(*counted[name], now_us)
            calls = len(ends[name])
            loads.append(pbx(name, calls=calls, max_calls=most, recent_starts=recent))
        (chosen,) = plan([None], loads, turns)
        if chosen is not None:
            started[chosen] += 1
            ends[chosen].append(now + talk_s[chosen])
            counted[chosen] = (recent_starts(*counted[chosen], now_us) + 1, now_us)
    return started


@given(
    st.sampled_from([0.0, 0.1, 2.0]), st.sampled_from([10.0, 60.0, 300.0]),
    st.sampled_from([0.05, 0.2, 1.0, 10.0]),
)  # fmt: skip
def test_a_pbx_that_ends_calls_at_once_attracts_no_more(
    short_s: float, long_s: float, cps: float
) -> None:
    most = 20 + int(cps * long_s)  # both have room all the time
    started = spread({"long": long_s, "fast": short_s}, cps=cps, seconds=200 / cps, most=most)
    assert abs(started["fast"] - started["long"]) <= 2  # and short calls do not starve


def test_pbx_that_is_full_leaves_the_rest_to_the_other() -> None:
    started = spread({"long": 1000, "fast": 0}, cps=10, seconds=20, most=40)
    assert started == {"long": 40, "fast": 160}


def test_pbx_on_trial_gets_one_call_if_one_is_due() -> None:
    held = pbx("a", is_held=True, is_trial_due=True)
    assert Counter(plan([None] * 4, [held, pbx("b", recent_starts=5)])) == {"a": 1, "b": 3}
    waits = pbx("a", is_held=True)
    assert plan([None] * 2, [waits, pbx("b", recent_starts=5)]) == ["b", "b"]
    assert (waits.is_taking_calls, pbx("b").is_taking_calls) == (False, True)


def test_load_is_measured_by_capacity() -> None:
    assert plan([None], [pbx("small", calls=2), pbx("large", calls=10, max_calls=100)]) == ["large"]


def test_a_batch_is_spread_over_equal_pbxs() -> None:
    assert plan([None] * 4, [pbx("a"), pbx("b")]) == ["a", "b", "b", "a"]


def test_full_or_unready_pbx_has_no_room() -> None:
    assert pbx("a", calls=12).room == 0
    assert pbx("a", ready=False).room == 0
    assert pbx("a", starts=3).room == 3
    assert pbx("a", calls=8).room == 2


def test_call_without_room_on_its_trunk_is_overtaken() -> None:
    pbxs = [pbx("a", trunks=frozenset({"tim"})), pbx("b", calls=10, trunks=frozenset({"vivo"}))]
    assert plan(["vivo", "tim", None], pbxs) == [None, "a", "a"]


def test_no_more_calls_are_planned_than_the_cell_has_room_for() -> None:
    only_tim = pbx("a", trunks=frozenset({"tim"}))
    assert plan([None] * 3, [pbx("a")], at_most=2) == ["a", "a", None]
    assert plan([None], [pbx("a")], at_most=0) == [None]
    assert plan(["vivo", None, None], [only_tim], at_most=1) == [None, "a", None]


def shared(returns: Returns, away: PbxLoad, stays: PbxLoad, now_us: int, calls: int) -> int:
    """How many of these calls the PBX gets that was away."""
    return plan([None] * calls, returns.level([away, stays], now_us), Turns()).count(away.name)


def test_a_pbx_that_returns_gets_its_share_and_no_more() -> None:
    returns = Returns()
    stays = pbx("stays", max_calls=200, starts=200, recent_starts=100.0)
    away = pbx("away", max_calls=100, starts=200, recent_starts=4.0)
    returns.level([pbx("away", ready=False), stays], 0)
    assert shared(returns, away, stays, 1, 30) == 10
    assert shared(returns, away, stays, 2, 30) == 10  # the next reading knows it still


def test_a_pbx_whose_trial_went_well_gets_its_share_too() -> None:
    returns = Returns()
    stays = pbx("stays", max_calls=100, starts=200, recent_starts=60.0)
    returns.level([pbx("held", is_held=True), stays], 0)
    held = pbx("held", max_calls=100, starts=200)
    assert shared(returns, held, stays, 1, 20) == 10


def test_what_a_pbx_missed_is_forgotten_like_starts() -> None:
    returns = Returns()
    stays = pbx("stays", recent_starts=50.0)
    returns.level([pbx("away", ready=False), stays], 0)
    (away, _) = returns.level([pbx("away"), stays], 0)
    assert away.recent_starts == 50.0
    (away, _) = returns.level([pbx("away"), pbx("stays")], 10_000_000)
    assert away.recent_starts == recent_starts(50.0, 0, 10_000_000)


def test_a_pbx_that_went_twice_keeps_what_it_missed_before() -> None:
    returns = Returns()
    stays, gone = pbx("stays", recent_starts=50.0), pbx("away", ready=False)
    returns.level([gone, stays], 0)
    returns.level([pbx("away"), stays], 0)
    returns.level([gone, stays], 0)
    (away, _) = returns.level([pbx("away"), pbx("stays", recent_starts=70.0)], 0)
    assert away.recent_starts == 70.0
    (away, _) = returns.level([pbx("away"), pbx("stays", recent_starts=70.0)], 0)
    assert away.recent_starts == 70.0


def test_a_pbx_added_to_a_busy_cell_gets_its_share_and_no_more() -> None:
    returns, busy = Returns(), pbx("busy", max_calls=100, starts=200, recent_starts=60.0)
    returns.level([busy], 0)
    assert shared(returns, pbx("added", max_calls=100, starts=200), busy, 1, 20) == 10


def test_the_first_reading_counts_as_it_is() -> None:
    fresh = pbx("fresh")
    assert Returns().level([fresh, pbx("busy", recent_starts=9.0)], 0)[0] == fresh


def test_a_busier_or_only_pbx_that_returns_counts_as_it_is() -> None:
    for other in (pbx("idle"), pbx("idle", ready=False, recent_starts=90.0)):
        returns = Returns()
        returns.level([pbx("away", ready=False), other], 0)
        away = pbx("away", recent_starts=5.0)
        assert returns.level([away, other], 0)[0] == away


# --- limited trunks ----------------------------------------------------------------------


@given(wishes, loads())
def test_no_limited_trunk_gets_more_than_it_may_start(
    trunks: list[str | None], pbxs: list[PbxLoad]
) -> None:
    by_name = {p.name: p for p in pbxs}
    over = Counter(
        (name, by_name[name].trunk_of(trunk))
        for trunk, name in zip(trunks, plan(trunks, pbxs), strict=True)
        if name is not None
    )
    for (name, trunk), calls in over.items():
        assert calls <= by_name[name].trunk_starts.get(trunk, calls)


def test_calls_of_a_limited_trunk_go_to_another_pbx() -> None:
    both = frozenset({"tim", "vivo"})
    limited = pbx("a", trunks=both, default_trunk="tim", trunk_starts={"tim": 1})
    other = pbx("b", trunks=both, default_trunk="vivo", calls=5)
    chosen = plan(["tim", "tim", "vivo", None], [limited, other])
    assert chosen.count("a") == 2
    assert chosen[1] == "b"
    assert (limited.room_for("tim"), limited.room_for("vivo")) == (1, 10)
    assert (limited.room_for(None), other.room_for(None)) == (1, 5)
    assert limited.room_for("claro") == 0
