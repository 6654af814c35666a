"""Sentences of the programs are recognized by their form, and shown in the visitor's language."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.domain.agents import Team
from dialer.domain.limits import Limit
from dialer.domain.parameters import Setting, Subject, state_words
from dialer.domain.room import PbxLoad
from dialer.domain.story import story_of
from dialer.domain.taking import Results, Verdict, unclaimed_reason
from dialer.domain.why import Obstacle, PbxFacts, Situation, decide
from dialer.monitor import troubles
from dialer.store.ledger import Late
from dialer.store.registry import BridgeState, PbxState, skew_words
from dialer.store.steps import redis_obstacle
from dialer.web.phrases import PHRASES, Phrasebook
from dialer.web.texts import texts

PT = texts("pt_BR")
LOAD = PbxLoad(name="pbx01", ready=True, calls=3, max_calls=10, starts=5, trunks=frozenset())
DRAINED = state_words(
    Subject("pbx", "pbx01"), Setting(by="ana", at_ms=0, change=1, value=True, why="x; y")
)
PAUSED = state_words(Subject("cell", "ASR"), Setting(by="ana", at_ms=0, change=1, value=True))


def pbx(**fields: object) -> PbxState:
    return replace(EMPTY, **fields)  # type: ignore[arg-type]


EMPTY = PbxState(
    load=LOAD, instance="i", link="up", lacking={}, silent_s=0.2, unready_s=9.0, max_calls=10
)
VERDICT = Verdict(reason=unclaimed_reason(3), instance="i", age_s=1.0)

PBXS = {
    "no worker": pbx(instance=""),
    "stopped": pbx(link="stopping"),
    "silent": pbx(silent_s=60.0),
    "late": pbx(silent_s=2.7),
    "no link": pbx(link="down"),
    "trouble": pbx(trouble="no AMI at 10.0.0.1:5038 (timed out)"),
    "clock": pbx(skew_s=90.0),
    "clock behind": pbx(skew_s=-90.0),
    "verdict": pbx(verdict=VERDICT),
    "failed": pbx(verdict=replace(VERDICT, trials=2, reason=unclaimed_reason(1))),
    "ended": pbx(results=Results(claimed=20, no_word=3, expired=1, not_handed_over=2)),
    "congested": pbx(results=Results(claimed=20, congested=20)),
    "drained": pbx(drained=DRAINED),
    "capped": pbx(cap=5, max_calls=10),
    "rival": pbx(link="down", rival="pid 7 on host b"),
}


@pytest.mark.parametrize("name", PBXS)
def test_what_is_wrong_with_a_pbx_is_said(name: str) -> None:
    state = PBXS[name]
    found = [*troubles.of_pbx("pbx01", state), *troubles.of_messages("pbx01", state)]
    found += [one.reason] if (one := state.obstacle()) is not None else []
    assert found
    assert [one for one in found if PT.say(one) in {None, one}] == []


@pytest.mark.parametrize(
    "team",
    [
        Team(),
        *(Team(**{name: n}) for name in Team.__slots__ for n in (1, 7)),
        Team(busy=2, paused=1),
    ],
)
def test_what_operators_do_is_said(team: Team) -> None:
    words = f"nobody is free in queue Q of pbx01: {team.in_words()}"
    said = PT.say(words)
    assert said is not None
    assert not {"talk", "paused", "logged", "known", "gone"} & {*said.replace(",", "").split()}


def test_late_calls_and_bridges_are_said() -> None:
    late = {"pbx01": Late(calls=1, oldest_s=3.0), "pbx02": Late(calls=4, oldest_s=3.0)}
    unsaid = Results(claimed=40, unannounced=40)
    said = {
        "b1": BridgeState(skew_s=90.0, broker="refused"),
        "b2": BridgeState(skew_s=3, broker=""),
    }
    found = [
        *troubles.of_late_calls("ASR", late, late),
        *troubles.of_messages("pbx01", pbx(results=unsaid)),
        *troubles.of_bridges({"ASR": {}, "B": {"b9": 60.0}, "C": {"b1": 0.1, "b2": 0.1}}, said),
        *(skew_words(90), skew_words(-90), PAUSED, DRAINED),
        redis_obstacle("the registry's Redis", None).reason,
    ]
    assert len(found) >= 14
    assert [one for one in found if PT.say(one) in {None, one}] == []


SITUATIONS = [
    Situation(cell="ASR", threads=5, paused=PAUSED),
    Situation(cell="ASR", threads=5, bridge_silent_s=9.0),
    Situation(cell="ASR", threads=5, bridge_silent_s=float("inf")),
    Situation(cell="ASR", threads=5),
    Situation(cell="ASR", threads=5, redis=redis_obstacle("Redis", ConnectionError("refused"))),
    *(
        Situation(cell="ASR", threads=5, waiting=9, pbxs=pbxs, parked=parked)
        for pbxs, parked in [
            ([PbxFacts(load=LOAD, late_s=4.0)], {}),
            ([PbxFacts(load=replace(LOAD, agents=0))], {}),
            ([PbxFacts(load=replace(LOAD, calls=10))], {}),
            ([PbxFacts(load=replace(LOAD, calls=10), is_capped=True)], {}),
            ([PbxFacts(load=replace(LOAD, starts=0), cps=10)], {}),
            ([PbxFacts(load=replace(LOAD, starts=0), cps=10, governed=3.5)], {}),
            (
                [
                    PbxFacts(load=replace(LOAD, name=name), obstacle=PBXS["silent"].obstacle())
                    for name in ("pbx01", "pbx02")
                ],
                {},
            ),
            (
                [
                    PbxFacts(
                        load=replace(LOAD, trunks=frozenset({"tim"})),
                        obstacle=Obstacle(limit=Limit.AMI_DOWN, reason="no AMI at h:1 (x)"),
                    ),
                    PbxFacts(load=replace(LOAD, name="pbx02")),
                ],
                {"tim": 9},
            ),
        ]
    ),
]


@pytest.mark.parametrize("n", range(len(SITUATIONS)))
def test_why_a_cell_does_not_dial_is_said(n: int) -> None:
    found = decide(SITUATIONS[n])
    if found.reason:
        assert PT.say(found.reason) not in {None, found.reason}, found.reason
    said = found.sentence_in(PT.translate, PT.say)
    assert said != found.sentence
    assert "?" not in said


def test_the_story_of_a_call_is_said() -> None:
    fields = {
        "state": "answered", "pbx": "pbx01", "epoch": "2", "admitted_ms": "1000",
        "dialed_ms": "1100", "accepted_ms": "1200", "answered_ms": "1300", "code_state": "came",
    }  # fmt: skip
    words = [text for step in story_of("ASR:r-1", fields).steps for text in (step.by, step.detail)]
    assert [text for text in words if text and PT.say(text) is None] == ["Asterisk"]


def test_a_sentence_of_another_form_remains_english() -> None:
    assert PT.say("the moon is full") is None
    assert PT.say("pbx01: the moon is full") is None
    assert texts("en").say("the moon is full") == "the moon is full"


def test_several_sentences_are_said_only_together() -> None:
    known = "pbx01: its worker was stopped; pbx02: its worker was stopped"
    assert PT.say(known) == "pbx01: o seu worker foi parado; pbx02: o seu worker foi parado"
    assert PT.say(f"{known}; the moon is full") is None


def test_what_stands_in_a_place_is_not_changed() -> None:
    hostile = "<script>{0}{pbx}%s"
    found = PT.say(f"no AMI at {hostile} (its worker was stopped)")
    assert found == f"sem AMI em {hostile} (o seu worker foi parado)"


@pytest.mark.parametrize(
    "text",
    [
        "a: " * 600,
        "its worker was stopped; " * 80 + "x",
        "pbx01: its worker was stopped, " * 60 + "x",
        "; " * 900,
        "9 requests wait for trunk " * 70,
        "x" * 100_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    book = Phrasebook(PT.translate)
    began = time.process_time()
    book.say(text)
    assert time.process_time() - began < 5


@given(st.sampled_from(PHRASES), st.text(max_size=30), st.text(max_size=30))
def test_no_text_raises(phrase: str, before: str, after: str) -> None:
    PT.say(f"{before}{phrase}{after}")
