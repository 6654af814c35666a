"""Recovery: which calls move to which PBX, and which the bridge ends."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dialer.bridge.recovery import DUE_AT_ONCE, Recovery
from dialer.domain.call import Call, CallError, Ending, Result, State
from dialer.domain.request import CallRequest
from dialer.domain.room import PbxLimits, PbxLoad
from dialer.domain.taking import CLAIM_WITHIN_S
from dialer.multcall.wire import STRICT
from dialer.store.entry import Entry
from dialer.store.ledger import Waiting
from dialer.store.ledger.waiting import Unreadable
from dialer.store.registry import Lease
from tests.unit.stand_ins import DIALS_FOR_NOBODY, Notes, a

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PBXS = tuple(PbxLimits(name=f"pbx0{n}", max_calls=9, cps=9) for n in (1, 2, 3))
UNCLAIMED, CLAIMED = (
    {State.ADMITTED, State.QUEUED},
    {State.ORIGINATING, State.ACCEPTED, State.ANSWERED},
)


class Site:
    """A cell of stand-ins with three PBXs. `due` are its waiting calls, in slices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes = Notes()
        self.entries: dict[str, Entry] = {}
        self.unreadable: list[Unreadable] = []
        self.due: list[list[Waiting]] = []
        self.granted, self.epoch, self.ended = 1, 7, "ended"
        self.unready_s = 500.0
        self.states = {pbx.name: self.state(pbx.name) for pbx in PBXS}
        of = self.notes.of
        ledger = a(
            due=self.next_due,
            readable=self.readable,
            assign=of("assign", lambda *_: self.epoch),
            end=of("end", lambda *_, **__: self.ended),
            bury_call=of("bury"),
            claimed_ids=of("claimed", lambda _: list(self.entries)),
            take_over=of("take over", [("dead one", 3)]),
            steps=a(is_down=False),
        )
        registry = a(
            lease=of("lease", lambda *_: Lease(granted=self.granted, new=frozenset({"new"}))),
            unready_s=of("unready", lambda _: self.unready_s),
        )
        limits = a(outside_hours="hold", is_open=lambda at: True)
        self.is_paused = False
        cell = a(
            bridge="b",
            name="C",
            pbxs=PBXS,
            ledger=ledger,
            registry=registry,
            settings=a(limits=limits, **DIALS_FOR_NOBODY),
            wire=STRICT,
            clock=a(now=lambda: NOW, measure=of("measure")),
            dispatcher=a(publish=of("publish")),
            trunk=lambda request: request.trunk,
            pbx=lambda name: next((p for p in PBXS if p.name == name), None),
            release_unused=of("release"),
            is_paused=lambda at: self.is_paused,
            paused="",
        )
        self.cell = cell
        self.limits = limits
        self.recovery = Recovery(cell, 120.0)
        judge: Any = a(judge_unclaimed=of("judge"))
        self.recovery.judge = judge

    def state(self, name: str, *, room: int = 9, verdict: Any = None, **load: Any) -> Any:
        fields = {"ready": True, "calls": 9 - room, "max_calls": 9, "starts": 9} | load

        def why_not_taking(cell: str) -> str:
            self.notes.append(("why", cell))
            return f"no link of {name}"

        return a(
            load=PbxLoad(name=name, **fields),
            verdict=verdict,
            unready_s=0.0,
            why_not_taking=why_not_taking,
        )

    def only(self, **states: Any) -> None:
        """These states, and all other PBXs are not ready."""
        for name in self.states:
            fields = states.get(name, {"ready": False})
            self.states[name] = self.state(name, **fields)

    async def next_due(self, **asked: Any) -> AsyncIterator[list[Waiting]]:
        self.notes.append(("due", asked))
        for part in self.due:
            yield part

    async def readable(self, ids: Sequence[str]) -> tuple[list[Entry], list[Unreadable]]:
        unreadable, self.unreadable = self.unreadable, []
        return [self.entries[i] for i in ids if i in self.entries], unreadable

    def call(
        self,
        name: str,
        pbx: str | None = "pbx01",
        *,
        state: State = State.QUEUED,
        **entry: Any,
    ) -> Waiting:
        request = CallRequest(cell="C", request_id=name, request_id_json=name, number="5511")
        call = Call(call_id=f"C:{name}", state=state, epoch=1, pbx=pbx)
        known = Entry(call=call, request=request, boot="", expires_at=None)
        self.entries[call.call_id] = replace(known, **entry)
        return Waiting(call_id=call.call_id, state=state, epoch=1, pbx=pbx)

    @property
    def moved(self) -> list[tuple[str, str]]:
        return [(w.call_id, pbx) for w, pbx in self.notes.given("assign")]

    @property
    def endings(self) -> list[tuple[str, Result, str | None, set[State]]]:
        found = []
        for call, _, ending, more in self.notes.given("end"):
            assert ending.ended_at == NOW
            within = set(more["within"])
            found.append((call.call_id, ending.result, _code(ending), within))
        return found


def _code(ending: Ending) -> str | None:
    return ending.error.code if ending.error else None


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


# --- dead bridges ---------------------------------------------------------------------------


async def test_a_takeover_measures_the_clock_and_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.recovery.take_over()
    steps = site.recovery.cell.ledger.steps
    assert site.notes == [("measure", steps), ("take over", "b")]
    said = vars(caplog.records[0])
    assert (said["cell"], said["bridge"], said["elements"]) == ("C", "dead one", 3)


# --- calls that move ------------------------------------------------------------------------


async def test_late_calls_leave_their_ready_pbx(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    late, stays = site.call("late"), site.call("stays", "pbx02")
    homeless, former = site.call("homeless", None), site.call("former", "pbx09")
    site.only(pbx01={}, pbx03={})
    gone = Waiting(call_id="C:gone", state=State.QUEUED, epoch=1, pbx="pbx01")
    site.due = [[late, stays], [homeless, former, gone]]
    await site.recovery.move_late(site.states)
    asked = {"older_than_s": CLAIM_WITHIN_S, "at_most": DUE_AT_ONCE}
    assert site.notes.given("due") == [asked]
    assert site.moved[0] == ("C:late", "pbx03")
    assert {i for i, _ in site.moved} == {"C:late", "C:homeless", "C:former"}
    assert site.notes.given("judge") == [(site.states, ["pbx01"])]
    assert stays.call_id not in dict(site.moved)
    said = vars(caplog.records[0])
    assert (said["call_id"], said["from"], said["pbx"]) == ("C:late", "pbx01", "pbx03")
    sent = [nudge for nudges in site.notes.given("publish") for nudge in nudges]
    assert [(n.call_id, n.epoch) for n in sent] == [(i, 7) for i, _ in site.moved]
    assert site.notes.given("release")[0] == ("pbx01", ["C:late"])
    assert {pbx for pbx, _ in site.notes.given("release")} == {"pbx01", "pbx09"}


async def test_calls_leave_a_pbx_that_takes_none(site: Site) -> None:
    site.only(pbx01={"is_held": True, "verdict": a(trial="C:t")}, pbx03={"room": 4})
    site.due = [[site.call("r1")]]
    await site.recovery.move_from_unready_pbxs(site.states)
    common = {"older_than_s": 0, "at_most": 4}
    assert site.notes.given("due") == [
        common | {"pbx": "pbx01", "but": "C:t"},
        common | {"pbx": "pbx02", "but": ""},
    ]
    assert site.moved == [("C:r1", "pbx03")] * 2


async def test_calls_stay_where_no_other_pbx_has_room(site: Site) -> None:
    site.only(pbx01={"room": 0}, pbx02={"is_held": True, "is_trial_due": True})
    await site.recovery.move_from_unready_pbxs(site.states)
    assert site.notes == []


async def test_a_pbx_on_trial_gets_a_moved_call_last(site: Site) -> None:
    trial = {"is_held": True, "is_trial_due": True}
    site.only(pbx01={}, pbx02=trial, pbx03={})
    site.due = [[site.call("r1"), site.call("r2")]]
    await site.recovery.move_late(site.states)
    assert {pbx for _, pbx in site.moved} == {"pbx03"}
    site.only(pbx01={}, pbx02=trial)
    site.notes.clear()
    site.due = [[site.call("r1")]]
    await site.recovery.move_late(site.states)
    assert site.moved == [("C:r1", "pbx02")]


async def test_a_late_call_stays_if_no_other_pbx_is_ready(site: Site) -> None:
    site.only(pbx01={})
    site.due = [[site.call("r1")]]
    await site.recovery.move_late(site.states)
    assert site.notes.names == ["due", "publish", "judge"]


async def test_a_call_without_a_slot_stays(site: Site) -> None:
    site.granted = 0
    site.due = [[site.call("r1")]]
    await site.recovery.move_late(site.states)
    assert site.notes.names == ["due", "lease", "publish", "judge"]
    pbx, ids, trunks = site.notes.given("lease")[0]
    assert (pbx in PBXS, ids, trunks) == (True, ["C:r1"], [None])
    assert site.notes.given("publish") == [[]]


async def test_a_call_that_was_claimed_frees_its_new_slot(site: Site) -> None:
    site.epoch = 0
    site.only(pbx01={}, pbx03={})
    site.due = [[site.call("r1")]]
    await site.recovery.move_late(site.states)
    assert site.notes.given("release") == [("pbx03", frozenset({"new"}))]
    assert site.notes.given("publish") == [[]]


async def test_what_was_sent_is_published_if_it_has_an_entry(site: Site) -> None:
    one, other = site.call("r1"), site.call("r2")
    entries = {one.call_id: site.entries[one.call_id]}
    await site.recovery._publish([(one, "pbx03", 4), (other, "pbx03", 5)], entries)
    (nudges,) = site.notes.given("publish")
    assert [(n.call_id, n.pbx, n.epoch) for n in nudges] == [("C:r1", "pbx03", 4)]


# --- calls that must not be dialed any longer -----------------------------------------------


@pytest.mark.parametrize("pbx", ["pbx01", "pbx09", None])
async def test_an_expired_call_ends(site: Site, pbx: str | None) -> None:
    past, later = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
    site.due = [[site.call("r1", pbx, expires_at=past), site.call("r2", pbx, expires_at=later)]]
    site.granted = 0
    await site.recovery.move_late(site.states)
    assert site.endings == [("C:r1", Result.EXPIRED, "expired", UNCLAIMED)]
    ending = site.notes.given("end")[0][2]
    why = "; it waited for pbx01, which takes no calls: no link of pbx01" if pbx == "pbx01" else ""
    assert ending.error.message == f"ValidadeSeg passed before it was dialed{why}"
    assert ("why", "C") in site.notes or pbx != "pbx01"
    assert site.notes.given("release") == ([(pbx, ["C:r1"])] if pbx else [])
    assert site.notes.given("judge")[0][1] == (["pbx01"] if pbx == "pbx01" else [])


async def test_a_pbx_that_lacks_nothing_is_not_blamed(site: Site) -> None:
    site.states["pbx01"].why_not_taking = lambda _: ""
    waiting = site.call("r1", expires_at=NOW - timedelta(seconds=1))
    assert await site.recovery._unexpired([waiting], site.states) == {}
    message = site.notes.given("end")[0][2].error.message
    assert message == "ValidadeSeg passed before it was dialed"


async def test_a_call_that_expires_during_a_pause_says_so(site: Site) -> None:
    site.cell.paused = "paused by ana@ops"
    waiting = site.call("r1", expires_at=NOW - timedelta(seconds=1))
    await site.recovery._unexpired([waiting], site.states)
    message = site.notes.given("end")[0][2].error.message
    assert message == "ValidadeSeg passed before it was dialed; an operator paused the cell"


async def test_a_pbx_that_the_cell_no_longer_lists_gets_no_call(site: Site) -> None:
    """It was taken out of the live `pbxs` after the states were read."""
    site.cell.pbx = lambda name: None
    assert await site.recovery._move_one(site.call("r1", None), "pbx01", None) == 0
    assert "lease" not in site.notes.names


@pytest.mark.parametrize("policy", ["expire", "hold"])
@pytest.mark.parametrize("is_open", [True, False])
async def test_the_end_of_the_hours_may_end_a_call(site: Site, policy: str, is_open: bool) -> None:
    site.limits.outside_hours = policy
    site.limits.is_open = lambda at: is_open and at == NOW
    ends = policy == "expire" and not is_open
    waiting = site.call("r1")
    assert list(await site.recovery._unexpired([waiting], site.states)) == (
        [] if ends else ["C:r1"]
    )
    over = ("C:r1", Result.EXPIRED, "outside_hours", UNCLAIMED)
    assert site.endings == ([over] if ends else [])


async def test_a_paused_cell_moves_no_call(site: Site) -> None:
    site.is_paused = True
    assert await site.recovery._unexpired([site.call("r1")], site.states) == {}
    assert site.endings == []


# --- lost PBXs ------------------------------------------------------------------------------


async def test_a_pbx_that_was_lost_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Notes()
    monkeypatch.setattr(Recovery, "end_claimed", ended.of("end"))
    for name, unready_s in (("pbx01", 119.9), ("pbx02", 120.0), ("pbx03", 121.0)):
        site.states[name].unready_s = unready_s
    await site.recovery.end_lost(site.states)
    assert [note[2] for note in ended] == ["pbx02", "pbx03"]


async def test_the_claimed_calls_of_a_lost_pbx_end(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for name, state in (("r1", State.ORIGINATING), ("r2", State.ANSWERED), ("r3", State.QUEUED)):
        site.call(name, state=state)
    site.call("r4", "pbx02", state=State.ACCEPTED)
    await site.recovery.end_claimed("pbx01")
    unknown = [(i, Result.UNKNOWN, "pbx_lost", CLAIMED) for i in ("C:r1", "C:r2")]
    assert site.endings == unknown
    message = site.notes.given("end")[0][2].error.message
    assert message.startswith("pbx01 or its worker has been gone for 120 s")
    assert site.notes.given("release") == [("pbx01", ["C:r1", "C:r2"])]
    said = [(r["call_id"], r["pbx"], r["error"]) for r in map(vars, caplog.records)]
    assert said == [("C:r1", "pbx01", "pbx_lost"), ("C:r2", "pbx01", "pbx_lost")]


@pytest.mark.parametrize(("unready_s", "ends"), [(119.9, False), (120.0, True), (121.0, True)])
async def test_a_pbx_that_came_back_keeps_its_calls(
    site: Site, unready_s: float, ends: bool
) -> None:
    site.call("r1", state=State.ACCEPTED)
    site.unready_s = unready_s
    await site.recovery.end_claimed("pbx01")
    assert bool(site.endings) is ends


async def test_a_pbx_without_claimed_calls_is_not_looked_up(site: Site) -> None:
    await site.recovery.end_claimed("pbx01")
    assert site.notes.names == ["claimed"]


async def test_an_unknown_pbx_is_lost_from_now_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    site.unready_s = math.inf
    assert await site.recovery._unready_s("pbx01") == 0.0
    now[0] += 60.0
    assert await site.recovery._unready_s("pbx01") == 60.0
    assert await site.recovery._unready_s("pbx02") == 0.0
    site.unready_s = 5.0
    assert await site.recovery._unready_s("pbx01") == 5.0
    site.unready_s = math.inf
    assert await site.recovery._unready_s("pbx01") == 0.0


async def test_a_call_that_ended_meanwhile_is_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.ended = "void"
    site.call("r1", state=State.ACCEPTED)
    await site.recovery.end_claimed("pbx01")
    assert len(site.endings) == 1
    assert caplog.messages == []


async def test_ended_calls_free_their_own_slots(site: Site) -> None:
    for name, pbx in (("r1", "pbx01"), ("r2", "pbx02"), ("r3", None)):
        site.call(name, pbx)
    error = CallError(code="x", message="y")
    ended = list(site.entries.values())
    await site.recovery._end(ended, Result.FAILED, error, within=UNCLAIMED)
    assert sorted(site.notes.given("release")) == [("pbx01", ["C:r1"]), ("pbx02", ["C:r2"])]


# --- calls that cannot be read --------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "result"), [(State.QUEUED, Result.FAILED), (State.ACCEPTED, Result.UNKNOWN)]
)
@pytest.mark.parametrize(
    ("raw", "id_json"), [(b'{"IdRequisicao": 7}', "7"), (b"no request", '"r:1"')]
)
async def test_an_unreadable_call_ends(
    site: Site,
    caplog: pytest.LogCaptureFixture,
    state: State,
    result: Result,
    raw: bytes,
    id_json: str,
) -> None:
    call = Call(call_id="C:r:1", state=state, epoch=1, pbx="pbx01")
    site.unreadable = [Unreadable(call=call, raw=raw, error=ValueError("a defect"))]
    assert await site.recovery._entries(["C:r:1"]) == []
    call_id, entry = site.notes.given("bury")[0]
    dead = json.loads(entry)
    assert (call_id, dead["reason"], dead["source"]) == ("C:r:1", "internal_error", "request")
    assert site.endings == [("C:r:1", result, "internal_error", {state})]
    request = site.notes.given("end")[0][1]
    assert (request.request_id, request.request_id_json) == ("r:1", id_json)
    assert (request.cell, request.number) == ("C", "")
    assert vars(caplog.records[0])["call_id"] == "C:r:1"
    assert caplog.records[0].exc_info is not None
    assert site.notes.given("release") == [("pbx01", ["C:r:1"])]
