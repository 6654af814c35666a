"""Live parameters: what lies over the file, what may be set, and what undoes a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from dialer.domain.parameters import (
    OF_FILE,
    Change,
    ChangedSince,
    Edit,
    Parameters,
    Setting,
    Subject,
    overlay,
    state_words,
    undoing,
)
from dialer.errors import ConfigError
from dialer.settings import Settings
from dialer.settings.live import Live, edits, with_parameters
from dialer.settings.sources import Sources, exported, with_sources
from dialer.settings.typed import value_words, wanted
from tests.unit.sound_settings import MARK, clean, loaded, tables, write

TIM, URA = Subject("cell", "ASR_TIM"), Subject("cell", "ura-novoteste2")
PBX01, PBX02 = Subject("pbx", "pbx01"), Subject("pbx", "pbx02")
AT_MS = 1_772_000_000_000


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def live(value: Any, change: int = 1) -> Setting:
    return Setting(value=value, change=change, at_ms=AT_MS, by="ana@ops", why="busy")


def parameters(**values: dict[str, Any]) -> Parameters:
    """`tim={"threads": 3}`: that live value of that cell."""
    subjects = {"tim": TIM, "ura": URA, "pbx01": PBX01, "pbx02": PBX02}
    return Parameters(
        version=1,
        of={
            subjects[name]: {key: live(value) for key, value in of.items()}
            for name, of in values.items()
        },
    )


def made(subject: Subject, *pairs: str, present: Parameters | None = None) -> list[Edit]:
    """What `dialer cells set` or `dialer pbx set` with these words would change."""
    return edits(loaded(), present or Parameters(), subject, wanted(subject.kind, pairs))


# --- over the file --------------------------------------------------------------------------


def test_a_live_value_lies_over_the_file() -> None:
    file = {"threads": 5, "limits": {"outside_hours": "hold", "do_not_call": True}}
    assert overlay(file, {"threads": 3, "limits/outside_hours": "expire", "trunk": None}) == {
        "threads": 3,
        "limits": {"outside_hours": "expire", "do_not_call": True},
        "trunk": None,
    }
    assert file["threads"] == 5


def test_trunks_are_put_into_another_order() -> None:
    file = {"trunks": {"tim": "t", "oi": "o", "vivo": "v"}}
    fresh = overlay(file, {"trunks": ["vivo", "gone", "tim"]})
    assert list(fresh["trunks"].items()) == [("vivo", "v"), ("tim", "t"), ("oi", "o")]


def test_settings_in_force_have_live_values_and_states() -> None:
    given = parameters(
        tim={"threads": 3, "limits/calling_hours": [], "paused": True},
        pbx01={"cps": 2.5, "trunks": ["backup"], "drained": True},
    )
    found = with_parameters(loaded(), given)
    tim, ura = found.settings.cells
    assert (tim.threads, tim.limits.calling_hours, ura.threads) == (3, (), 5)
    assert (found.settings.pbxs[0].cps, found.settings.pbxs[0].default_trunk) == (2.5, "backup")
    assert found.settings.pbxs[0].secret.get_secret_value() == MARK
    assert ura.redis_url == loaded().cells[1].redis_url, "with its password"
    assert ([*found.paused], [*found.drained]) == (["ASR_TIM"], ["pbx01"])
    assert found.problems == ()


def test_values_that_are_no_longer_valid_are_left_out() -> None:
    given = parameters(
        tim={"pbxs": ["gone"], "threads": 3, "context": "from-internal"},
        pbx01={"max_calls": 0, "host": "evil"},
    )
    found = with_parameters(loaded(), given)
    tim, pbx01 = found.settings.cells[0], found.settings.pbxs[0]
    assert (tim.threads, tim.pbxs, tim.context) == (3, ("pbx01", "pbx02"), "dialer-ura")
    assert (pbx01.max_calls, pbx01.host) == (200, "127.0.0.1")
    assert [str(problem) for problem in found.problems] == [
        "pbxs[pbx01].max_calls: 0 is wrong; it takes a whole number from 1 to 10000",
        "pbxs[pbx01]: 'host' is no live parameter of this release",
        "cells[ASR_TIM].pbxs: lists an unknown PBX; known are: pbx01, pbx02",
        "cells[ASR_TIM]: 'context' is no live parameter of this release",
    ]


@pytest.mark.parametrize(
    "value",
    [None, 5, "tim", {}, [], [["tim"]], [{}], [None], ["\x1b[2J"], {"tim": "Local/x@internal"}],
)
def test_strange_values_end_no_program(value: object) -> None:
    """Whoever writes to Redis, or another release, may have put them there."""
    file = loaded()
    for name in ("trunks", "max_calls", "cps"):
        found = with_parameters(file, parameters(pbx01={name: value, "governor": False}))
        if name != "cps" or value != 5:
            assert len(found.problems) == (0 if (name, value) == ("max_calls", 5) else 1)
        assert dict(found.settings.pbxs[0].trunks) == dict(file.pbxs[0].trunks)
        assert not found.settings.pbxs[0].governor, "the other value is in force"
        assert "\x1b" not in str(found.problems)
    for name in ("pbxs", "limits/calling_hours", "amd", "threads"):
        found = with_parameters(file, parameters(tim={name: value, "retries": 0}))
        assert found.settings.cells[0].retries == 0


def test_a_removed_cell_stays_paused() -> None:
    """Workers that still have it in their file leave its calls, so the bridge must know."""
    gone = Parameters(version=1, of={Subject("cell", "GONE"): {"paused": live(True)}})
    assert with_parameters(loaded(), gone).pauses["GONE"].startswith("paused by ana@ops")


def test_values_that_are_valid_only_together_are_in_force() -> None:
    given = parameters(tim={"pbxs": ["pbx01"], "trunk": "backup"})
    assert with_parameters(loaded(), given).problems == ()


def test_a_live_amd_needs_no_message_of_the_file() -> None:
    def with_message(content: dict[str, Any]) -> None:
        content["cells"][0] |= {"amd": "message", "amd_message": "custom/beep"}

    file = loaded(with_message)
    tim = with_parameters(file, parameters(tim={"amd": "pass"})).settings.cells[0]
    assert (tim.amd, tim.amd_message) == ("pass", None)


# --- what may be set ------------------------------------------------------------------------

WEEK = ["mon", "tue", "wed", "thu", "fri"]


@pytest.mark.parametrize(
    ("subject", "pair", "name", "new"),
    [
        (TIM, "threads=3", "threads", 3),
        (TIM, "trunk=backup", "trunk", "backup"),
        (TIM, "trunk=none", "trunk", None),
        (TIM, "pbxs= pbx02 , pbx01", "pbxs", ["pbx02", "pbx01"]),
        (TIM, 'pbxs=["pbx01"]', "pbxs", ["pbx01"]),
        (TIM, "timeout_command_ack=7.5", "timeout_command_ack", 7.5),
        (TIM, "outside_hours=expire", "limits/outside_hours", "expire"),
        (TIM, "limits.outside_hours=hold", "limits/outside_hours", "hold"),
        (TIM, "calling_hours=[]", "limits/calling_hours", []),
        (TIM, "calling_hours=any time", "limits/calling_hours", []),
        (TIM, "calling_hours='any time'", "limits/calling_hours", []),  # as the sentence shows it
        (TIM, "amd=Pass", "amd", "pass"),
        (TIM, "outside_hours=EXPIRE", "limits/outside_hours", "expire"),
        (TIM, "pbxs=pbx02;pbx01", "pbxs", ["pbx02", "pbx01"]),
        (
            TIM,
            "calling_hours=Monday-sex 8:00\N{EN DASH}20:00; daily 21:00-22:00",
            "limits/calling_hours",
            [
                {"days": WEEK, "from": "08:00", "to": "20:00"},
                {"days": [*WEEK, "sat", "sun"], "from": "21:00", "to": "22:00"},
            ],
        ),
        (
            TIM,
            "calling_hours=mon-fri 08:00-20:00; sat,Sun 08:00 - 14:00",
            "limits/calling_hours",
            [
                {"days": WEEK, "from": "08:00", "to": "20:00"},
                {"days": ["sat", "sun"], "from": "08:00", "to": "14:00"},
            ],
        ),
        (
            TIM,
            "calling_hours=sat-mon 22:00-02:00",
            "limits/calling_hours",
            [{"days": ["sat", "sun", "mon"], "from": "22:00", "to": "02:00"}],
        ),
        (PBX01, "cps=3", "cps", 3.0),
        (PBX01, "governor=false", "governor", False),
        (PBX01, "trunks=backup", "trunks", ["backup", "tim"]),
    ],
)
def test_a_value_is_read_as_an_operator_types_it(
    subject: Subject, pair: str, name: str, new: object
) -> None:
    (edit,) = made(subject, pair)
    assert (edit.name, edit.new, edit.was_live, edit.is_live) == (name, new, False, True)


@pytest.mark.parametrize(
    ("subject", "pair", "sentence"),
    [
        (
            TIM,
            "threads",
            "'threads' is not KEY=VALUE; write, for example, threads=30: no blanks around the =",
        ),
        (TIM, "thread=3", "a cell has no live parameter 'thread'; did you mean threads?"),
        (PBX01, "calls=3", "a PBX has no live parameter 'calls'; did you mean max_calls?"),
        (
            PBX01,
            "x=3",
            "a PBX has no live parameter 'x'; there are max_calls, cps, governor, trunks",
        ),
        (
            TIM,
            "context=internal",
            "context of a cell is in dialer.toml only: change it there, and reload the bridges "
            "and workers",
        ),
        (
            TIM,
            "variables=[]",
            "variables of a cell is in dialer.toml only: change it there, and reload the bridges "
            "and workers",
        ),
        (TIM, "cps=5", "cps is a value of a PBX: dialer pbx set <PBX> cps=<value>"),
        (PBX01, "threads=5", "threads is a value of a cell: dialer cells set <cell> threads=<v"),
        (TIM, "paused=true", "'paused' is no value: dialer cells pause <cell>, dialer pbx drai"),
        *(
            (TIM, f"threads={text}", f"threads: {text!r} is no whole number; write digits only")
            for text in ("many", "30s", "1.000", "1e2", "007", "+5", "1_0", "50%", "6.0")
        ),
        (TIM, "threads=0", "cell ASR_TIM: threads: '0' is wrong; it takes a whole number from 1 "),
        (TIM, "threads=-5", "cell ASR_TIM: threads: '-5' is wrong; it takes a whole number from 1"),
        (TIM, "pbxs=pbx01,pbx9", "cell ASR_TIM: pbxs: there is no PBX pbx9; did you mean pbx02?"),
        (
            TIM,
            "pbxs=+pbx02",
            "cell ASR_TIM: pbxs: '+pbx02' is wrong; it takes names of PBXs with co",
        ),
        (TIM, "trunk=oi", "cell ASR_TIM: trunk: none of the cell's PBXs has that trunk; they ha"),
        (TIM, "amd=on", "cell ASR_TIM: amd: 'on' is wrong; it takes off, hangup, message or pass"),
        (
            TIM,
            "amd=message",
            'cell ASR_TIM: amd: amd = "message" needs amd_message, which is in dialer.toml only',
        ),
        (
            TIM,
            "calling_hours=none",
            "calling_hours: 'none' is wrong; write days and times in quote",
        ),
        (
            TIM,
            "calling_hours=mon-fri",
            "calling_hours: 'mon-fri' is wrong; write days and times in",
        ),
        (
            TIM,
            "calling_hours=mon 08:00-25:00",
            "cell ASR_TIM: calling_hours: 'mon 08:00-25:00' is wrong; it takes days and times in q",
        ),
        (TIM, "timeout_command_ack=2,5", "timeout_command_ack: '2,5' has a comma; write 2.5"),
        (PBX01, "cps=1.000", "cps: '1.000' is not clear; write 1000 or 1"),
        (PBX01, "cps=fast", "cps: 'fast' is no number; write digits and a point, as 2.5: no unit"),
        (PBX01, "cps=2000", "PBX pbx01: cps: '2000' is wrong; it takes calls a second, 0.1 to 10"),
        (PBX01, "governor=maybe", "PBX pbx01: governor: 'maybe' is wrong; it takes true or false"),
        (PBX01, "trunks=none", "PBX pbx01: trunks: pbx01 has no trunk none; it has tim, backup"),
        (TIM, "calling_hours=always", "calling_hours: 'always' is wrong; write days and times"),
        (TIM, "calling_hours=mox 08:00-20:00", "calling_hours: 'mox' is no day; days are mon, tu"),
        (TIM, "calling_hours=mon-- 08:00-20:00", "calling_hours: '-' is no day; days are mon, tu"),
        (TIM, "calling_hours=, 08:00-20:00", "calling_hours: '' is no day; days are mon, tue"),
        (TIM, "time_zone=UTC", "time_zone of a cell is in dialer.toml only: change it there, and"),
        (TIM, "limits.do_not_call=false", "limits.do_not_call of a cell is in dialer.toml only:"),
        (TIM, "calling_hours=mon 8-20", "calling_hours: 'mon 8-20' is wrong; write days and time"),
        (PBX01, "trunks=bakup", "PBX pbx01: trunks: pbx01 has no trunk bakup; did you mean backup"),
        (PBX01, "trunks=[]", "PBX pbx01: trunks: it takes names of its trunks: tim, backup"),
        (PBX01, "max_calls=1e9", "max_calls: '1e9' is no whole number; write digits only, as 1000"),
        (Subject("cell", "ASR"), "threads=3", "there is no cell ASR in the settings; did you mea"),
        (Subject("pbx", "pbx07"), "cps=3", "there is no PBX pbx07 in the settings; did you mean "),
    ],
)
def test_a_wrong_value_is_refused_with_the_cure(subject: Subject, pair: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        made(subject, pair)
    assert str(refused.value).startswith(sentence)


def test_nothing_to_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to set; write, for example, max_calls=60"):
        wanted("pbx", [])
    with pytest.raises(ConfigError, match="max_calls is given twice; give one value"):
        wanted("pbx", ["max_calls=6", "max_calls=60"])


def test_a_value_that_is_as_wanted_changes_nothing() -> None:
    present = parameters(tim={"threads": 3})
    assert made(TIM, "threads=3", present=present) == []
    assert made(TIM, "retries=") == [], "it is that of the file already"
    fixed = Edit(name="threads", old=100, new=100, was_live=False, is_live=True)
    assert made(TIM, "threads=100") == [fixed], "it no longer follows the file"


def test_a_value_without_text_is_that_of_the_file_again() -> None:
    (edit,) = made(TIM, "threads=", present=parameters(tim={"threads": 3}))
    assert edit == Edit(name="threads", old=3, new=100, was_live=True, is_live=False)


def test_a_value_no_longer_valid_can_be_taken_back() -> None:
    present = parameters(tim={"pbxs": ["gone"]})
    (edit,) = made(TIM, "pbxs=", present=present)
    assert (edit.old, edit.new, edit.is_live) == (["pbx01", "pbx02"], ["pbx01", "pbx02"], False)


def test_values_are_shown_as_they_are_typed() -> None:
    hours = [{"days": ["sat", "sun"], "from": "08:00", "to": "14:00"}]
    shown = [
        value_words(name, value)
        for name, value in (
            ("trunk", None),
            ("governor", True),
            ("limits/calling_hours", hours),
            ("limits/calling_hours", []),
            ("pbxs", ["a", "b"]),
            ("cps", 20.0),
            ("threads", 7),
        )
    ]
    assert shown == ["none", "true", "sat,sun 08:00-14:00", "any time", "a,b", "20", "7"]


# --- undo -----------------------------------------------------------------------------------


def change(*changed: Edit, number: int = 1) -> Change:
    return Change(number=number, at_ms=AT_MS, subject=TIM, edits=changed, by="ana@ops")


FROM_FILE = Edit(name="threads", old=100, new=3, was_live=False, is_live=True)
TO_FILE = Edit(name="threads", old=3, new=100, was_live=True, is_live=False)


ENDED = Parameters(version=2, ended={TIM: {"threads": (2, AT_MS)}})


def test_an_undone_change_brings_back_what_was_before() -> None:
    assert undoing(change(FROM_FILE), parameters(tim={"threads": 3})) == {"threads": OF_FILE}
    assert undoing(change(TO_FILE, number=2), ENDED) == {"threads": 3}


@pytest.mark.parametrize(
    ("edit", "number", "present", "by"),
    [
        (FROM_FILE, 1, Parameters(version=7, of={TIM: {"threads": live(9, change=7)}}), 7),
        (FROM_FILE, 1, ENDED, 2),
        (TO_FILE, 1, ENDED, 2),
        (TO_FILE, 1, Parameters(version=7, of={TIM: {"threads": live(9, change=7)}}), 7),
    ],
)
def test_a_change_with_a_later_one_is_not_undone(
    edit: Edit, number: int, present: Parameters, by: int
) -> None:
    with pytest.raises(ChangedSince) as refused:
        undoing(change(edit, number=number), present)
    assert str(refused.value) == (
        f"change 1 cannot be undone: threads of cell ASR_TIM was changed since then, by change "
        f"{by}; set what you want instead"
    )


def test_a_pause_with_a_later_one_is_not_undone() -> None:
    paused = Edit(name="paused", old=False, new=True, was_live=False, is_live=True)
    present = Parameters(version=4, of={TIM: {"paused": live(True, change=4)}})
    with pytest.raises(ChangedSince, match="cell ASR_TIM was paused or resumed since then, by ch"):
        undoing(change(paused), present)


def test_a_state_says_who_since_when_why_and_the_cure() -> None:
    since = "since 2026-02-25 06:13 UTC"
    assert state_words(TIM, live(True)) == (
        f"paused by ana@ops {since} (busy); `dialer cells resume ASR_TIM` ends that"
    )
    quiet = Setting(value=True, change=1, at_ms=AT_MS, by="bia@ops")
    assert state_words(PBX01, quiet) == (
        f"drained by bia@ops {since}; `dialer pbx resume pbx01` ends that"
    )


# --- sources and export ---------------------------------------------------------------------


def test_each_value_is_shown_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tables())
    monkeypatch.setenv("DIALER_ASR_TIM_THREADS", "7")
    monkeypatch.setenv("DIALER_RECOVERY__PBX_LOST_AFTER", "60")
    given = parameters(
        tim={"retries": 0, "limits/calling_hours": [], "limits/outside_hours": "expire"},
        ura={"threads": 0},
        pbx01={"trunks": ["backup", "tim"]},
    )
    text = with_sources(Sources.of(path, with_parameters(from_file(), given), given))
    lines = text.splitlines()
    by = "# live: change 1 by ana@ops, 2026-02-25 06:13 UTC"
    for line in (
        'push = "right" # dialer.toml',
        "pbx_lost_after = 60.0 # DIALER_RECOVERY__PBX_LOST_AFTER",
        "threads = 7 # DIALER_ASR_TIM_THREADS",
        f"retries = 0 {by}",
        f'outside_hours = "expire" {by}',
        f"calling_hours = [] {by}",
        f'backup = "PJSIP/{{number}}@backup" {by}',
        "ring_timeout = 30 # default",
        "tls = false # default",
        "threads = 5 # dialer.toml",  # the live one is not valid
    ):
        assert line in lines, f"{line}\n{text}"
    assert MARK not in text
    assert tomlkit.parse(text).unwrap()["pbxs"][1]["cps"] == 0.5


def from_file() -> Settings:
    from dialer.settings import load

    return load()


def test_an_exported_file_has_the_live_values() -> None:
    path = write(tables())
    path.write_text(path.read_text().replace("threads = 100", "threads = 100  # all of them"))
    given = parameters(
        tim={"threads": 3, "trunk": "tim", "limits/outside_hours": "expire"},
        ura={"limits/outside_hours": "expire", "paused": True},
        pbx01={"trunks": ["backup"], "cps": 2.5},
    )
    in_force = with_parameters(from_file(), given)
    text, hidden = exported(path, in_force)
    assert hidden == []
    assert "threads = 3  # all of them" in text
    path.write_text(text)
    assert from_file() == in_force.settings
    assert from_file().pbxs[0].default_trunk == "backup"
    assert text.count(MARK) == str(tomlkit.dumps(tables())).count(MARK), "secrets stay"
    assert exported(path, Live(settings=from_file())) == (text, [])


def test_a_file_that_cannot_be_written_to_is_refused() -> None:
    path = write(tables())
    head = path.read_text().split("[[cells]]", maxsplit=1)[0]
    cells = [
        '[[cells]]\nnome = "ASR_TIM"\nthreads = 100\npbxs = ["pbx01"]',
        'limits.outside_hours = "hold"\n',
    ]
    path.write_text(f"{head}{chr(10).join(cells)}")
    given = parameters(tim={"limits/calling_hours": [WEEKEND], "threads": 3})
    with pytest.raises(ConfigError) as refused:
        exported(path, with_parameters(from_file(), given))
    assert str(refused.value) == (
        f"{path} is written in a way that this command cannot change; put these live values into "
        "it by hand: calling_hours of cell ASR_TIM; threads of cell ASR_TIM; `dialer config show` "
        "has them"
    )


WEEKEND = {"days": ["sat", "sun"], "from": "08:00", "to": "12:00"}


def test_an_exported_value_may_be_none() -> None:
    content = tables()
    content["cells"][0]["trunk"] = "tim"
    path = write(content)
    given = parameters(tim={"trunk": None})
    text, _ = exported(path, with_parameters(from_file(), given))
    assert "trunk =" not in text


def test_a_value_that_a_variable_would_hide_is_not_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = tables()
    ways = content["pbxs"][0].pop("trunks")
    path = write(content)
    monkeypatch.setenv("DIALER_PBX01_TRUNKS", json.dumps(ways))
    given = parameters(pbx01={"trunks": ["backup"], "cps": 2.5})
    text, hidden = exported(path, with_parameters(from_file(), given))
    assert hidden == ["trunks of PBX pbx01, because DIALER_PBX01_TRUNKS sets it"]
    assert "cps = 2.5" in text


def test_an_exported_file_is_valid_whatever_amd_is() -> None:
    content = tables()
    content["cells"][0] |= {"amd": "message", "amd_message": "custom/beep"}
    path = write(content)
    text, _ = exported(path, with_parameters(from_file(), parameters(tim={"amd": "off"})))
    path.write_text(text)
    assert from_file().cells[0].amd == "off"


def test_a_value_no_longer_valid_prevents_no_other_change() -> None:
    present = parameters(tim={"pbxs": ["gone"]})
    assert [edit.new for edit in made(TIM, "threads=3", present=present)] == [3]
    assert [edit.new for edit in edits(loaded(), present, TIM, {"paused": True})] == [True]
