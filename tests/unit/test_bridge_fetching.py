"""The intake of a cell: how many requests it fetches, which go first, and which are parked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dialer.bridge import intake
from dialer.bridge.admission import Admitted
from dialer.bridge.intake import Intake
from dialer.bridge.refusals import Candidate, Element
from dialer.domain.room import CellRoom, PbxLoad, Room
from tests.unit.lives import REQUEST
from tests.unit.stand_ins import DIALS_FOR_NOBODY, Notes, a


class Site:
    """An intake of stand-ins. `parked` are the parked requests, `hand` those in the hand."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.parked = {"tim": 3, "vivo": 2}
        self.hand = [b"h1", b"h2"]
        self.is_paused = self.is_parking = False
        self.states: dict[str, Any] = {"pbx01": a(load=load(starts=4)), "pbx02": a(load=load())}
        self.unreadable, self.refused = 0, 0
        self.unclaimed: dict[str, int] = {}
        keys = a(hand=lambda bridge: f"hand of {bridge}", parked=lambda trunk: f"parked {trunk}")
        ledger = a(
            keys=keys,
            fetch=self.notes.of("fetch", lambda *_, **__: self.fetched()),
            parked=self.notes.of("parked", lambda wanted: {t: [t.encode()] for t in wanted}),
            park=self.notes.of("park"),
            has_parked=self.notes.of("has_parked", lambda: self.is_parking),
        )
        cell = a(
            bridge="b",
            name="C",
            settings=a(threads=50, **DIALS_FOR_NOBODY),
            threads=50,
            ledger=ledger,
            states=self.notes.of("states", lambda **_: self.states),
            clock=a(now=lambda: "now"),
            is_paused=lambda at: self.is_paused and at == "now",
            trunk=lambda request: request.trunk,
        )
        client: Any = "its client"
        self.intake = Intake(cell, client)
        refusals: Any = a(
            read=self.notes.of("read", lambda given: given[self.unreadable :]),
            allowed=self.notes.of("allowed", lambda c: (c[self.refused :], self.refused)),
        )
        admissions: Any = a(admit=self.notes.of("admit", lambda given, _: Admitted(len(given), {})))
        self.intake.refusals, self.intake.admissions = refusals, admissions

    def fetched(self) -> Any:
        return a(parked=self.parked, hand=self.hand, live=7, in_hand=2, unclaimed=self.unclaimed)

    def candidates(self, *trunks: str | None, source: str = "hand of b") -> list[Candidate]:
        return [
            Candidate(Element(f"{n}".encode(), source), replace(REQUEST, trunk=trunk))
            for n, trunk in enumerate(trunks)
        ]


def load(*trunks: str, **fields: Any) -> PbxLoad:
    given = {"ready": True, "calls": 0, "max_calls": 500, "starts": 500} | fields
    return PbxLoad(name="pbx", trunks=frozenset(trunks or ("tim", "vivo")), **given)


FULL = load(starts=0), load("other")


def room(*loads: PbxLoad) -> Room:
    return Room(cell=CellRoom(threads=50, live=0, in_hand=0), pbxs=loads or (load(),))


def test_the_parts_share_the_cell() -> None:
    cell: Any = Site().intake.cell
    one = Intake(cell, Site().intake.blocking)
    assert one.refusals.cell is one.admissions.cell is cell
    assert one.admissions.refusals is one.refusals


@pytest.mark.parametrize(
    ("starts", "is_paused", "at_most"),
    [((4, 5), False, 9), ((90, 90), False, 100), ((4,), True, 0)],
)
async def test_as_many_are_fetched_as_have_room(
    starts: tuple[int, ...], is_paused: bool, at_most: int
) -> None:
    site = Site()
    site.is_paused = is_paused
    site.states = {f"pbx{n}": a(load=load(starts=s)) for n, s in enumerate(starts)}
    found, fetched = await site.intake.fetch()
    assert site.notes.names[0] == "states"
    asked = {"at_most": at_most, "threads": 50, "sees_unclaimed": False}
    assert site.notes.given("fetch") == [("b", asked)]
    assert (found.cell.threads, found.cell.live, found.cell.in_hand) == (50, 7, 2)
    assert [one.starts for one in found.pbxs] == list(starts)
    assert site.intake.parked == site.parked == fetched.parked


async def test_unclaimed_calls_have_no_operator_yet() -> None:
    site = Site()
    site.unclaimed = {"pbx": 2}
    site.states = {
        "pbx": a(load=load(agents=5)),
        "other": a(load=replace(load(agents=1), name="o")),
    }
    found, _ = await site.intake.fetch()
    assert [one.agents for one in found.pbxs] == [3, 1]


async def test_parked_requests_go_before_the_hand() -> None:
    site = Site()
    elements = await site.intake._elements(room(), site.fetched())
    assert elements[:2] == [Element(b"tim", "parked tim"), Element(b"vivo", "parked vivo")]
    assert elements[2:] == [Element(raw, "hand of b") for raw in site.hand]
    assert site.notes.given("parked") == [{"tim": 3, "vivo": 2}]


async def test_the_trunks_take_turns() -> None:
    site = Site()
    firsts = []
    for _ in range(3):
        elements = await site.intake._elements(room(load(starts=1)), site.fetched())
        firsts.append(elements[0].source)
    assert firsts == ["parked tim", "parked vivo", "parked tim"]
    await site.intake._elements(room(load(starts=0)), site.fetched())
    assert site.intake._first == "tim"


@pytest.mark.parametrize(
    ("is_paused", "starts", "may"), [(False, 1, True), (False, 0, False), (True, 1, False)]
)
async def test_a_cell_may_admit_while_it_is_open_and_has_room(
    is_paused: bool, starts: int, may: bool
) -> None:
    site = Site()
    site.is_paused, site.states = is_paused, {"pbx01": a(load=load(starts=starts))}
    assert await site.intake._may_admit(max_age_s=0.5) is may
    assert site.notes.names == ([] if is_paused else ["states"])


async def test_nothing_leaves_a_paused_cell_s_lists() -> None:
    site = Site()
    site.is_paused = True
    elements = await site.intake._elements(room(), site.fetched())
    assert [one.source for one in elements] == ["hand of b"] * 2
    site.is_paused, site.parked = False, {}
    assert len(await site.intake._elements(room(), site.fetched())) == 2
    assert site.notes.given("parked") == [{}, {}]


async def test_a_long_hand_is_handled_in_parts() -> None:
    site = Site()
    site.parked, site.hand = {}, [b"h"] * (intake.BATCH + 1)
    assert len(await site.intake._elements(room(), site.fetched())) == intake.BATCH


@pytest.mark.parametrize(
    ("unreadable", "refused", "parks", "admitted"),
    [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)],
)
async def test_a_round_says_whether_anything_moved(
    monkeypatch: pytest.MonkeyPatch, unreadable: int, refused: int, parks: int, admitted: int
) -> None:
    site = Site()
    site.unreadable, site.refused = unreadable, refused
    site.intake.admissions = a(admit=site.notes.of("admit", Admitted(admitted, {"pbx": admitted})))
    park = site.notes.of("park", lambda _, given, __: given[parks:])
    monkeypatch.setattr(Intake, "_park", park)
    found = replace(room(), cell=CellRoom(threads=50, live=7, in_hand=9))
    left = await site.intake.handle(found, site.fetched())
    moved = unreadable + refused + parks + admitted
    assert (left is None) == (moved == 0)
    if left is not None:
        assert left.cell == CellRoom(threads=50, live=7 + admitted, in_hand=9 - moved)
        assert [one.calls for one in left.pbxs] == [admitted]
    (admit,) = site.notes.given("admit")
    assert len(admit[0]) == 4 - unreadable - refused - parks


async def test_a_paused_cell_admits_nothing() -> None:
    site = Site()
    site.is_paused = True
    assert await site.intake.handle(room(), site.fetched()) is None
    assert site.notes.names == ["parked", "read", "allowed"]


@pytest.mark.parametrize(("is_parking", "admits"), [(False, True), (True, False)])
async def test_a_request_alone_waits_behind_parked_ones(
    monkeypatch: pytest.MonkeyPatch, is_parking: bool, admits: bool
) -> None:
    site = Site()
    monkeypatch.setattr(Intake, "_park", site.notes.of("park", lambda _, given, __: given))
    site.parked, site.hand, site.is_parking = {}, [b"h1"], is_parking
    left = await site.intake.handle(room(), site.fetched(), is_alone=True)
    assert (left is not None) is admits
    assert site.notes.names == [
        "parked",
        "read",
        "allowed",
        "has_parked",
        *["park", "admit"] * admits,
    ]


async def test_without_requests_a_round_does_nothing() -> None:
    site = Site()
    site.parked, site.hand = {}, []
    assert await site.intake.handle(room(), site.fetched()) is None
    assert site.notes.names == ["parked"]


async def test_requests_of_a_full_trunk_are_parked() -> None:
    site = Site()
    asked = site.candidates("tim", None, "tim")
    assert await site.intake._park(asked, room(*FULL)) == [asked[1]]
    assert site.notes.given("park") == [("hand of b", [("tim", b"0"), ("tim", b"2")])]


async def test_requests_queue_behind_older_ones() -> None:
    site = Site()
    site.intake.parked = {"tim": 1}
    asked = site.candidates("tim", "vivo")
    assert await site.intake._park(asked, room()) == [asked[1]]
    due = site.candidates("tim", "vivo", source="parked tim")
    site.notes.clear()
    assert await site.intake._park(due, room(*FULL)) == [due[0]]
    assert site.notes.given("park") == [("parked tim", [("vivo", b"1")])]
