"""Wrong settings files and the error sentences for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dialer.errors import ConfigError
from dialer.multcall.renames import FIELDS
from dialer.settings import load
from dialer.settings import tables as settings_tables
from dialer.settings.problems import SettingsRefused
from tests.unit.sound_settings import Change, cell, clean, loaded, pbx, refusal, tables, write

Tables = dict[str, Any]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def fields(**names: str) -> Change:
    return lambda content: content["multcall"].__setitem__("fields", names)


TEMPLATE = "it takes a dial string such as PJSIP/{number}@carrier"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            cell("threads", 0),
            "cells[ASR_TIM].threads: 0 is wrong; it takes a whole number from 1 to 10000",
        ),
        (
            cell("threads", "many"),
            "cells[ASR_TIM].threads: is wrong; it takes a whole number from 1 to 10000",
        ),
        (
            cell("threads", True),
            "cells[ASR_TIM].threads: is wrong; it takes a whole number from 1 to 10000",
        ),
        (
            lambda c: c["cells"][0].pop("threads"),
            "cells[ASR_TIM].threads: is missing; it takes a whole number from 1 to 10000",
        ),
        (
            cell("ring_timeout", 121),
            "cells[ASR_TIM].ring_timeout: 121 is wrong; it takes a whole number from 1 to 120",
        ),
        (
            cell("queue", "a b"),
            "cells[ASR_TIM].queue: is wrong; it takes 1 to 64 letters, digits, _ . and -",
        ),
        (
            cell("amd_message", 5),
            "cells[ASR_TIM].amd_message: is wrong; it takes text of 1 to 200 characters",
        ),
        (
            cell("ring_timout", 5),
            "cells[ASR_TIM].ring_timout: there is no such setting; did you mean ring_timeout?",
        ),
        (
            cell("name", "X"),
            "cells[ASR_TIM].name: there is no such setting; did you mean nome?",
        ),
        (
            cell("amd", "ignore"),
            'cells[ASR_TIM].amd: is wrong; it takes "off", "hangup", "message" or "pass"',
        ),
        (
            cell("amd", "message"),
            'cells[ASR_TIM]: amd = "message" and amd_message belong together; set both, or neither',
        ),
        (
            cell("amd_message", "custom/recado"),
            'cells[ASR_TIM]: amd = "message" and amd_message belong together; set both, or neither',
        ),
        (
            cell("variables", ["CPF", "MONITOR_EXEC"]),
            "cells[ASR_TIM].variables[#2]: MONITOR_EXEC would let a request set "
            "MONITOR_EXEC, which can change what Asterisk does; it takes other names, such as CPF "
            "or X_*",
        ),
        (
            cell("variables", ["tran*"]),
            "cells[ASR_TIM].variables[#1]: tran* would let a request set "
            "TRANSFERERNAME, which can change what Asterisk does; it takes other names, such as "
            "CPF or X_*",
        ),
        (
            cell("variables", ["A*B"]),
            "cells[ASR_TIM].variables[#1]: is wrong; it takes names of channel variables, as "
            '["CPF", "X_*"]',
        ),
        (
            cell("contexts", ["a b"]),
            "cells[ASR_TIM].contexts[#1]: is wrong; it takes contexts of the dialplan, as "
            '["dialer-ura2"]',
        ),
        (
            cell("extensions", ["_2.X"]),
            "cells[ASR_TIM].extensions[#1]: is not a pattern of extensions.conf; "
            "it takes one such as _2XXX or _0[1-5]X.",
        ),
        (
            cell("exten", "_X."),
            "cells[ASR_TIM].exten: is a pattern; it takes the one extension that answered calls "
            "go to",
        ),
        (
            cell("priorities", [0]),
            "cells[ASR_TIM].priorities[#1]: 0 is wrong; it takes priorities from 1 to 9999, "
            "as [1, 10]",
        ),
        (
            lambda c: c["cells"][0].update(queue="ASR_TIM", context="ura"),
            "cells[ASR_TIM]: has both queue and context; "
            "an answered call goes to the one or to the other",
        ),
        (
            lambda c: c["multcall"].__setitem__("zzz", 1),
            "multcall.zzz: there is no such setting; known here: redis_url, push, fields, lenient",
        ),
        (
            lambda c: c.__setitem__("pbx", []),
            "pbx: there is no such setting; did you mean pbxs?",
        ),
        (
            lambda c: c.pop("broker"),
            "broker: is missing; it takes a table",
        ),
        (
            lambda c: c["multcall"].__setitem__("push", "up"),
            'multcall.push: is wrong; it takes "right" or "left"',
        ),
        (
            fields(Telefon="Phone"),
            "multcall.fields: Telefon is no field of the wire; did you mean Telefone?",
        ),
        (
            fields(**{"a b": "Phone"}),
            f"multcall.fields: one of these is no field of the wire; there are {', '.join(FIELDS)}",
        ),
        (
            fields(Telefone="CallerID"),
            "multcall: fields: Telefone and CallerID of Request are both named CallerID; "
            "give each its own name",
        ),
        (
            fields(Codigo="x", Mensagem="x", Pbx="Celula"),
            "multcall: fields: Celula and Pbx of ACK are both named Celula; give each its own name;"
            " Codigo and Mensagem of Erro are both named x; give each its own name",
        ),
        (
            lambda c: c["multcall"].update(
                fields={"Telefone": "Fone", "Tronco": "FONE"}, lenient={"any_case": True}
            ),
            "multcall: fields: Telefone and Tronco of Request are both named Fone (any_case is on);"
            " give each its own name",
        ),
        (
            fields(Telefone="$type"),
            "multcall.fields.Telefone: is not a name of a field; it takes one such as Phone or "
            "phone_number",
        ),
        (
            fields(Telefone=""),
            "multcall.fields.Telefone: is wrong; it takes names of 1 to 64 characters, each after "
            'our name of the field, as Telefone = "Phone"',
        ),
        (
            lambda c: c["multcall"].__setitem__("lenient", {"all": "maybe"}),
            "multcall.lenient.all: is wrong; it takes true or false",
        ),
        (
            lambda c: c["multcall"].__setitem__("lenient", {"any_cas": True}),
            "multcall.lenient.any_cas: there is no such setting; did you mean any_case?",
        ),
        (
            lambda c: c.__setitem__("numbers", {"country": 55}),
            "numbers.country: is wrong; it takes a country code as text: 1 to 3 digits without + "
            'or 00, as "55"',
        ),
        (
            lambda c: c.__setitem__("numbers", {"country": "1"}),
            "numbers: a number of 11 digits could be a national one, or one of 10 digits with the "
            "country code 1; leave 10 or 11 out of national_digits",
        ),
        (
            lambda c: c.__setitem__("numbers", {"national_digits": []}),
            "numbers.national_digits: is wrong; it takes numbers of digits from 5 to 14, "
            "as [10, 11]",
        ),
        (
            lambda c: c["multcall"].__setitem__("redis_url", "127.0.0.1:6379"),
            "multcall.redis_url: is not a Redis URL: redis://HOST:PORT/DB, "
            "rediss://HOST:PORT/DB, unix:///PATH?db=DB or "
            "sentinel://HOST:PORT,HOST:PORT/SERVICE?db=DB",
        ),
        (
            lambda c: c["broker"].__setitem__("url", "amqp://dialer@"),
            "broker.url: is not the URL of a broker: redis://HOST:PORT/DB, "
            "rediss://HOST:PORT/DB, unix:///PATH?db=DB or "
            "sentinel://HOST:PORT,HOST:PORT/SERVICE?db=DB; "
            "or for RabbitMQ amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://... over TLS",
        ),
        (
            cell("nome", "ASR:TIM"),
            "cells[#1].nome: is wrong; it takes 1 to 64 letters, digits, _ . and -",
        ),
        (
            cell("nome", "ura-novoteste2"),
            "cells[ura-novoteste2].nome: this name is used 2 times; each cell needs its own name",
        ),
        (
            cell("pbxs", ["pbx1"]),
            "cells[ASR_TIM].pbxs: there is no PBX pbx1; did you mean pbx01?",
        ),
        (
            cell("pbxs", []),
            'cells[ASR_TIM].pbxs: is wrong; it takes names of PBXs, as ["pbx01"]',
        ),
        (
            cell("trunk", "oi"),
            "cells[ASR_TIM].trunk: none of the cell's PBXs has that trunk; they have backup, tim",
        ),
        (
            cell("context", "a\nb"),
            "cells[ASR_TIM].context: contains a control character; it takes plain text",
        ),
        (
            cell("limits", {"time_zone": "Mars/Olympus"}),
            "cells[ASR_TIM].limits.time_zone: is not a time zone known on this machine; "
            "it takes a name such as America/Sao_Paulo",
        ),
        (
            cell("limits", {"calling_hours": [{"days": ["mon"], "from": "8h", "to": "20:00"}]}),
            "cells[ASR_TIM].limits.calling_hours[#1].from: is wrong; "
            'it takes a time of day in quotes, as "08:00"',
        ),
        (
            cell("limits", {"calling_hours": [{"days": ["mon"], "from": "08:00", "to": "08:00"}]}),
            "cells[ASR_TIM].limits.calling_hours[#1]: from and to are the same; "
            'the whole day is "00:00" to "24:00"',
        ),
        (
            pbx("cps", 0),
            "pbxs[pbx01].cps: 0 is wrong; it takes calls a second, 0.1 to 1000",
        ),
        (
            pbx("secret", ""),
            "pbxs[pbx01].secret: is empty; it takes the secret of the PBX's manager.conf",
        ),
        (
            pbx("secret", "a\r\nAction: Originate"),
            "pbxs[pbx01].secret: contains a control character; it takes plain text",
        ),
        (
            pbx("trunks", {}),
            "pbxs[pbx01].trunks: is wrong; it takes one trunk or more, "
            'as tim = "PJSIP/{number}@tim"',
        ),
        (
            pbx("trunks", {"t": "PJSIP/tim"}),
            f"pbxs[pbx01].trunks.t: does not contain {{number}} exactly once; {TEMPLATE}",
        ),
        (
            pbx("trunks", {"t": "PJSIP/{number}/{number}"}),
            f"pbxs[pbx01].trunks.t: does not contain {{number}} exactly once; {TEMPLATE}",
        ),
        (
            pbx("trunks", {"t": "{number}@tim"}),
            f"pbxs[pbx01].trunks.t: does not start with a channel technology; {TEMPLATE}",
        ),
        (
            pbx("trunks", {"t": "PJSIP/{number}@tim&SIP/x"}),
            f"pbxs[pbx01].trunks.t: contains a control character or one of , & |; {TEMPLATE}",
        ),
        (
            lambda c: c.__setitem__("cells", []),
            "cells: is wrong; it takes one [[cells]] table or more",
        ),
        (
            lambda c: c.__setitem__("cells", "x"),
            "cells: is wrong; it takes one [[cells]] table or more",
        ),
    ],
)
def test_wrong_value_is_refused_with_field_and_cure(change: Change, said: str) -> None:
    assert refusal(change) == said


def test_all_problems_are_reported_one_per_line(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["pbxs"][1]["port"] = 70000
        content["cells"][0] |= {"threads": 0, "pbxs": ["pbx02", "pbx3"]}
        content["multcal"] = {}

    with pytest.raises(SettingsRefused) as caught:
        loaded(change)
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'dialer.toml'} has 4 errors:",
        "  pbxs[pbx02].port: 70000 is wrong; it takes a whole number from 1 to 65535",
        "  cells[ASR_TIM].threads: 0 is wrong; it takes a whole number from 1 to 10000",
        "  multcal: there is no such setting; did you mean multcall?",
        "  cells[ASR_TIM].pbxs: there is no PBX pbx3; did you mean pbx02?",
    ]


def test_missing_file_is_reported_with_the_cure() -> None:
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == (
        "dialer.toml: there is no such file. Set DIALER_CONFIG to yours, convert an old "
        "settings.py with `dialer config import settings.py --output dialer.toml`, "
        "or start from the example deploy/dialer.toml"
    )


def test_syntax_error_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "dialer.toml"
    path.write_text("[multcall]\nredis_url = \n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"dialer\.toml: is not TOML: .*line 2"):
        load(path)


def test_unreadable_settings_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes("# ligação".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(tmp_path / "latin.toml")


# --- numbers ------------------------------------------------------------------------------

#: Every numeric field of the file, and how to set it; checked by a test below.
WHERE: dict[tuple[str, str], Callable[[Tables, str, object], object]] = {
    ("Numbers", "national_digits"): lambda c, k, v: c.update(numbers={k: [v]}),
    ("Recovery", "pbx_lost_after"): lambda c, k, v: c["recovery"].update({k: v}),
    **{
        ("Pbx", name): lambda c, k, v: c["pbxs"][0].update({k: v})
        for name in ("port", "max_calls", "cps")
    },
    **{
        ("Cell", name): lambda c, k, v: c["cells"][0].update({k: v})
        for name in (
            "threads",
            "priority",
            "queue_timeout",
            "ring_timeout",
            "timeout_command_response",
            "timeout_command_ack",
            "retries",
            "power_ratio",
        )
    },
    ("Cell", "priorities"): lambda c, k, v: c["cells"][0].update({k: [v]}),
    **{
        ("Limits", name): lambda c, k, v: c["cells"][0]["limits"].update({k: v})
        for name in ("max_attempts_per_number", "attempts_window_hours")
    },
}


def _is_number(annotation: object) -> bool:
    return annotation in (int, float) or any(map(_is_number, get_args(annotation)))


def test_every_number_of_the_file_is_listed() -> None:
    models = {
        model
        for model in vars(settings_tables).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    found = {
        (model.__name__, name)
        for model in models
        for name, field in model.model_fields.items()
        if _is_number(field.annotation)
    }
    assert found == set(WHERE)


@pytest.mark.parametrize(("table", "field"), WHERE)
@pytest.mark.parametrize(
    "number",
    ["nan", "inf", "-inf", "-1", "1e-300", "1e308", "true", "0x" + "f" * 5_000, "1" + "0" * 400],
)
def test_absurd_number_is_refused_with_its_bounds(table: str, field: str, number: str) -> None:
    content = tables()
    WHERE[table, field](content, field, "@")
    path = write(content)
    path.write_text(path.read_text("utf-8").replace('"@"', number), "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    told = str(caught.value)
    assert re.search(rf"\.{field}(\[#1\])?: ", told)
    assert re.search(r"is wrong; it takes .* [0-9.]+ to [0-9]+(, as .*)?$", told)
    assert len(told) < 300
    assert "\n" not in told


def test_a_number_of_5000_digits_gives_one_sentence() -> None:
    path = write(tables())
    path.write_text(f"a = {'9' * 5_000}\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(ConfigError, match="is not TOML: a number in it has too many digits"):
        load(path)
