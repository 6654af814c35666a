"""The judge of a cell: which PBXs it condemns, and how it follows their trial calls."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dialer.bridge.judge import LOOK_WITHIN_S, Judge
from dialer.domain.call import Result, State
from dialer.domain.governor import Governed
from dialer.domain.room import PbxLoad
from dialer.domain.taking import CLAIM_WITHIN_S, Results, Trial, Verdict
from dialer.store.registry import PbxState
from tests.unit.stand_ins import Notes, a

BAD = Results(claimed=20, accepted=5, no_word=15)
CONDEMNED = (
    "PBX takes no calls although its worker says it is ready; its calls go to other PBXs, and "
    "single calls try it"
)


def state(name: str = "pbx01", *, trial: str | None = None, **fields: Any) -> PbxState:
    """A ready PBX; with a `trial` it is condemned, and that call tries it."""
    given = {k: fields.pop(k) for k in ("results", "lifted") if k in fields}
    load = PbxLoad(
        name=name,
        **(
            {"ready": True, "calls": 0, "max_calls": 9, "starts": 9, "is_held": trial is not None}
            | fields
        ),
    )
    verdict = None
    if trial is not None:
        verdict = Verdict(
            reason="r", instance="i", age_s=9.0, trial=trial, trial_age_s=0.5, trials=4
        )
    return PbxState(
        load=load,
        instance="i",
        link="up",
        lacking={},
        silent_s=0.0,
        unready_s=0.0,
        verdict=verdict,
        **given,
    )


class Site:
    """A judge with stand-ins for the ledger and the registry, and its own clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes = Notes()
        self.now = 1000.0
        self.trial = Trial(state=State.QUEUED, pbx="pbx01")
        self.is_first = True
        ledger = a(
            trial=self.notes.of("trial", lambda _: self.trial),
            first_queued=self.notes.of("queued", {"pbx01": "C:q"}),
        )
        registry = a(
            condemn=self.notes.of("condemn", lambda *_: self.is_first),
            tried=self.notes.of("tried", lambda *_, **__: self.is_first),
            try_with=self.notes.of("try"),
        )
        self.is_paused = False
        self.judge = Judge(
            a(
                name="C",
                ledger=ledger,
                registry=registry,
                clock=a(now=lambda: "now"),
                is_paused=lambda at: self.is_paused and at == "now",
            )
        )
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def look(self, *states: PbxState) -> None:
        await self.judge.look({one.load.name: one for one in states})

    @property
    def condemned(self) -> list[tuple[str, str]]:
        return [(one.load.name, why) for one, why in self.notes.given("condemn")]


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


# --- verdicts -------------------------------------------------------------------------------


async def test_a_pbx_with_unusual_results_is_condemned(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.look(state(results=BAD), state("pbx02"), state("pbx03", results=BAD, ready=False))
    ((name, why),) = site.condemned
    assert (name, why) == ("pbx01", BAD.in_words())
    assert caplog.messages == [CONDEMNED]
    assert (vars(caplog.records[0])["pbx"], vars(caplog.records[0])["reason"]) == (name, why)


async def test_results_before_the_last_verdict_do_not_count(site: Site) -> None:
    await site.look(state(results=BAD, lifted=BAD))
    assert site.notes == []


async def test_a_verdict_of_another_bridge_is_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.is_first = False
    await site.look(state(results=BAD))
    assert (site.notes.names, caplog.messages) == (["condemn"], [])


async def test_a_condemned_pbx_is_not_condemned_again(site: Site) -> None:
    await site.look(state(trial="", results=BAD))
    assert site.notes == []


async def seen(site: Site, *states: PbxState, for_s: float) -> None:
    """Look once a second, so long that the PBXs were ready for so many seconds."""
    await site.look(*states)
    while for_s > 0:
        site.now += min(for_s, 1.0)
        for_s -= 1.0
        await site.look(*states)


async def test_a_pbx_that_leaves_calls_unclaimed_is_condemned(site: Site) -> None:
    both = state(), state("pbx02")
    await seen(site, *both, for_s=CLAIM_WITHIN_S)
    states = {one.load.name: one for one in both}
    await site.judge.judge_unclaimed(states, iter(["pbx01", "pbx02", "pbx01"]))
    assert [name for name, _ in site.condemned] == ["pbx01", "pbx02"]
    assert [" 2 calls " in why for _, why in site.condemned] == [True, False]


async def test_a_pbx_seen_ready_too_short_is_not_condemned(site: Site) -> None:
    one = state()
    await seen(site, one, for_s=CLAIM_WITHIN_S - 0.5)
    await site.judge.judge_unclaimed({"pbx01": one, "pbx02": state("pbx02")}, ["pbx01", "pbx02"])
    assert site.notes == []


async def test_a_limited_pbx_whose_calls_wait_is_not_condemned(site: Site) -> None:
    limited = replace(state(), governed=Governed(rate=0.5))
    await seen(site, limited, for_s=CLAIM_WITHIN_S)
    await site.judge.judge_unclaimed({"pbx01": limited}, ["pbx01"])
    assert site.notes == []


@pytest.mark.parametrize("change", [{"ready": False}, {"is_held": True}])
async def test_a_pbx_that_takes_no_calls_is_not_condemned(
    site: Site, change: dict[str, Any]
) -> None:
    await seen(site, state(), for_s=CLAIM_WITHIN_S)
    await site.judge.judge_unclaimed({"pbx01": state(**change)}, ["pbx01"])
    assert site.notes == []


async def test_an_interruption_begins_the_time_again(site: Site) -> None:
    one = state()
    await seen(site, one, for_s=9.5)
    await site.look(state(ready=False))
    await seen(site, one, for_s=9.5)
    await site.judge.judge_unclaimed({"pbx01": one}, ["pbx01"])
    assert site.notes == []


async def test_a_pause_of_the_cell_begins_the_time_again(site: Site) -> None:
    one = state()
    await seen(site, one, for_s=9.5)
    site.is_paused = True
    await site.look(state(trial="C:t"))
    await site.judge.try_with_queued({"pbx01": state(trial="", is_trial_due=True)})
    assert site.notes == [], "nor is its trial call judged, or another one tried"
    site.is_paused = False
    await seen(site, one, for_s=9.5)
    await site.judge.judge_unclaimed({"pbx01": one}, ["pbx01"])
    assert site.notes == [], "its calls were left on purpose"


@pytest.mark.parametrize(("gap_s", "is_condemned"), [(0.0, True), (0.1, False)])
async def test_a_bridge_that_was_away_begins_again(
    site: Site, gap_s: float, is_condemned: bool
) -> None:
    one = state()
    await seen(site, one, for_s=9.0)
    site.now += LOOK_WITHIN_S + gap_s
    await site.look(one)
    await site.judge.judge_unclaimed({"pbx01": one}, ["pbx01"])
    assert bool(site.condemned) is is_condemned


# --- trial calls ----------------------------------------------------------------------------


async def test_a_queued_call_tries_a_pbx_if_none_takes_calls(site: Site) -> None:
    due, other = state(trial="", is_trial_due=True), state("pbx02", ready=False)
    early = state("pbx03", trial="")
    full = state("pbx04", calls=9)
    states = {one.load.name: one for one in (due, other, early, full)}
    await site.judge.try_with_queued(states)
    assert site.notes == [("queued", ["pbx01"]), ("try", "pbx01", "C:q")]


async def test_a_pbx_with_room_needs_no_trial_with_queued_calls(site: Site) -> None:
    due = state(trial="", is_trial_due=True)
    await site.judge.try_with_queued({"pbx01": due, "pbx02": state("pbx02")})
    await site.judge.try_with_queued({"pbx01": state(trial="")})
    await site.judge.try_with_queued({"pbx01": state(is_trial_due=True, calls=9)})
    assert site.notes == []


@pytest.mark.parametrize("trial", ["", "OTHER:t"])
async def test_a_trial_of_another_cell_is_not_followed(site: Site, trial: str) -> None:
    await site.look(state(trial=trial))
    assert site.notes == []


async def test_a_trial_that_goes_on_is_looked_at_again(site: Site) -> None:
    await site.look(state(trial="C:t"))
    assert site.notes == [("trial", "C:t")]


async def test_a_trial_waits_as_long_as_the_verdict_says(site: Site) -> None:
    site.trial = Trial(state=None)
    await site.look(state(trial="C:t"))
    assert site.notes.names == ["trial"]
    old = state(trial="C:t")
    object.__setattr__(old.verdict, "trial_age_s", 60.0)
    await site.look(old)
    assert site.notes[-1] == ("tried", "pbx01", "C:t", {"success": False})


async def test_a_trial_that_is_up_for_long_succeeds(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.trial = Trial(state=State.ACCEPTED, pbx="pbx01")
    await site.look(state(trial="C:t"))
    site.now += 0.5
    await site.look(state(trial="C:t"))
    assert site.notes.names == ["trial", "trial"]
    site.now += 0.5
    await site.look(state(trial="C:t"))
    assert site.notes[-1] == ("tried", "pbx01", "C:t", {"success": True})
    assert caplog.messages == ["Trial call succeeded; its PBX takes calls again"]
    said = vars(caplog.records[0])
    assert (said["pbx"], said["call_id"], said["failed_trials"]) == ("pbx01", "C:t", 4)
    assert site.judge._up == {}


async def test_a_queued_trial_is_not_up(site: Site) -> None:
    await site.look(state(trial="C:t"))
    assert site.judge._up == {}


async def test_a_trial_that_ended_badly_failed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.trial = Trial(state=State.DONE, pbx="pbx01", result=Result.FAILED, error="x")
    await site.look(state(trial="C:t"))
    assert site.notes[-1] == ("tried", "pbx01", "C:t", {"success": False})
    assert caplog.messages == ["Trial call failed; another one follows"]
    assert vars(caplog.records[0])["call_id"] == "C:t"
    site.is_first = False
    await site.look(state(trial="C:t"))
    assert len(caplog.messages) == 1, "another bridge said it"
