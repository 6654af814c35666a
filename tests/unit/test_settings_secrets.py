"""No repr, dump or error shows a secret, in whatever field it is."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dialer.errors import ConfigError
from dialer.settings import Pbx, Settings, load
from dialer.settings.problems import SettingsRefused
from dialer.store.redis_url import RedisAddress
from tests.unit.sound_settings import MARK, clean, loaded, refusal, tables, write


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean(monkeypatch, tmp_path)


def printed(error: BaseException) -> str:
    """All text of an exception that could reach a screen or a log."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        parts += [str(seen), repr(seen), *traceback.format_exception(seen)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(parts)


def test_settings_never_show_a_secret() -> None:
    found = loaded()
    shown = [repr(found), str(found), f"{found}", found.model_dump_json(), repr(found.model_dump())]
    shown += [repr(found.pbxs), repr(found.cells), repr(vars(found)), str(found.multcall)]
    shown += [repr(RedisAddress.parse(found.cell_redis_url(c))) for c in found.cells]
    assert not [text for text in shown if MARK in text]


def test_settings_never_show_a_rabbitmq_password() -> None:
    url = f"amqp://dialer:{MARK}@h:5672/calls"
    found = loaded(lambda content: content["broker"].__setitem__("url", url))
    assert found.broker.url == url
    shown = [repr(found), str(found.broker), found.model_dump_json(), repr(found.model_dump())]
    assert not [text for text in shown if MARK in text]
    assert "amqp://dialer:***@h:5672/calls" in found.model_dump_json()


def test_pydantics_errors_show_no_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        Pbx.model_validate({"name": "p", "secret": MARK + "\n", "trunks": {"t": MARK}, "x": MARK})
    assert MARK not in printed(caught.value)


def test_errors_of_settings_made_in_code_show_no_secret() -> None:
    content = tables()
    content["cells"][0]["threads"] = 0
    with pytest.raises(SettingsRefused) as caught:
        Settings(**content)
    assert MARK not in printed(caught.value)


#: Fields whose text is not secret and is shown unchanged.
PLAIN_TEXT = {"host", "username", "context", "exten", "location", "secret_file", "tls_ca_file"}
NAMES = {"name", "nome", "trunk"}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all values in the file, tables and lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def is_name_place(place: tuple[str | int, ...]) -> bool:
    is_pbx_of_cell = place[0] == "cells" and len(place) > 3 and place[2] == "pbxs"
    return place[-1] in NAMES or is_pbx_of_cell


PLACES = [place for place in places(tables()) if not is_name_place(place)]
TABLE_PLACES = [(), *(p for p in places(tables()) if p[-1] not in NAMES)]


def inside(content: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replaced=st.lists(st.sampled_from(PLACES), min_size=0, max_size=3),
    added=st.lists(st.sampled_from(TABLE_PLACES), min_size=0, max_size=2),
    value=st.sampled_from(
        [
            MARK,
            f"{MARK}\n",
            f"redis://{MARK}@h:x/0",
            f"PJSIP/{MARK}",
            [MARK],
            {"secret": MARK},
            [{"secret": MARK, "calling_hours": MARK}],
        ]
    ),
)
def test_misplaced_secret_is_never_repeated(
    replaced: list[tuple[str | int, ...]],
    added: list[tuple[str | int, ...]],
    value: object,
) -> None:
    content = tables()
    for place in added:
        table = inside(content, place)
        if isinstance(table, dict):
            table["oops"] = deepcopy(value)
    for place in replaced:
        try:
            table = inside(content, place[:-1])
            if isinstance(table, dict) and isinstance(place[-1], int):
                continue  # a list was replaced by a table, in which TOML has no such key
            table[place[-1]] = deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # replaced above it already
    assert MARK not in outcome(write(content))


def outcome(path: Path) -> str:
    """The error for the file, or its settings without their plain text."""
    try:
        found = load(path)
    except ConfigError as error:
        return printed(error)
    plain: Any = {"__all__": PLAIN_TEXT}
    return repr(found.model_dump(exclude={"pbxs": plain, "cells": plain, "log": {"location"}}))


@pytest.mark.parametrize("field", ["secret", "host", "redis_url", "threads"])
def test_number_in_a_text_field_is_not_repeated(field: str) -> None:
    kind = "cells" if field in ("redis_url", "threads") else "pbxs"
    value: object = "77665544" if field == "threads" else 77665544
    said = refusal(lambda c: c[kind][0].__setitem__(field, value))
    assert field in said
    assert ("77665544" in said) == (field == "threads")
