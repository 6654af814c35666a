"""Live parameters: values of cells and PBXs that an operator changes while the programs run.

They lie over the values of `dialer.toml`. Each change has a number, the version; the versions are
the audit trail. `dialer.settings.live` says which values are valid, `dialer.store.parameters`
stores them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal

from dialer.errors import DialerError

Kind = Literal["cell", "pbx"]

#: What JSON can write: a live value, as the settings file would have it.
Value = Any


class _OfFile(Enum):
    OF_FILE = "the value of dialer.toml"


#: A value is to be that of the file again.
OF_FILE: Final = _OfFile.OF_FILE

#: A value that is wanted from now on.
Wanted = Value | _OfFile

#: Values that `dialer.toml` may have and an operator may change; `/` leads into a table.
CELL_KNOBS: Final = (
    *("threads", "pbxs", "trunk", "retries", "ring_timeout", "queue_timeout", "amd"),
    *("mode", "power_ratio", "timeout_command_response", "timeout_command_ack"),
    *("limits/calling_hours", "limits/outside_hours"),
)
PBX_KNOBS: Final = ("max_calls", "cps", "governor", "trunks")

#: States that only an operator sets: a paused cell starts no calls, a drained PBX gets none.
PAUSED: Final = "paused"
DRAINED: Final = "drained"

#: The state of each kind.
STATES: Final[Mapping[Kind, str]] = {"cell": PAUSED, "pbx": DRAINED}


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """A cell or a PBX."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{'cell' if self.kind == 'cell' else 'PBX'} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One live value. `change` is the number of the change that set it, at `at_ms` of Redis."""

    value: Value
    change: int
    at_ms: int
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """All live parameters. `version` is the number of the last change, 0 if there was none.

    The values of a subject are by knob, or `paused` and `drained`. `ended` has the values that are
    those of the file again, with the change that ended them and its time, ms.
    """

    version: int = 0
    of: Mapping[Subject, Mapping[str, Setting]] = field(default_factory=dict)
    ended: Mapping[Subject, Mapping[str, tuple[int, int]]] = field(default_factory=dict)

    def settings(self, subject: Subject) -> Mapping[str, Setting]:
        """Return the live settings of a subject, by name."""
        return self.of.get(subject, {})

    def state(self, subject: Subject) -> Setting | None:
        """Return who paused the cell, or drained the PBX; None if nobody did."""
        return self.settings(subject).get(STATES[subject.kind])

    def changed_by(self, subject: Subject, name: str) -> int:
        """Return the number of the last change of a value, 0 if it was never changed."""
        if (setting := self.settings(subject).get(name)) is not None:
            return setting.change
        change, _ = self.ended.get(subject, {}).get(name, (0, 0))
        return change

    def overrides(self, subject: Subject) -> dict[str, Value]:
        """Return the live values of a subject, without its state."""
        return {
            name: setting.value
            for name, setting in self.settings(subject).items()
            if name != STATES[subject.kind]
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One value of a change.

    `old` and `new` are what is in force before and after it. `was_live` is false if the old value
    was that of the file, `is_live` if the new one is.
    """

    name: str
    old: Value
    new: Value
    was_live: bool
    is_live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, as the audit trail has it. `undoes` is the number of the undone change, or 0."""

    number: int
    at_ms: int
    subject: Subject
    edits: Sequence[Edit]
    by: str
    why: str = ""
    undoes: int = 0


class ChangedSince(DialerError):
    """A change cannot be undone, because a later one changed the same value."""

    code = "changed_since"


def state_words(subject: Subject, setting: Setting) -> str:
    """Return who paused a cell or drained a PBX, since when and why, with the cure."""
    since = datetime.fromtimestamp(setting.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    state, command = ("paused", "cells") if subject.kind == "cell" else ("drained", "pbx")
    why = f" ({setting.why})" if setting.why else ""
    return (
        f"{state} by {setting.by} since {since}{why}; `dialer {command} resume {subject.name}` "
        "ends that"
    )


def overlay(file: Mapping[str, Value], overrides: Mapping[str, Value]) -> dict[str, Value]:
    """Return the table of a cell or PBX with live values over those of the file.

    A name with `/` is a value in an inner table. `trunks` of a PBX is a list of names: the same
    trunks in that order, the first is the default. Those that it does not name come after them.
    """
    table = dict(file)
    for name, value in overrides.items():
        outer, _, inner = name.partition("/")
        if inner:
            table[outer] = {**table.get(outer, {}), inner: value}
        elif name == "trunks":
            table[name] = _ordered(table.get(name, {}), value)
        else:
            table[name] = value
    return table


def _ordered(trunks: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    first = {name: trunks[name] for name in names if name in trunks}
    return first | {name: way for name, way in trunks.items() if name not in first}


def undoing(change: Change, parameters: Parameters) -> dict[str, Wanted]:
    """Return the values that undo a change, by name.

    Raises:
        ChangedSince: one of its values was changed by a later change.
    """
    for edit in change.edits:
        by = parameters.changed_by(change.subject, edit.name)
        if by != change.number:
            what = f"{edit.name.rpartition('/')[2]} of {change.subject} was changed"
            if edit.name == STATES[change.subject.kind]:
                what = f"{change.subject} was {edit.name} or resumed"
            raise ChangedSince(
                f"change {change.number} cannot be undone: {what} since then, by change {by}; set "
                "what you want instead"
            )
    return {edit.name: edit.old if edit.was_live else OF_FILE for edit in change.edits}
