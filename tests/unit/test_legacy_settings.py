"""Import of the old `settings.py` by parsing, never by executing it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer.errors import ConfigError
from dialer.settings import Settings
from dialer.settings.legacy import MAX_BYTES, Imported, convert
from tests.unit.sound_settings import clean

OLD = """\
# -*- coding: utf-8 -*-
SETTINGS = {
    'redis_host': '10.0.0.5',
    'redis_port': 6380,
    'Timeout_Command_Response': 25,
    'Timeout_Command_ACK': 12,
    'Retries': 3,
    'queues': [
        {'nome': 'ASR_TIM', 'threads': 100},
        {'nome': 'ura-novoteste2', 'threads': 30},
    ],
    'LOG_LEVEL': 'DEBUG',
    'LOG_LOCATION': '/var/log/dialer',
}
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def converted(text: str | bytes) -> Imported:
    path = Path("settings.py")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return convert(path)


def tables(text: str | bytes) -> dict[str, Any]:
    return tomllib.loads(converted(text).toml)


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        converted(text)
    return str(caught.value)


def test_every_known_value_is_imported() -> None:
    new = tables(OLD)
    assert new["multcall"]["redis_url"] == "redis://10.0.0.5:6380/0"
    assert new["broker"]["url"] == "redis://10.0.0.5:6380/1"
    assert new["log"] == {"level": "DEBUG", "location": "/var/log/dialer", "format": "text"}
    assert [(c["nome"], c["threads"]) for c in new["cells"]] == [
        ("ASR_TIM", 100),
        ("ura-novoteste2", 30),
    ]
    for cell in new["cells"]:
        assert cell["timeout_command_response"] == 25
        assert cell["timeout_command_ack"] == 12
        assert cell["retries"] == 3
    assert converted(OLD).notes == ()


def test_imported_file_lacks_only_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALER_PBX01_SECRET", "hidden")
    found = Settings(**tables(OLD))
    assert found.pbx("pbx01").secret.get_secret_value() == "hidden"
    assert found.pbx("pbx01").max_calls == 130
    assert "DIALER_PBX01_SECRET" in converted(OLD).toml


def test_queues_may_be_a_dict_and_log_names_variables() -> None:
    new = tables(
        "import logging\nLOG_LEVEL = logging.WARNING\nLOG_LOCATION = u'logs'\n"
        "SETTINGS: dict = {'redis_host': '::1', 'redis_port': '6379', 'queues': {'A': 1, 'B': 2}}"
    )
    assert new["log"] == {"level": "WARNING", "location": "logs", "format": "text"}
    assert new["multcall"]["redis_url"] == "redis://[::1]:6379/0"
    assert [(c["nome"], c["threads"]) for c in new["cells"]] == [("A", 1), ("B", 2)]


def test_old_file_may_declare_latin_1() -> None:
    text = "# -*- coding: latin-1 -*-\n# ligação\nSETTINGS = {'queues': {'A': 1}}"
    assert tables(text.encode("latin-1"))["cells"][0]["nome"] == "A"


def test_unknown_key_is_named_without_its_value() -> None:
    imported = converted(
        "LOG_FORMAT = '%(asctime)s\\n%(message)s'\n"
        "SETTINGS = {'queues': [{'nome': 'A', 'threads': 1, 'prio': 3}], 'senha': 'S3cr3t',\n"
        " 'computed': open('/etc/passwd').read(), 'LOG_LEVEL': 'LOUD', 'LOG_LOCATION': '/l/d.log'}"
    )
    assert imported.notes == (
        "'senha' is unknown",
        "'computed' is unknown",
        'LOG_FORMAT was \'%(asctime)s\\n%(message)s\': log.format is now "text" or "json"',
        "redis_host is missing: using 127.0.0.1",
        "'prio' of the queue 'A' is unknown",
        "LOG_LEVEL is none of DEBUG, INFO, WARNING, ERROR, CRITICAL: using INFO",
        "LOG_LOCATION was the file '/l/d.log': each program now writes its own file "
        "into the folder '/l'",
    )
    for note in imported.notes:
        assert f"# - {note}\n" in imported.toml
    assert "S3cr3t" not in imported.toml
    assert tomllib.loads(imported.toml)["log"]["location"] == "/l"


@pytest.mark.parametrize(
    "hostile",
    [
        "open('ran', 'w')\n" + OLD,
        OLD + "\n__import__('pathlib').Path('ran').touch()\n",
        "class X:\n    open('ran', 'w')\n" + OLD,
        "def f(x=open('ran', 'w')): pass\n" + OLD,
        OLD[:-2] + "    'more': open('ran', 'w'),\n}\n",
    ],
)
def test_old_file_is_never_executed(hostile: str) -> None:
    assert tables(hostile)["cells"][0]["nome"] == "ASR_TIM"
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        "open('ran', 'w')",
        "os.environ['REDIS']",
        "'10.0.' + suffix",
        'f\'{open("ran", "w")}\'',
        "[x for x in (1,)]",
        "lambda: 1",
        "HOST",
        "(" * 150 + "x" + ")" * 150,
    ],
)
def test_computed_value_is_refused_in_one_sentence(value: str) -> None:
    said = refusal(f"SETTINGS = {{'queues': {{'A': 1}},\n'redis_host': {value}}}")
    assert said == (
        "settings.py: line 2: SETTINGS['redis_host'] is computed, but the old file is "
        "never executed; replace the expression by its value"
    )
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("X = 1", "has no SETTINGS = {...}; is it the settings.py of the old dialer?"),
        ("SETTINGS = 1", "line 1: SETTINGS is computed, but the old file is never executed"),
        ("SETTINGS = dict(a=1)", "line 1: SETTINGS is computed, but the old file"),
        ("SETTINGS = {**BASE}", "line 1: a key of SETTINGS is not a plain string; write it as one"),
        ("SETTINGS = {}\nSETTINGS['a'] = 1", "line 2: changes SETTINGS after its assignment"),
        ("SETTINGS = {}\nSETTINGS.update(a=1)", "line 2: changes SETTINGS after its assignment"),
        ("SETTINGS = {}\nSETTINGS |= {}", "line 2: changes SETTINGS after its assignment"),
        ("SETTINGS = {}\ndel SETTINGS['a']", "line 2: changes SETTINGS after its assignment"),
        ("SETTINGS = {}", "SETTINGS has no queues, so there is no cell to import"),
        ("SETTINGS = {'queues': []}", "line 1: SETTINGS['queues'] is not a list of"),
        ("SETTINGS = {'queues': ['A']}", "line 1: SETTINGS['queues'][0] is not a {'nome': ..."),
        ("SETTINGS = {'queues': [{'nome': 'A'}]}", "SETTINGS['queues'][0] has no threads"),
        (
            "SETTINGS = {'queues': [{'nome': 'A', 'threads': 1, 5: 'x'}]}",
            "line 1: SETTINGS['queues'][0] has a key that is not text; remove it",
        ),
        ("SETTINGS = {'queues': {'A': 1}, 'LOG_FORMAT': 1}", "SETTINGS['LOG_FORMAT'] is not text"),
        ("SETTINGS = {'queues': {'\\ud800': 1}}", "contains a lone surrogate"),
        ("SETTINGS = {'queues': {'A': 1}, 'redis_host': 1}", "SETTINGS['redis_host'] is not text"),
        (
            "SETTINGS = {'queues': {'A': 1}, 'redis_host': 'a@b/c'}",
            "SETTINGS['redis_host'] and ['redis_port'] are not the address of a Redis",
        ),
        ("SETTINGS = {\nprint 'x'", "is not Python"),
        (b"\x00", "is not Python"),
        (b"\xff\xfe", "is not Python"),
        ("-" * 200_000 + "1", "is not Python"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1000000 bytes"),
    ],
)
def test_useless_old_file_is_refused_in_one_sentence(text: str | bytes, said: str) -> None:
    told = refusal(text)
    assert told.startswith("settings.py: ")
    assert said in told
    assert "\n" not in told


NUMBERS = {
    "Timeout_Command_Response": "seconds from 0.1 to 600",
    "Timeout_Command_ACK": "seconds from 0.1 to 600",
    "Retries": "a whole number from 0 to 10",
    "redis_port": "a whole number from 1 to 65535",
    "threads": "a whole number from 1 to 10000",
}
NO_NUMBERS = (
    "1e999",
    "-1e999",
    "-1.79e308",
    "-1",
    "True",
    "None",
    "[1]",
    "1j",
    "b'1'",
    "'nan'",
    "'inf'",
    "'x'",
    "''",
)
HUGE = f"0x{'f' * 5_000}"  # more digits than Python writes in decimal


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [*NO_NUMBERS, HUGE, f"-{HUGE}", f"'{'9' * 5_000}'"],
)
def test_number_out_of_bounds_is_refused_with_the_cure(key: str, value: str) -> None:
    member = f"'queues': {{'A': {value}}}" if key == "threads" else f"'{key}': {value}"
    where = "['queues'][0]['threads']" if key == "threads" else f"[{key!r}]"
    assert refusal(f"SETTINGS = {{'queues': {{'A': 1}},\n{member}}}") == (
        f"settings.py: line 2: SETTINGS{where} is wrong; it takes {NUMBERS[key]}: "
        "correct it in the old file"
    )


@pytest.mark.parametrize("key", ["Retries", "redis_port", "threads"])
def test_fraction_instead_of_a_whole_number_is_refused(key: str) -> None:
    member = "'queues': {'A': 1.5}" if key == "threads" else f"'{key}': 1.5"
    assert NUMBERS[key] in refusal(f"SETTINGS = {{'queues': {{'A': 1}}, {member}}}")


def test_threads_with_an_infinite_sum_are_refused() -> None:
    said = refusal("SETTINGS = {'queues': {'': -1.79e308, '0': -3.96e304}}")
    assert "SETTINGS['queues'][0]['threads'] is wrong; it takes a whole number" in said


def test_huge_log_level_is_noted() -> None:
    imported = converted(f"SETTINGS = {{'queues': {{'A': 1}}, 'LOG_LEVEL': {HUGE}}}")
    assert imported.notes[-1].endswith("using INFO")


def test_pbx_of_many_threads_has_at_most_10000_calls() -> None:
    assert tables("SETTINGS = {'queues': {'A': 9000, 'B': 9000}}")["pbxs"][0]["max_calls"] == 10_000


def test_missing_old_file_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"^nowhere\.py: cannot be read: No such file"):
        convert(Path("nowhere.py"))


values = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary())


@given(
    st.dictionaries(
        st.sampled_from([*NUMBERS, "redis_host", "LOG_LEVEL", "LOG_FORMAT", "LOG_LOCATION"])
        | st.text(),
        values,
    ),
    st.dictionaries(
        st.text(), st.integers(1, 10_000) | st.integers() | st.floats(allow_nan=False), min_size=1
    ),
)
def test_any_old_file_gives_toml_or_a_config_error(
    members: dict[str, object], queues: dict[str, object]
) -> None:
    text = f"inf = 1\nSETTINGS = {members | {'queues': queues}!r}"
    try:
        imported = converted(text.encode("utf-8", "surrogatepass"))
    except ConfigError:
        return
    assert [c["nome"] for c in tomllib.loads(imported.toml)["cells"]] == list(queues)
