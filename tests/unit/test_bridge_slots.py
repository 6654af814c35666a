"""Slots of a cell: which the reaper releases and restores, and which calls it moves."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from dialer.bridge.cell import BridgeCell
from dialer.bridge.reaper import REAP_EVERY_S, Reaper
from dialer.bridge.recovery import Recovery
from dialer.domain.room import PbxLimits
from tests.unit.lives import REQUEST
from tests.unit.stand_ins import Notes, a

RELEASED = "Released slots that no call used any longer"
RESTORED = "Restored the lost slots of calls"


class Site:
    """A cell with two PBXs. `holders` are its calls, `slots` those in the registry."""

    def __init__(self, *, is_alone: bool = True, room: int = 3) -> None:
        self.notes = Notes()
        self.holders: dict[str, str] = {}
        self.ended: set[str] = set()
        self.slots: dict[str, list[str]] = {}
        states = {n: a(load=a(room=room)) for n in ("pbx01", "pbx02")} if room else {}
        registry: Any = a(
            slots=self.notes.of("slots", lambda *_, **__: self.slots),
            release=self.notes.of("release"),
            restore_slots=self.notes.of("restore", lambda _, ids: len(ids)),
            pbxs=self.notes.of("pbxs", states),
        )
        self.destroyed: list[set[str]] = []  # what each look finds
        ledger: Any = a(live=self.live, slot_holders=self.slot_holders, destroyed=self.look)
        its: Any = a(name="C", trunk="default", limits=a(outside_hours="hold", is_open=self.open))
        dispatcher: Any = None
        self.cell = BridgeCell(
            bridge="b",
            settings=its,
            pbxs=tuple(
                PbxLimits(name=n, max_calls=9, cps=9, trunks=frozenset({n, "both"}))
                for n in ("pbx01", "pbx02")
            ),
            all_pbxs=("pbx01", "pbx02", "pbx03"),
            ledger=ledger,
            registry=registry,
            dispatcher=dispatcher,
        )
        self.recovery = Recovery(self.cell, 120)
        self.reaper = Reaper(self.cell, self.recovery, lambda: is_alone)

    async def live(self) -> list[str]:
        return list(self.holders)

    async def look(self, ids: Any) -> set[str]:
        return self.destroyed.pop(0) & set(ids) if self.destroyed else set()

    async def slot_holders(self, ids: Any) -> dict[str, str]:
        asked = set(ids)
        found = {i: name for i, name in self.holders.items() if i in asked}
        for one in self.ended:  # they end after they were read
            self.holders.pop(one, None)
        return found

    def open(self, at: datetime) -> bool:
        return at.hour == 12


@pytest.fixture(autouse=True)
def moves(monkeypatch: pytest.MonkeyPatch) -> Notes:
    notes = Notes()

    async def move_from(self: Recovery, pbx: str, states: Any, *, at_most: int) -> None:
        notes.append(("move", pbx, list(states), at_most, self.moving.locked()))

    async def end_claimed(_: Recovery, pbx: str) -> None:
        notes.append(("end", pbx))

    monkeypatch.setattr(Recovery, "move_from", move_from)

    async def end_destroyed(_: Recovery, ids: Iterable[str]) -> None:
        if found := sorted(ids):
            notes.append(("destroyed", found))

    monkeypatch.setattr(Recovery, "end_claimed", end_claimed)
    monkeypatch.setattr(Recovery, "end_destroyed", end_destroyed)
    return notes


async def test_a_slot_without_a_call_is_released(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.holders = {"C:1": "pbx01", "C:2": "pbx02"}
    site.slots = {"pbx01": ["C:1", "C:2", "C:3"], "pbx02": ["C:2"], "pbx03": []}
    await site.reaper.release_leaked(older_than_s=5.0)
    assert site.notes == [
        ("slots", ("pbx01", "pbx02", "pbx03"), "C", {"older_than_s": 5.0}),
        ("release", "pbx01", ["C:2", "C:3"]),
        ("release", "pbx02", []),
    ]
    assert caplog.messages == [RELEASED]
    said = vars(caplog.records[0])
    assert (said["cell"], said["pbx"], said["slots"]) == ("C", "pbx01", 2)


async def test_slots_stay_if_the_cell_is_on_two_redis() -> None:
    site = Site(is_alone=False)
    site.slots = {"pbx01": ["C:1"]}
    await site.reaper.release_leaked(older_than_s=5.0)
    assert site.notes == []


async def test_a_call_destroyed_in_two_rounds_is_ended(moves: Notes) -> None:
    site = Site()
    site.holders = {"C:1": "pbx01", "C:2": "pbx01", "C:3": "pbx01"}
    site.destroyed = [{"C:1", "C:2"}, {"C:2", "C:3"}, {"C:3"}, set(), {"C:3"}]
    ended = []
    for _ in range(5):
        await site.reaper.reap()
        ended.append(moves.given("destroyed"))
        moves.clear()
    assert ended == [[], [["C:2"]], [["C:3"]], [], []]


async def test_lost_slots_are_restored(caplog: pytest.LogCaptureFixture, moves: Notes) -> None:
    site = Site()
    site.holders = {"C:1": "pbx01", "C:2": "pbx01", "C:3": "pbx02"}
    site.slots = {"pbx01": ["C:1"], "pbx02": ["C:3"]}
    await site.reaper.reap()
    assert site.notes.given("restore") == [("pbx01", ["C:2"]), ("pbx02", [])]
    ages = [more["older_than_s"] for *_, more in site.notes.given("slots")]
    assert ages == [REAP_EVERY_S, 0]
    assert caplog.messages == [RESTORED]
    said = vars(caplog.records[0])
    assert (said["cell"], said["pbx"], said["slots"]) == ("C", "pbx01", 1)
    assert moves == []


async def test_a_slot_of_a_call_that_ended_is_not_restored() -> None:
    site = Site()
    site.holders, site.ended = {"C:1": "pbx01"}, {"C:1"}
    site.slots = {"pbx01": []}
    await site.reaper.reap()
    assert site.notes.given("restore") == [("pbx01", [])]


async def test_a_call_that_moved_is_restored_where_it_is() -> None:
    site = Site()
    site.holders = {"C:1": "pbx02"}
    assert await site.reaper._still_on("pbx01", ["C:1"]) == []
    assert await site.reaper._still_on("pbx02", ["C:1"]) == ["C:1"]


@pytest.mark.parametrize("room", [3, 0])
async def test_calls_leave_a_pbx_that_the_cell_lost(moves: Notes, room: int) -> None:
    site = Site(room=room)
    site.holders = {"C:1": "pbx03", "C:2": "pbx01"}
    await site.reaper.reap()
    moved = [("move", "pbx03", ["pbx01", "pbx02"], 6, True)] if room else []
    assert moves == [*moved, ("end", "pbx03")]
    assert site.notes.given("pbxs") == [(site.cell.pbxs, "C")]


def test_a_reaper_is_alone_unless_it_is_told() -> None:
    site = Site()
    assert Reaper(site.cell, site.recovery).is_alone()


# --- the cell -------------------------------------------------------------------------------


async def test_a_slot_that_a_call_uses_is_not_released() -> None:
    site = Site()
    site.holders = {"C:1": "pbx01", "C:2": "pbx02"}
    assert await site.cell.release_unused("pbx01", iter(["C:1", "C:2", "C:3"])) == 2
    assert site.notes == [("release", "pbx01", ["C:2", "C:3"])]


async def test_without_slots_nothing_is_released() -> None:
    site = Site()
    assert await site.cell.release_unused("pbx01", []) == 0
    assert site.notes == []


def test_a_cell_knows_its_pbxs_and_trunks() -> None:
    cell = Site().cell
    assert cell.name == "C"
    assert cell.trunks == {"pbx01", "pbx02", "both"}
    assert cell.pbx("pbx02") is cell.pbxs[1]
    assert cell.trunk(REQUEST) == "default"


@pytest.mark.parametrize(
    ("policy", "hour", "is_paused"),
    [("hold", 3, True), ("hold", 12, False), ("expire", 3, False), ("expire", 12, False)],
)
def test_hours_pause_a_cell_that_holds(policy: str, hour: int, is_paused: bool) -> None:
    cell = Site().cell
    cell.settings.limits.outside_hours = policy  # type: ignore[misc, assignment]
    at = datetime(2026, 5, 4, hour, tzinfo=UTC)
    assert cell.is_paused(at) is is_paused
