"""Settings: accepted values, their sources, warnings."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dialer.domain.allowed import Allowed
from dialer.errors import ConfigError
from dialer.settings import load, settings, stray_variables
from dialer.settings.advice import advice
from dialer.settings.tables import CallingHours, Limits, Log, Numbers, Recovery
from tests.unit.sound_settings import MARK, Change, cell, clean, loaded, pbx, refusal, tables, write

EXAMPLE = Path(__file__).parents[2] / "deploy" / "dialer.toml"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def test_shipped_example_is_valid_and_shows_every_default() -> None:
    example = load(EXAMPLE)
    stated = example.model_dump(exclude_unset=True)
    assert stated["multcall"] == example.multcall.model_dump()
    assert stated["numbers"] == Numbers().model_dump(exclude_none=True)
    assert stated["log"] == Log().model_dump()
    assert stated["recovery"] == Recovery().model_dump()
    cell, cell_stated = example.cells[0], stated["cells"][0]
    assert set(cell.model_dump(exclude_none=True)) == set(cell_stated)
    assert Limits().model_dump(exclude_none=True) == cell_stated["limits"] | {"calling_hours": ()}


def test_cell_without_redis_url_uses_multcalls() -> None:
    found = loaded()
    assert found.cell_redis_url("ASR_TIM") == f"redis://:{MARK}@127.0.0.1:6379/0"
    assert found.cell_redis_url(found.cell("ura-novoteste2")).startswith("sentinel://")


def test_registry_uses_multcalls_redis_by_default() -> None:
    assert loaded().registry_redis_url.startswith("unix:///run/redis.sock")
    found = loaded(lambda content: content.pop("registry"))
    assert found.registry_redis_url == found.multcall.redis_url


def test_first_trunk_of_a_pbx_is_the_default() -> None:
    found = loaded()
    assert found.pbx("pbx01").default_trunk == "tim"


def test_unknown_name_gets_the_nearest_suggestion() -> None:
    found = loaded()
    with pytest.raises(ConfigError, match=r"there is no PBX pbx1 in the .*; did you mean pbx01"):
        found.pbx("pbx1")
    with pytest.raises(ConfigError, match=r"there is no cell X in the .*ASR_TIM, ura-novoteste2"):
        found.cell("X")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        loaded().cells[0].threads = 5  # type: ignore[misc]


def test_calling_hours_may_pass_midnight_and_fill_the_day() -> None:
    night = CallingHours.model_validate({"days": ["sun", "mon"], "from": "22:00", "to": "24:00"})
    assert (night.start, night.end, night.weekdays) == (time(22), time(0), frozenset({0, 6}))
    whole = CallingHours.model_validate({"days": ["sat"], "from": "00:00", "to": "24:00"})
    assert (whole.start, whole.end) == (time(0), time(0))


def test_a_cell_is_open_in_its_hours_by_its_own_time_zone() -> None:
    hours = [
        {"days": ["mon"], "from": "08:00", "to": "20:00"},
        {"days": ["sat"], "from": "00:00", "to": "24:00"},
    ]
    limits = Limits.model_validate({"calling_hours": hours, "time_zone": "America/Sao_Paulo"})
    monday, saturday = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 7, tzinfo=UTC)
    assert not limits.is_open(monday + timedelta(hours=10, minutes=59))  # 07:59 there
    assert limits.is_open(monday + timedelta(hours=11))
    assert limits.is_open(monday + timedelta(hours=22, minutes=59))
    assert not limits.is_open(monday + timedelta(hours=23))
    assert not limits.is_open(saturday + timedelta(hours=2, minutes=59))
    assert limits.is_open(saturday + timedelta(hours=3))
    assert limits.is_open(saturday + timedelta(hours=26, minutes=59))
    assert not limits.is_open(saturday + timedelta(hours=27))
    assert Limits().is_open(monday)


def test_settings_read_the_file_of_dialer_config_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tables()).rename("other.toml")
    monkeypatch.setenv("DIALER_CONFIG", str(path))
    first = settings()
    path.unlink()
    assert settings() is first


# --- secrets on disk ----------------------------------------------------------------------


def with_secret_file(name: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        del content["pbxs"][0]["secret"]
        content["pbxs"][0]["secret_file"] = name

    return change


def test_secret_file_is_relative_and_its_line_end_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ami.secret").write_text(f"{MARK}\n", encoding="utf-8")
    found = loaded(with_secret_file("ami.secret"))
    monkeypatch.chdir("/")
    assert found.pbx("pbx01").secret.get_secret_value() == MARK
    assert MARK not in repr(found.pbx("pbx01"))


@pytest.mark.parametrize(("content", "said"), [(b"\n", "is empty"), (b"\xff", "is not UTF-8")])
def test_unusable_secret_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "ami.secret").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        _ = loaded(with_secret_file("ami.secret")).pbx("pbx01").secret


def test_missing_secret_is_an_error_only_when_used() -> None:
    found = loaded(lambda content: content["pbxs"][0].pop("secret"))
    with pytest.raises(ConfigError) as caught:
        _ = found.pbx("pbx01").secret
    assert str(caught.value) == (
        "pbxs[pbx01].secret: is missing; set DIALER_PBX01_SECRET, or set secret_file"
    )


def test_secret_and_secret_file_together_are_refused() -> None:
    assert refusal(pbx("secret_file", "x")) == (
        "pbxs[pbx01]: has both secret and secret_file; it takes one of them"
    )


def test_certificate_path_is_relative_to_the_settings(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["pbxs"][0] |= {"tls": True, "tls_ca_file": "pbx01.pem"}

    assert loaded(change).pbx("pbx01").tls_ca_file == tmp_path / "pbx01.pem"


def test_a_certificate_without_tls_is_refused() -> None:
    assert refusal(pbx("tls_ca_file", "pbx01.pem")) == (
        "pbxs[pbx01]: has tls_ca_file but no TLS; set tls = true, or leave it out"
    )


# --- the environment ----------------------------------------------------------------------


def test_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DIALER_MULTCALL__REDIS_URL": "redis://elsewhere:7000/3",
        "DIALER_RECOVERY__PBX_LOST_AFTER": "30",
        "DIALER_PBX01_SECRET": "from-the-environment",
        "DIALER_PBX02_TRUNKS": '{"oi": "PJSIP/{number}@oi"}',
        "DIALER_ASR_TIM_THREADS": "7",
        "DIALER_ASR_TIM_PBXS": '["pbx02"]',
        "DIALER_ASR_TIM_LIMITS__DO_NOT_CALL": "false",
        "DIALER_URA_NOVOTESTE2_RING_TIMEOUT": "12",
    }.items():
        monkeypatch.setenv(name, value)
    found = loaded()
    assert found.multcall.redis_url == "redis://elsewhere:7000/3"
    assert found.multcall.push == "right"
    assert found.recovery.pbx_lost_after == 30
    assert found.pbx("pbx01").secret.get_secret_value() == "from-the-environment"
    assert found.pbx("pbx02").trunks == {"oi": "PJSIP/{number}@oi"}
    asr = found.cell("ASR_TIM")
    assert (asr.threads, asr.pbxs, asr.limits.do_not_call) == (7, ("pbx02",), False)
    assert asr.limits.calling_hours, "the rest of the sub-table stays"
    assert found.cell("ura-novoteste2").ring_timeout == 12


def test_secret_in_environment_replaces_secret_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_PBX01_SECRET", "env")
    found = loaded(with_secret_file("/nowhere"))
    assert found.pbx("pbx01").secret.get_secret_value() == "env"


def test_pbxs_from_the_environment_get_secrets_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = {"name": "pbx-9", "max_calls": 1, "cps": 1, "trunks": {"t": "SIP/{number}"}}
    monkeypatch.setenv("DIALER_PBXS", json.dumps([member]))
    monkeypatch.setenv("DIALER_CELLS", '[{"nome": "A", "threads": 1, "pbxs": ["pbx-9"]}]')
    monkeypatch.setenv("DIALER_PBX_9_SECRET", "env")
    assert loaded().pbx("pbx-9").secret.get_secret_value() == "env"


def test_wrong_value_in_environment_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_ASR_TIM_THREADS", "0")
    assert refusal(lambda _: None) == (
        "cells[ASR_TIM].threads: is wrong; it takes a whole number from 1 to 10000 "
        "(from DIALER_ASR_TIM_THREADS)"
    ).replace("is wrong", "0 is wrong")


def test_wrong_name_in_environment_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALER_MULTCALL__REDIS_ULR", f"redis://:{MARK}@h")
    assert refusal(lambda _: None) == (
        "multcall.redis_ulr: there is no such setting; did you mean redis_url? "
        "(from DIALER_MULTCALL__REDIS_ULR)"
    )


def test_broken_json_in_environment_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_PBXS", f'[{{"secret": "{MARK}"')
    assert refusal(lambda _: None) == "DIALER_PBXS: is not JSON; it takes the table as JSON"


def test_empty_secret_in_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALER_PBX01_SECRET", "")
    assert refusal(lambda _: None) == (
        "pbxs[pbx01].secret: is empty; it takes the secret of the PBX's manager.conf "
        "(from DIALER_PBX01_SECRET)"
    )


def test_variable_that_fits_two_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def twins(content: dict[str, Any]) -> None:
        content["pbxs"][0]["name"] = "pbx-02"
        content["pbxs"][1]["name"] = "pbx_02"
        content["cells"] = [{"nome": "A", "threads": 1, "pbxs": ["pbx-02", "pbx_02"]}]

    assert loaded(twins).pbx("pbx-02").secret.get_secret_value() == MARK
    monkeypatch.setenv("DIALER_PBX_02_SECRET", "whose")
    assert refusal(twins) == (
        "pbxs[pbx_02].secret: DIALER_PBX_02_SECRET also applies to pbx-02; "
        "rename one of them, or unset the variable"
    )


def test_misspelled_variable_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_MULTCALL_REDIS_URL", "redis://h")
    monkeypatch.setenv("DIALER_PBX01_SECRT", "x")
    monkeypatch.setenv("DIALER_FAILPOINTS", "x")
    assert stray_variables(loaded()) == [
        ("DIALER_MULTCALL_REDIS_URL", "DIALER_MULTCALL__REDIS_URL"),
        ("DIALER_PBX01_SECRT", "DIALER_PBX01_SECRET"),
    ]


# --- warnings -----------------------------------------------------------------------------


def doubts(change: Change) -> list[str]:
    found = loaded(change)
    return [str(doubt) for doubt in advice(found.pbxs, found.cells)]


def test_good_settings_cause_no_warning() -> None:
    assert doubts(lambda _: None) == []


@pytest.mark.parametrize(
    "template", ["Local/{number}@out", "Local/{number}@out/j", "local/{number}@o"]
)
def test_local_channel_without_n_causes_a_warning(template: str) -> None:
    (said,) = doubts(pbx("trunks", {"tim": template}))
    assert said.startswith("pbxs[pbx01].trunks.tim: a Local channel without /n vanishes")


@pytest.mark.parametrize("template", ["Local/{number}@out/n", "Local/{number}@out/nj"])
def test_local_channel_with_n_causes_no_warning(template: str) -> None:
    assert doubts(pbx("trunks", {"tim": template})) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["cells"].pop(0), "pbxs[pbx01]: no cell uses this PBX"),
        (
            cell("threads", 5000),
            "cells[ASR_TIM].threads: 5000 calls at once, but its PBXs together allow only 210",
        ),
        (
            cell("trunk", "backup"),
            "cells[ASR_TIM].trunk: pbx02 has no trunk backup and gets none of its calls",
        ),
        (
            pbx("host", "10.0.0.9"),
            "pbxs[pbx01].tls: the AMI secret and all calls cross the network unencrypted; "
            "run the worker on the Asterisk host, or set tls = true",
        ),
        (
            lambda c: c["pbxs"][0].pop("secret"),
            "pbxs[pbx01].secret: is missing; set DIALER_PBX01_SECRET, or set secret_file. "
            "Only the worker of pbx01 needs it; it does not start without it",
        ),
        (
            lambda c: c["pbxs"][0].update(tls=True, tls_ca_file="/nowhere/pbx01.pem"),
            "pbxs[pbx01].tls_ca_file: /nowhere/pbx01.pem cannot be read: No such file or "
            "directory; copy the PBX's tlscertfile there. "
            "Only the worker of pbx01 needs it; it does not start without it",
        ),
    ],
)
def test_suspicious_setting_causes_a_warning(change: Change, said: str) -> None:
    assert doubts(change) == [said]


def test_a_cell_allows_its_own_target_and_lists_more() -> None:
    listed = {"variables": ["CPF"], "contexts": ["b"], "extensions": ["_1X"], "priorities": [9]}
    given = loaded(lambda c: c["cells"][0].update(listed, context="a", exten="x", priority=2))
    assert given.cell("ASR_TIM").allowed == Allowed(
        variables=("CPF",), contexts=("a", "b"), extensions=("x", "_1X"), priorities=(2, 9)
    )
    assert given.cell("ura-novoteste2").allowed == Allowed(
        contexts=("dialer-ura",), extensions=("s",), priorities=(1,)
    )


def test_a_cell_with_a_queue_allows_no_context() -> None:
    given = loaded(lambda c: c["cells"][0].update(queue="Q"))
    assert given.cell("ASR_TIM").allowed.contexts == ()


def test_the_environment_gives_the_allowed_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALER_ASR_TIM_VARIABLES", '["CPF"]')
    monkeypatch.setenv("DIALER_ASR_TIM_CONTEXTS", '["b"]')
    monkeypatch.setenv("DIALER_ASR_TIM_EXTENSIONS", '["_1X"]')
    monkeypatch.setenv("DIALER_ASR_TIM_PRIORITIES", "[9]")
    cell = loaded().cell("ASR_TIM")
    assert (cell.variables, cell.contexts) == (("CPF",), ("b",))
    assert (cell.extensions, cell.priorities) == (("_1X",), (9,))
