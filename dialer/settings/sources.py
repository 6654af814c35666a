"""Where each value in force comes from, and the settings file with the live values in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import tomlkit
from tomlkit.container import Container
from tomlkit.items import AoT, Item, Table

from dialer.domain.parameters import Parameters, Subject
from dialer.errors import ConfigError
from dialer.settings.live import Live, value_of
from dialer.settings.model import Settings, config_path, parse, variables_of
from dialer.settings.problems import NAMED_BY, Location, read
from dialer.settings.typed import shown

_KINDS: Mapping[str, Any] = {"cells": "cell", "pbxs": "pbx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources of values. `file` is the name of the settings file, `data` are its tables."""

    file: str
    data: Mapping[str, Any]
    variable: Callable[[Location], str | None]
    parameters: Parameters
    live: Live

    @classmethod
    def of(cls, path: Path | None, live: Live, parameters: Parameters) -> Self:
        """Read the sources again from the file and the environment.

        `live` are the settings in force, made of it and these parameters.
        """
        path = path or config_path()
        data = read(path)
        return cls(
            file=path.name,
            data=data,
            variable=variables_of(data),
            parameters=parameters,
            live=live,
        )

    def at(self, location: Location) -> str:
        """Return the source of the value at a location, in a few words."""
        if (live := self._live(location)) is not None:
            return live
        if (variable := self.variable(location)) is not None:
            return variable
        return self.file if self._is_in_file(location) else "default"

    def _live(self, location: Location) -> str | None:
        table, *rest = location
        if not isinstance(table, str) or table not in _KINDS:
            return None
        index, *path = rest
        name = self.data[table][index][NAMED_BY[table]]
        subject = Subject(_KINDS[table], name)
        in_force = self.live.overrides.get(subject, {})
        knobs = ("/".join(map(str, path[:end])) for end in (1, 2))
        knob = next((knob for knob in knobs if knob in in_force), None)
        if knob is None:
            return None
        found = self.parameters.settings(subject)[knob]
        at = datetime.fromtimestamp(found.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"live: change {found.change} by {found.by}, {at}"

    def _is_in_file(self, location: Location) -> bool:
        found: Any = self.data
        for part in location:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True


def with_sources(sources: Sources) -> str:
    """Return the settings in force as TOML, without secrets, each with a comment: its source."""
    tables = sources.live.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    document = tomlkit.parse(tomlkit.dumps(tables))
    _comment(document, (), sources)
    return tomlkit.dumps(document)


def _comment(table: Container, location: Location, sources: Sources) -> None:
    for key in table:
        here, item = (*location, key), table.item(key)  # items() has plain values instead
        if isinstance(item, AoT):
            for index, one in enumerate(item):
                _comment(one.value, (*here, index), sources)
        elif isinstance(item, Table):
            _comment(item.value, here, sources)
        elif isinstance(item, Item):
            item.comment(sources.at(here))


def exported(path: Path, live: Live) -> tuple[str, list[str]]:
    """Return the text of the settings file with the live values in force in it.

    Comments, secrets and values of the environment stay as they are in the file. The second result
    names the live values that a variable of the environment would hide: they are left out.

    Raises:
        ConfigError: the file has a layout in which the values cannot be written.
    """
    hidden: list[str] = []
    try:
        text = _written(path, live, hidden)
        fresh = parse(text, path.parent)
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError):
        fresh, text = None, ""
    if fresh is None or (not hidden and not _is_same(fresh, live.settings)):
        values = "; ".join(
            f"{shown(name)} of {subject}"
            for subject, names in live.overrides.items()
            for name in names
        )
        raise ConfigError(
            f"{path} is written in a way that this command cannot change; put these live values "
            f"into it by hand: {values}; `dialer config show` has them"
        )
    return text, hidden


def _is_same(one: Settings, other: Settings) -> bool:
    """True if both have the same cells and PBXs, and the trunks in the same order."""
    orders = [[[*pbx.trunks] for pbx in each.pbxs] for each in (one, other)]
    return (one.cells, one.pbxs) == (other.cells, other.pbxs) and orders[0] == orders[1]


def _written(path: Path, live: Live, hidden: list[str]) -> str:
    data = read(path)
    variable = variables_of(data)
    document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    for table, kind in _KINDS.items():
        for index, one in enumerate(document.get(table, ())):
            subject = Subject(kind, str(one[NAMED_BY[table]]))
            settings = live.settings
            member = settings.cell(subject.name) if kind == "cell" else settings.pbx(subject.name)
            for name in live.overrides.get(subject, {}):
                source = variable((table, index, *name.split("/")))
                if source is not None:
                    hidden.append(f"{shown(name)} of {subject}, because {source} sets it")
                else:
                    _put(one, name, value_of(member, name))
            if one.get("amd") != "message":
                one.pop("amd_message", None)  # it belongs to "message"
    return tomlkit.dumps(document)


def _put(table: Any, name: str, value: Any) -> None:
    outer, _, inner = name.partition("/")
    if name == "trunks":
        ways = {trunk: table[name][trunk] for trunk in value}
        for trunk in value:
            del table[name][trunk]
        for trunk, way in ways.items():
            table[name].add(trunk, way)
    elif inner:
        table.setdefault(outer, tomlkit.table())[inner] = value
    elif value is None:
        table.pop(name, None)
    else:
        table[name] = value
