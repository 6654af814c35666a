"""Live parameters over the settings of the file: which values are valid, and what is in force.

The models of the file check the values. What a cell lets Multcall do (`variables`, `contexts`), its
target and all wiring are in the file only: whoever can write to Redis must not change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError

from dialer.domain.parameters import (
    OF_FILE,
    STATES,
    Edit,
    Kind,
    Parameters,
    Setting,
    Subject,
    Value,
    Wanted,
    overlay,
    state_words,
)
from dialer.errors import ConfigError
from dialer.settings.model import Settings
from dialer.settings.problems import (
    Location,
    Problem,
    SettingsRefused,
    cross_problems,
    is_name,
    nearest,
    problems_of,
)
from dialer.settings.tables import Cell, Pbx
from dialer.settings.typed import KNOBS, in_words

#: The table of dialer.toml that each kind is in.
TABLES: Final[Mapping[Kind, str]] = {"cell": "cells", "pbx": "pbxs"}

_Member = Cell | Pbx
_Around = list[dict[str, Any]]
M = TypeVar("M", Cell, Pbx)


@dataclass(frozen=True, kw_only=True)  # no slots: they would leave no room for cached properties
class Live:
    """The settings in force. `paused` and `drained` have who did it, by cell and PBX.

    `overrides` are the live values in force. `problems` are those that are not valid here, such as
    a PBX that the file no longer has: the file's are in force instead.
    """

    settings: Settings
    overrides: Mapping[Subject, Mapping[str, Value]] = field(default_factory=dict)
    paused: Mapping[str, Setting] = field(default_factory=dict)
    drained: Mapping[str, Setting] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @cached_property
    def pauses(self) -> dict[str, str]:
        """Return for each paused cell who paused it, in a sentence with the cure."""
        return {n: state_words(Subject("cell", n), one) for n, one in self.paused.items()}

    @cached_property
    def drains(self) -> dict[str, str]:
        """Return for each drained PBX who drained it, in a sentence with the cure."""
        return {n: state_words(Subject("pbx", n), one) for n, one in self.drained.items()}


def with_parameters(file: Settings, parameters: Parameters) -> Live:
    """Return the settings in force: those of the file with the live parameters over them."""
    if not parameters.of:
        return Live(settings=file)
    found = _Overlay(parameters, _trunks_of(file))
    pbxs = [found.over(pbx, Subject("pbx", pbx.name)) for pbx in file.pbxs]
    fresh = file.model_copy(update={"pbxs": tuple(pbxs)})
    cells = [found.over(cell, Subject("cell", cell.name)) for cell in file.cells]
    return Live(
        settings=fresh.model_copy(update={"cells": tuple(cells)}),
        overrides=found.valid,
        paused=_states("cell", parameters),
        drained=_states("pbx", parameters),
        problems=tuple(found.problems),
    )


def edits(
    file: Settings, parameters: Parameters, subject: Subject, wanted: Mapping[str, Wanted]
) -> list[Edit]:
    """Return what a change would change; values that are as wanted already are left out.

    Live values that are no longer valid do not prevent other changes.

    Raises:
        ConfigError: there is no such cell or PBX.
        SettingsRefused: a value is not valid, or does not go with the others.
    """
    if not _is_in(file, subject) and subject in parameters.of:
        return _edits_of_removed(parameters, subject, wanted)
    live = with_parameters(file, parameters)
    before, present = member_of(live.settings, subject), parameters.settings(subject)
    overrides = {**live.overrides.get(subject, {})}
    for name, value in wanted.items():
        if value is OF_FILE:
            overrides.pop(name, None)
        elif name != STATES[subject.kind]:
            overrides[name] = value
    around = _trunks_of(live.settings)
    after, problems = _overlaid(member_of(file, subject), subject, overrides, around)
    if after is None:
        typed = {name: value for name, value in wanted.items() if value is not OF_FILE}
        found = [in_words(problem, subject, typed) for problem in problems]
        raise SettingsRefused(found, source=str(subject))
    changed: list[Edit] = []
    for name, value in wanted.items():
        is_state = name == STATES[subject.kind]
        was_live, is_live = name in present, value is not OF_FILE
        old = was_live if is_state else value_of(before, name)
        new = is_live if is_state else value_of(after, name)
        if (old, was_live) != (new, is_live):
            changed.append(Edit(name=name, old=old, new=new, was_live=was_live, is_live=is_live))
    return changed


def _edits_of_removed(
    parameters: Parameters, subject: Subject, wanted: Mapping[str, Wanted]
) -> list[Edit]:
    """Return what would change for a cell or PBX that left the file: its live values can end.

    Raises:
        ConfigError: something else is wanted.
    """
    present = parameters.settings(subject)
    if any(value is not OF_FILE for value in wanted.values()):
        raise ConfigError(
            f"{subject} is not in dialer.toml; its live values can only end: KEY= or resume"
        )
    return [
        Edit(name=name, old=present[name].value, new=None, was_live=True, is_live=False)
        for name in wanted
        if name in present
    ]


def value_of(member: BaseModel, name: str) -> Value:
    """Return a value as JSON has it. `name` is a knob."""
    value: Any = member.model_dump(mode="json", by_alias=True)
    for part in name.split("/"):
        value = value[part]
    return [*value] if name == "trunks" else value


# --- one cell or PBX ------------------------------------------------------------------------


def _states(kind: Kind, parameters: Parameters) -> dict[str, Setting]:
    """Return who paused or drained what, also if the file does not have it any longer."""
    found = {one.name: parameters.state(one) for one in parameters.of if one.kind == kind}
    return {name: state for name, state in found.items() if state is not None}


def member_of(settings: Settings, subject: Subject) -> _Member:
    """Return the cell or PBX.

    Raises:
        ConfigError: there is none of that name.
    """
    if subject.kind == "cell":
        return settings.cell(subject.name)
    return settings.pbx(subject.name)


@dataclass(slots=True)
class _Overlay:
    """Puts live values over members of the file; collects those in force, and the problems.

    `around` has the PBXs that a cell may name, with their trunks.
    """

    parameters: Parameters
    around: _Around
    valid: dict[Subject, Mapping[str, Value]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def over(self, member: M, subject: Subject) -> M:
        """Return the member with its valid live values."""
        overrides = self.parameters.overrides(subject)
        if not overrides:
            return member
        whole, _ = _overlaid(member, subject, overrides, self.around)
        if whole is not None:
            self.valid[subject] = overrides
            return cast("M", whole)
        valid: dict[str, Value] = {}
        present: _Member = member
        settings = self.parameters.settings(subject)
        for name in sorted(overrides, key=lambda one: settings[one].change):
            fresh, found = _overlaid(member, subject, {**valid, name: overrides[name]}, self.around)
            self.problems += found
            if fresh is not None:
                valid[name], present = overrides[name], fresh
        self.valid[subject] = valid
        return cast("M", present)


def _overlaid(
    member: _Member, subject: Subject, overrides: Mapping[str, Value], around: _Around
) -> tuple[_Member | None, list[Problem]]:
    """Return the member with these values; None with the problems if they are not valid."""
    try:
        return _checked(member, subject, overrides, around)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Whoever writes to Redis, or a newer release: no bridge or worker may end because of it.
        field = f"{TABLES[subject.kind]}[{subject.name}]"
        return None, [
            Problem(field=field, text=f"a value of a wrong kind ({type(error).__name__})")
        ]


def _checked(
    member: _Member, subject: Subject, overrides: Mapping[str, Value], around: _Around
) -> tuple[_Member | None, list[Problem]]:
    table = _table(member)
    problems = [*_unknown(subject, overrides), *_unknown_trunks(subject, table, overrides)]
    if problems:
        return None, problems
    data = overlay(table, overrides)
    plural = TABLES[subject.kind]
    if data.get("amd") != "message":
        data.pop("amd_message", None)  # it belongs to "message", and the file may have it
    elif "amd_message" not in data:
        text = 'amd = "message" needs amd_message, which is in dialer.toml only'
        return None, [Problem(field=f"{plural}[{subject.name}].amd", text=text)]
    if subject.kind == "cell":
        problems = [*cross_problems({"pbxs": around, "cells": [data]})]
    model = type(member)
    try:
        fresh = model.model_validate(data)
    except ValidationError as error:
        found = problems_of(error, model, data, _nowhere)
        named = f"{plural}[{subject.name}]"
        return None, [
            *(Problem(field=".".join(filter(None, (named, p.field))), text=p.text) for p in found),
            *problems,
        ]
    return (None, problems) if problems else (fresh, [])


def _trunks_of(settings: Settings) -> _Around:
    return [{"name": pbx.name, "trunks": pbx.trunks} for pbx in settings.pbxs]


def _is_in(file: Settings, subject: Subject) -> bool:
    members = file.cells if subject.kind == "cell" else file.pbxs
    return any(member.name == subject.name for member in members)


def _nowhere(_: Location) -> None:
    return None


def _unknown(subject: Subject, overrides: Mapping[str, Value]) -> Iterator[Problem]:
    """Yield the names that are no knobs: a newer release wrote them, or somebody else."""
    for name in overrides:
        if name not in KNOBS[subject.kind]:
            field = f"{TABLES[subject.kind]}[{subject.name}]"
            yield Problem(field=field, text=f"{name!r} is no live parameter of this release")


def _unknown_trunks(
    subject: Subject, table: Mapping[str, Value], overrides: Mapping[str, Value]
) -> Iterator[Problem]:
    if "trunks" not in overrides or subject.kind != "pbx":
        return
    names = overrides["trunks"]
    field, known = f"pbxs[{subject.name}].trunks", table["trunks"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        yield Problem(field=field, text=f"it takes names of its trunks: {', '.join(known)}")
        return
    for name in names:
        if name not in known:
            like = nearest(name, known)
            cure = f"did you mean {like}?" if like else f"it has {', '.join(known)}"
            said = name if is_name(name) else repr(name)
            yield Problem(field=field, text=f"{subject.name} has no trunk {said}; {cure}")


def _table(member: BaseModel) -> dict[str, Value]:
    """Return the set fields of a model as Python values, secrets and URLs as they are."""
    names = {name: field.alias or name for name, field in type(member).model_fields.items()}
    found = {names[name]: getattr(member, name) for name in member.model_fields_set}
    limits = found.get("limits")
    return found | ({"limits": _table(limits)} if isinstance(limits, BaseModel) else {})
