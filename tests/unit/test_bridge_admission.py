"""Admission of a batch: order of the messages, slots that go back, requests that left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from dialer.bridge.admission import Admissions, Admitted
from dialer.bridge.nudges import Nudge
from dialer.bridge.refusals import Candidate, Element
from dialer.domain.room import CellRoom, PbxLimits, PbxLoad, Room
from dialer.multcall.request import element_of
from dialer.multcall.wire import STRICT
from dialer.store.ledger import Admissible, Admission
from dialer.store.registry import Lease, lease_parts
from tests.unit.lives import CELL, REQUEST

PBXS = [PbxLimits(name=name, max_calls=9, cps=9) for name in ("pbx01", "pbx02")]
LOADS = [PbxLoad(name=p.name, ready=True, calls=0, max_calls=9, starts=9) for p in PBXS]


def candidates(*ids: str) -> list[Candidate]:
    return [
        Candidate(Element(b"raw", f"list of {one}"), replace(REQUEST, request_id=one))
        for one in ids
    ]


class Cell:
    """A cell whose ledger replies to each request as the test says, and grants every slot."""

    def __init__(self, **replies: Admission | Exception) -> None:
        self.replies = replies
        self.pbxs = PBXS
        self.registry = self.ledger = self.dispatcher = self
        limits = SimpleNamespace(max_attempts_per_number=2, attempts_window_hours=3)
        self.settings, self.threads = SimpleNamespace(limits=limits), 7
        self.wire: Any = STRICT
        self.granted = 9
        self.is_on_one_server = False
        self.many: list[list[Any]] = []
        self.known: set[str] = set()
        self.admits: list[dict[str, Any]] = []
        self.nudges: list[Nudge] = []
        self.released: list[str] = []
        self.told: list[tuple[str, str]] = []

    def trunk(self, request: Any) -> str | None:
        return "vivo" if request.request_id == "vivo" else None

    async def lease(
        self, _pbx: PbxLimits, ids: Sequence[str], trunks: Sequence[str | None]
    ) -> Lease:
        assert len(trunks) == len(ids)
        assert ids, "nothing is leased for no call"
        return Lease(granted=min(self.granted, len(ids)), new=frozenset(ids) - self.known)

    async def admit(self, one: Admissible, **more: Any) -> Admission:
        given = {field.name: getattr(one, field.name) for field in fields(one)}
        self.admits.append({**given, **more})
        reply = self.replies.get(one.request.request_id, Admission.ADMITTED)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def admit_many(self, requests: list[Any], **given: Any) -> list[Admission]:
        self.many.append([one.request.request_id for one in requests])
        self.given = given
        replies = [self.replies.get(i, Admission.ADMITTED) for i in self.many[-1]]
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return cast(list[Admission], replies)

    async def publish(self, nudges: Sequence[Nudge]) -> None:
        self.nudges += nudges

    async def release_unused(self, _pbx: str, ids: Sequence[str]) -> int:
        self.released += ids
        return len(ids)

    # --- its refusals

    async def fail(self, element: Element, _error: Exception) -> None:
        self.told.append(("failed", element.source))

    def number_limit(self) -> tuple[str]:
        return ("the limit",)

    async def answer(self, candidate: Candidate, why: str) -> None:
        self.told.append((why, candidate.element.source))

    async def bury_repeat(self, element: Element, call_id: str) -> None:
        self.told.append((f"repeat of {call_id}", element.source))


async def admit(cell: Cell, *ids: str) -> Admitted:
    one = Admissions(cast(Any, cell), cast(Any, cell))
    room = Room(cell=CellRoom(threads=9, live=0, in_hand=0), pbxs=tuple(LOADS))
    return await one.admit(candidates(*ids), room)


async def test_messages_keep_the_order_of_the_requests() -> None:
    cell = Cell()
    assert (await admit(cell, "a", "b", "c", "d")).left == 4
    assert [n.call_id for n in cell.nudges] == [f"{CELL}:{i}" for i in "abcd"]
    assert {(n.pbx, n.epoch) for n in cell.nudges} == {("pbx01", 1), ("pbx02", 1)}


async def test_requests_go_to_the_pbx_that_has_room() -> None:
    cell = Cell()
    one = Admissions(cast(Any, cell), cast(Any, cell))
    loads = (replace(LOADS[0], ready=False), LOADS[1])
    room = Room(cell=CellRoom(threads=9, live=0, in_hand=0), pbxs=loads)
    assert (await one.admit(candidates("a", "b"), room)).left == 2
    assert [n.pbx for n in cell.nudges] == ["pbx02", "pbx02"]
    assert [given["pbx"] for given in cell.admits] == ["pbx02", "pbx02"]


async def test_a_request_without_a_slot_stays() -> None:
    cell = Cell()
    cell.granted = 1
    assert (await admit(cell, "a", "b", "c", "d")).left == 2
    assert len(cell.nudges) == 2
    assert cell.released == []


async def test_a_request_of_a_full_cell_stays_and_frees_its_slot() -> None:
    cell = Cell(b=Admission.FULL)
    assert (await admit(cell, "a", "b")).left == 1
    assert cell.released == [f"{CELL}:b"]


async def test_a_slot_that_a_call_had_before_is_not_released() -> None:
    cell = Cell(b=Admission.DUPLICATE)
    cell.known = {f"{CELL}:b"}
    assert (await admit(cell, "a", "b")).left == 2
    assert cell.released == []


async def test_requests_that_are_not_admitted_are_answered() -> None:
    cell = Cell(
        a=Admission.NUMBER_LIMIT, b=Admission.DUPLICATE, c=Admission.GONE, d=ValueError("a defect")
    )
    assert (await admit(cell, "a", "b", "c", "d")).left == 4
    assert sorted(cell.told) == [
        ("failed", "list of d"),
        (f"repeat of {CELL}:b", "list of b"),
        ("the limit", "list of a"),
    ]
    assert cell.nudges == []


async def test_the_ledger_gets_the_limits_of_the_cell() -> None:
    cell = Cell()
    await admit(cell, "a")
    (given,) = cell.admits
    assert (given["threads"], given["most_per_number"], given["number_window_s"]) == (7, 2, 10_800)
    cell.settings.limits.max_attempts_per_number = None
    await admit(cell, "b")
    assert cell.admits[1]["most_per_number"] == 0


async def test_the_ledger_keeps_the_request_in_our_own_form() -> None:
    cell = Cell()
    await admit(cell, "a")
    cell.wire = SimpleNamespace(is_strict=False)
    await admit(cell, "a")
    (theirs, ours) = (given["stored"] for given in cell.admits)
    assert theirs == b"raw"
    assert ours == element_of(replace(REQUEST, request_id="a"))


# --- registry and ledger on one server ------------------------------------------------------


async def test_one_step_admits_all_requests_of_a_pbx() -> None:
    cell = Cell(b=Admission.FULL, c=Admission.NO_SLOT)
    cell.is_on_one_server = True
    cell.pbxs = PBXS[:1]
    one = Admissions(cast(Any, cell), cast(Any, cell))
    room = Room(cell=CellRoom(threads=9, live=0, in_hand=0), pbxs=(LOADS[0],))
    assert (await one.admit(candidates("a", "b", "c"), room)).left == 1
    assert (cell.many, cell.admits, cell.released) == ([["a", "b", "c"]], [], [])
    assert [n.call_id for n in cell.nudges] == [f"{CELL}:a"]
    assert (cell.given["pbx"], cell.given["threads"]) == ("pbx01", 7)
    assert cell.given["registry"] == lease_parts(PBXS[0])
    assert cell.given["trunks"] == ["", "", ""]


async def test_the_one_step_knows_the_trunk_of_each_call() -> None:
    cell = Cell()
    cell.is_on_one_server = True
    cell.pbxs = [replace(PBXS[0], trunks=frozenset({"tim", "vivo"}), default_trunk="tim")]
    one = Admissions(cast(Any, cell), cast(Any, cell))
    load = replace(LOADS[0], trunks=cell.pbxs[0].trunks)
    room = Room(cell=CellRoom(threads=9, live=0, in_hand=0), pbxs=(load,))
    assert (await one.admit(candidates("a", "vivo"), room)).left == 2
    assert cell.given["trunks"] == ["tim", "vivo"]


async def test_one_step_answers_what_it_does_not_admit() -> None:
    cell = Cell(a=Admission.NUMBER_LIMIT, b=Admission.DUPLICATE, c=Admission.GONE)
    cell.is_on_one_server = True
    assert (await admit(cell, "a", "b", "c")).left == 3
    assert sorted(cell.told) == [(f"repeat of {CELL}:b", "list of b"), ("the limit", "list of a")]


async def test_a_request_that_fails_does_not_fail_the_others() -> None:
    cell = Cell(b=ValueError("a defect"))
    cell.is_on_one_server = True
    assert (await admit(cell, "a", "b")).left == 2
    assert cell.told == [("failed", "list of b")]
    assert [n.call_id for n in cell.nudges] == [f"{CELL}:a"]


async def test_an_error_of_redis_is_not_a_request_s() -> None:
    cell = Cell(a=ResponseError("no rights"))
    cell.is_on_one_server = True
    with pytest.raises(ResponseError):
        await admit(cell, "a")
    assert cell.admits == []
