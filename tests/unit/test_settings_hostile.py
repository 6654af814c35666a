"""No bytes in dialer.toml, in a credentials file or in the environment end in a traceback."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import tomlkit

from dialer.errors import ConfigError
from dialer.settings import load, stray_variables
from dialer.settings.advice import advice
from tests.unit.sound_settings import MARK, clean, pbx, refusal, tables, write

PIECES = [
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b'"', b"="),
    *(b"9" * 5000, b"[" * 5000, b"{a=" * 3000, b"\\ud800", b'"\\uD800"', b"1e999", b"nan"),
    *(b"a.b.c.d.e=1\n", b"[multcall]\n", b"[[cells]]\n"),
]

VALUES = [
    *(b"\xff", b"\xed\xa0\x80", b"{" * 6000, b"[" * 60_000, b'{"a":' * 20_000, b"9" * 5000),
    *(b"null", b"true", b'"x"', b"{}", b"[]", b'{"\\ud800":1}', b'["\\ud800"]', b""),
    *(b'{"a":"\\u0000"}', b"\xef\xbb\xbf{}", b"redis://\xff", b"redis://[", b"NaN"),
    *(b"redis://h:99999999999/0", b'{"Telefone":1}', b'[["a"]]', b'[{"name":"pbx01"}]'),
]

VARIABLES = [
    *("DIALER_MULTCALL", "DIALER_MULTCALL__REDIS_URL", "DIALER_MULTCALL__FIELDS"),
    *("DIALER_MULTCALL__LENIENT", "DIALER_MULTCALL__LENIENT__ALL", "DIALER_NUMBERS"),
    *("DIALER_NUMBERS__NATIONAL_DIGITS", "DIALER_PBX01_SECRET", "DIALER_PBX01_TRUNKS"),
    *("DIALER_ASR_TIM_PBXS", "DIALER_ASR_TIM_LIMITS", "DIALER_ASR_TIM_LIMITS__TIME_ZONE"),
    *("DIALER_CELLS", "DIALER_LOG__LOCATION", "DIALER_BROKER__URL", "DIALER___"),
]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def check(path: Path) -> None:
    """Whatever is wrong is a ConfigError, without a secret."""
    try:
        settings = load(path)
        list(advice(settings.pbxs, settings.cells))
        stray_variables(settings)
    except ConfigError as error:
        if MARK in str(error):
            pytest.fail("the sentence has a secret in it")


def test_damaged_files_are_refused_with_a_sentence() -> None:
    rng = random.Random(1)
    sound = tomlkit.dumps(tables()).encode()
    path = Path("dialer.toml")
    for _ in range(400):
        content = bytearray(sound)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.choice([0, 0, 3, 10])] = rng.choice(PIECES)
        path.write_bytes(bytes(content))
        check(path)


@pytest.mark.parametrize("text", [b"a = " + b"[" * 20_000, b"a = " + b"{a=" * 20_000])
def test_deep_nesting_is_refused_with_a_sentence(text: bytes) -> None:
    Path("dialer.toml").write_bytes(text)
    with pytest.raises(ConfigError, match="is not TOML: it is nested too deeply"):
        load()


def test_a_byte_order_mark_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = tables()
    del content["pbxs"][0]["secret"]
    path = write(content)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "DIALER_PBX01_SECRET").write_bytes(b"\xef\xbb\xbfabc\r\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    assert load(path).pbx("pbx01").secret.get_secret_value() == "abc"


@pytest.mark.parametrize("variable", VARIABLES)
def test_hostile_variables_are_refused_with_a_sentence(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tables())
    for value in VALUES:
        monkeypatch.setenv(variable, os.fsdecode(value))
        check(path)
    monkeypatch.delenv(variable)
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    for value in [*VALUES, b"\x00", b"a\x00b", b"x\n\n"]:
        (folder / variable).write_bytes(value)
        check(path)


@pytest.mark.parametrize("field", ["secret_file", "tls_ca_file"])
def test_a_path_with_nul_is_refused(field: str) -> None:
    said = refusal(pbx(field, "a\x00b"))
    assert f"pbxs[pbx01].{field}: contains a control character; it takes plain text" in said


def test_a_switch_in_the_environment_is_no_stray_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_MULTCALL__LENIENT__ALL", "true")
    monkeypatch.setenv("DIALER_MULTCALL__FIELDS", '{"Telefone": "Phone"}')
    monkeypatch.setenv("DIALER_NUMBERS__COUNTRY", "55")
    settings = load(write(tables()))
    assert settings.multcall.wire.lenient.any_case
    assert settings.multcall.wire.fields.name("Telefone") == "Phone"
    assert settings.numbers.numbering.same("11900000010") == "5511900000010"
    assert stray_variables(settings) == []
