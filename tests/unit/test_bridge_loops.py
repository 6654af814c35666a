"""The loops of the bridge's parts: what each does in a round, and how long it pauses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dialer.bridge import codes, intake, parked, reaper, recovery
from dialer.bridge.codes import Codes
from dialer.bridge.intake import Intake
from dialer.bridge.judge import Judge
from dialer.bridge.life import ALONE_AFTER_S, ALONE_AGE_S, BLOCK_QUIET_S, BLOCK_S
from dialer.bridge.parked import ParkedSweep
from dialer.bridge.reaper import Reaper
from dialer.bridge.recovery import Recovery
from dialer.domain.room import CellRoom, PbxLoad, Room
from dialer.errors import StoreUnavailable
from dialer.store.ledger import Fetched

ROUNDS = 2


class Enough(Exception):
    """Ends a loop that has no end."""


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a loop does, in order; each pause is its seconds, and the last one ends the loop."""
    steps: list[Any] = []

    async def sleep(seconds: float) -> None:
        steps.append(seconds)
        if len([step for step in steps if isinstance(step, float)]) == ROUNDS:
            raise Enough

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return steps


def noted(
    monkeypatch: pytest.MonkeyPatch, part: type, name: str, note: Any, reply: Any = None
) -> None:
    """Replace a method by one that calls `note` with its name and returns `reply`."""

    async def replaced(_self: Any, *_args: Any, **_more: Any) -> Any:
        note(name)
        return reply

    monkeypatch.setattr(part, name, replaced)


def a(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


async def test_the_reaper_pauses_between_its_rounds(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(monkeypatch, Reaper, "reap", done.append)
    with pytest.raises(Enough):
        await Reaper(a(), a()).run()
    assert done == ["reap", reaper.REAP_EVERY_S] * ROUNDS


async def test_the_recovery_judges_then_moves_then_ends(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def states(**_: float) -> dict[str, Any]:
        done.append("states")
        return {}

    one = Recovery(a(states=states), 120)

    def note(name: str) -> None:
        done.append((name, one.moving.locked()))

    for part, names in (
        (Judge, ("look", "try_with_queued")),
        (Recovery, ("move_late", "move_from_unready_pbxs", "end_lost")),
    ):
        for name in names:
            noted(monkeypatch, part, name, note)
    with pytest.raises(Enough):
        await one.run()
    a_round = [
        "states",
        ("look", False),
        ("move_late", True),
        ("move_from_unready_pbxs", True),
        ("try_with_queued", False),
        ("end_lost", False),
        recovery.EVERY_S,
    ]
    assert done == a_round * ROUNDS


async def test_overdue_codes_are_looked_for_again_and_again(
    done: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def late_codes() -> list[str]:
        done.append("late")
        return ["C:1"]

    with pytest.raises(Enough):
        await Codes(a(ledger=a(late_codes=late_codes)), a()).run_late()
    assert done == ["late", codes.LATE_EVERY_S] * ROUNDS
    assert [vars(record)["call_id"] for record in caplog.records] == ["C:1", "C:1"]


async def test_codes_are_awaited_unless_several_came_at_once(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [[b"1", b"2"], [], [b"3"]]

    async def fetch_codes(bridge: str, *, at_most: int) -> list[bytes]:
        if not batches:
            raise Enough
        return batches.pop(0)

    noted(monkeypatch, Codes, "_deliver_or_bury", done.append)
    noted(monkeypatch, Codes, "_deliver_each_alone", done.append)
    with pytest.raises(Enough):
        await Codes(a(bridge="b", ledger=a(fetch_codes=fetch_codes)), a()).run()
    one, alone = "_deliver_or_bury", "_deliver_each_alone"
    assert done == [one, one, alone, one, alone]


@pytest.mark.parametrize("trunks", [{}, {"tim": 1}, {"tim": 1, "vivo": 1}])
async def test_a_sweep_pauses_longer_while_nothing_is_parked(
    done: list[Any], trunks: dict[str, int]
) -> None:
    async def parked_slice(trunk: str, start: int, n: int) -> list[bytes]:
        done.append((trunk, start))
        return []

    ledger = a(parked_slice=parked_slice)
    with pytest.raises(Enough):
        await ParkedSweep(a(ledger=ledger), a(parked=trunks, refusals=None)).run()
    names = list(trunks) * (ROUNDS // len(trunks)) if trunks else []
    swept = [step for name in names for step in ((name, 0), parked.PAUSE_S)]
    assert done == (swept or [parked.IDLE_PAUSE_S] * ROUNDS)


async def test_a_sweep_goes_on_behind_the_requests_that_stay(done: list[Any]) -> None:
    rows, of_slice = [b"row"] * 5, {0: 5}

    async def parked_slice(trunk: str, start: int, n: int) -> list[bytes]:
        done.append(start)
        return rows[: of_slice.get(start, 0)]

    async def read(elements: list[Any]) -> list[Any]:
        return elements[1:]  # one is not readable and has left

    async def allowed(candidates: list[Any], *, before_lease: bool) -> tuple[list[Any], int]:
        assert not before_lease
        return candidates[1:], 1

    keys = a(parked=lambda trunk: f"parked {trunk}")
    sweep = ParkedSweep(
        a(ledger=a(parked_slice=parked_slice, keys=keys)),
        a(parked={"tim": 5}, refusals=a(read=read, allowed=allowed)),
    )
    with pytest.raises(Enough):
        await sweep.run()
    assert done == [0, parked.PAUSE_S, 3, parked.PAUSE_S]


# --- the intake -----------------------------------------------------------------------------


def an_intake(*, is_paused: bool = False, asks_asterisk: bool = False) -> Intake:
    keys = a(hand=lambda bridge: f"hand of {bridge}")
    ledger = a(keys=keys, wire=a(request="requests"), head="LEFT")
    clock = a(now=lambda: "its time")
    paused = {"its time": is_paused}
    cell = a(
        bridge="b",
        ledger=ledger,
        clock=clock,
        is_paused=paused.__getitem__,
        settings=a(asks_asterisk=asks_asterisk),
        reply_within_s=7.0,
    )
    return Intake(cast(Any, cell), cast(Any, "its client"))


def room(*, ready: bool = True, starts: int = 1, **more: bool) -> Room:
    loads = [
        PbxLoad(name=name, ready=up, calls=0, max_calls=9, starts=starts, trunks=frozenset({name}))
        for name, up in {"tim": ready, **more}.items()
    ]
    return Room(cell=CellRoom(threads=9, live=0, in_hand=0), pbxs=tuple(loads))


def fetched(*hand: bytes) -> Fetched:
    return Fetched(hand=list(hand))


@pytest.mark.parametrize(
    ("its_room", "hand", "is_paused", "waits"),
    [
        (room(ready=False), [], False, intake.IDLE_PAUSE_S),
        (room(), [], True, intake.IDLE_PAUSE_S),
        (room(), [b"1"], False, intake.FULL_PAUSE_S),
        (room(starts=0), [], False, intake.FULL_PAUSE_S),
        (room(), [], False, "_wait_for_request"),
    ],
)
async def test_an_intake_waits_for_what_it_lacks(
    done: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    its_room: Room,
    hand: list[bytes],
    is_paused: bool,
    waits: Any,
) -> None:
    noted(monkeypatch, Intake, "_wait_for_request", done.append)
    await an_intake(is_paused=is_paused)._wait(its_room, fetched(*hand))
    assert done == [waits]


async def test_an_intake_looks_for_operators_more_often(done: list[Any]) -> None:
    await an_intake(asks_asterisk=True)._wait(room(ready=False), fetched())
    assert done == [intake.FULL_PAUSE_MAX_S]


@pytest.mark.parametrize("start_in_s", [0.1, 0.111, 0.25, 0.7])
async def test_an_intake_looks_when_its_pace_is_due(
    monkeypatch: pytest.MonkeyPatch, start_in_s: float
) -> None:
    """A PBX of 4 to 10 calls a second has no burst, so what comes late is never made up."""
    now, looks = [100.0], list[float]()

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def look(_self: Intake, *, max_age_s: float) -> bool:
        looks.append(now[0])
        return now[0] >= 100 + start_in_s

    monkeypatch.setattr(
        intake, "asyncio", a(sleep=sleep, get_running_loop=lambda: a(time=lambda: now[0]))
    )
    monkeypatch.setattr(Intake, "_may_admit", look)
    one = an_intake()
    one.life.is_known = True
    load = room(starts=0).pbxs[0]
    paced = replace(room(), pbxs=(replace(load, start_in_s=start_in_s),))
    await one._wait_for_room(paced)
    assert looks[-1] == pytest.approx(100 + start_in_s)


@pytest.mark.parametrize(
    ("parked_trunk", "within_s"),
    [
        (None, BLOCK_S),
        ("", intake.BLOCK_PARKED_S),
        ("tim", intake.BLOCK_PARKED_S),
        ("away", BLOCK_S),
        ("unknown", BLOCK_S),
    ],
)
async def test_an_intake_waits_shorter_if_a_parked_request_may_go(
    monkeypatch: pytest.MonkeyPatch, parked_trunk: str | None, within_s: float
) -> None:
    waited: list[Any] = []

    async def wait_and_move(*args: Any, **more: Any) -> None:
        waited.append((args, more))

    monkeypatch.setattr(intake, "wait_and_move", wait_and_move)
    one = an_intake()
    one.parked = {} if parked_trunk is None else {parked_trunk: 1}
    await one._wait_for_request(room(away=False))
    lists = ("its client", "requests", "hand of b")
    assert waited == [(lists, {"head": "LEFT", "within_s": within_s, "reply_within_s": 7.0})]


@pytest.mark.parametrize(
    ("is_quiet", "may_admit", "times"), [(True, True, 3), (True, False, 1), (False, True, 1)]
)
async def test_the_intake_of_a_quiet_cell_waits_on(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool, may_admit: bool, times: int
) -> None:
    found = [None, None, b"a request"]
    waited: list[Any] = []

    async def wait_and_move(*_: Any, **__: Any) -> Any:
        waited.append(found[len(waited)])
        return waited[-1]

    async def look(_self: Intake, *, max_age_s: float) -> bool:
        return may_admit

    monkeypatch.setattr(intake, "wait_and_move", wait_and_move)
    monkeypatch.setattr(Intake, "_may_admit", look)
    one = an_intake()
    one.life.is_quiet = is_quiet
    await one._wait_for_request(room())
    assert len(waited) == times


async def test_an_intake_without_redis_does_not_spin(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("lost")

    monkeypatch.setattr(intake, "wait_and_move", lost)
    await an_intake()._wait_for_request(room())
    assert done == [intake.IDLE_PAUSE_S]


@pytest.mark.parametrize("has_moved", [True, False])
async def test_an_intake_waits_only_if_nothing_moved(
    done: list[Any], monkeypatch: pytest.MonkeyPatch, has_moved: bool
) -> None:
    one = an_intake()
    rounds = [(room(), fetched())] * ROUNDS

    async def fetch(_self: Intake) -> Any:
        if not rounds:
            raise Enough
        return rounds.pop()

    monkeypatch.setattr(Intake, "fetch", fetch)
    note = lambda name: done.append((name, one.admitting.locked()))  # noqa: E731
    noted(monkeypatch, Intake, "handle", note, room() if has_moved else None)
    noted(monkeypatch, Intake, "_wait", note)
    with pytest.raises(Enough):
        await one.run()
    waits = [] if has_moved else [("_wait", False)]
    assert done == [("handle", True), *waits] * ROUNDS


@pytest.mark.parametrize(
    ("hand", "starts", "parked", "goes_on"),
    [
        ([b"1"], 2, {}, True),
        ([b"1", b"2"], 2, {}, False),  # they come fast: one fetch takes more than one wait
        ([b"1"], 0, {}, False),
        ([b"1"], 2, {"tim": 1}, False),
    ],
)
async def test_an_intake_goes_on_alone_after_a_single_request(
    done: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    hand: list[bytes],
    starts: int,
    parked: dict[str, int],
    goes_on: bool,
) -> None:
    one, rounds = an_intake(), [(room(starts=starts), Fetched(hand=hand, parked=parked))]

    async def fetch(_self: Intake) -> Any:
        if not rounds:
            raise Enough
        return rounds.pop()

    monkeypatch.setattr(Intake, "fetch", fetch)
    noted(monkeypatch, Intake, "handle", done.append, room())
    noted(monkeypatch, Intake, "_handle_each_alone", done.append)
    with pytest.raises(Enough):
        await one.run()
    assert done == ["handle", *(["_handle_each_alone"] if goes_on else [])]


class Alone:
    """An intake whose waits take the seconds of `found`, and find its requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: tuple[float, Any]) -> None:
        self.found, self.now = list(found), 100.0
        self.handled: list[tuple[Room, Fetched, bool]] = []
        self.moves = True
        self.waited: list[float] = []
        clock = a(time=lambda: self.now)
        monkeypatch.setattr(intake, "asyncio", a(get_running_loop=lambda: clock))
        monkeypatch.setattr(intake, "wait_and_move", self.wait)
        monkeypatch.setattr(Intake, "handle", lambda _, *given, is_alone: self.handle(*given))
        self.intake = an_intake()
        self.intake._read_at = self.now

    async def wait(self, *_: Any, within_s: float, **__: Any) -> Any:
        self.waited.append(within_s)
        took_s, found = self.found.pop(0)
        self.now += took_s
        if isinstance(found, Exception):
            raise found
        return found

    async def handle(self, given: Room, fetched: Fetched) -> Room | None:
        self.handled.append((given, fetched, self.intake.admitting.locked()))
        return given.after({"tim": 1}, left=1) if self.moves else None


NONE = (BLOCK_S, None)


async def test_a_request_alone_is_handled_by_the_last_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Alone(monkeypatch, (0.04, b"1"), (0.04, b"2"), NONE)
    one.intake._pause_s, one.intake.life.is_quiet = intake.FULL_PAUSE_MAX_S, True
    await one.intake._handle_each_alone(room(starts=5))
    assert one.waited == [BLOCK_QUIET_S, BLOCK_S, BLOCK_S]
    assert (one.intake._pause_s, one.intake.life.is_quiet) == (intake.FULL_PAUSE_S, False)
    assert [fetched for _, fetched, _ in one.handled] == [
        Fetched(hand=[b"1"]),
        Fetched(hand=[b"2"]),
    ]
    assert all(is_locked for *_, is_locked in one.handled)
    first, second = (given for given, *_ in one.handled)
    assert [(r.cell.live, r.cell.in_hand, r.pbxs[0].starts) for r in (first, second)] == [
        (0, 1, 5),
        (1, 1, 4),
    ]


@pytest.mark.parametrize(
    "found",
    [
        [(0.04, b"1"), (ALONE_AFTER_S / 2, b"2")],  # more may have come with the second
        [(0.04, b"1"), (ALONE_AGE_S, b"2")],  # the reading is old
        [(0.04, b"1"), (0.04, StoreUnavailable("lost"))],
    ],
)
async def test_the_room_is_read_again_before_a_request(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[float, Any]]
) -> None:
    one = Alone(monkeypatch, *found)
    await one.intake._handle_each_alone(room(starts=5))
    assert len(one.handled) == 1
    assert one.found == []


async def test_the_room_is_read_again_if_a_request_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Alone(monkeypatch, (0.04, b"1"))
    one.moves = False
    await one.intake._handle_each_alone(room(starts=5))
    assert len(one.handled) == 1


@pytest.mark.parametrize("in_hand", [0, 1])
async def test_nothing_is_awaited_alone_without_room(
    monkeypatch: pytest.MonkeyPatch, in_hand: int
) -> None:
    one = Alone(monkeypatch, (0.04, b"1"))
    left = room(starts=in_hand)
    await one.intake._handle_each_alone(replace(left, cell=replace(left.cell, in_hand=in_hand)))
    assert one.waited == []
