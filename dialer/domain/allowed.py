"""Rules for a request's variables, contexts, extensions and priorities. Default: deny.

Owns the rules and their error sentences. The bridge applies them at admission, the worker again
before the Originate. The generated list `asterisk_names` has the names with a meaning in Asterisk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from dialer.domain.asterisk_names import ASTERISK_NAMES
from dialer.domain.request import CallRequest

#: Variables that every cell allows: names with Multcall's own prefix.
ALWAYS: Final = "MC_*"

_LISTED: Final = ASTERISK_NAMES.split()
_NAMES: Final = frozenset(name for name in _LISTED if name[-1] not in "*#")
_FAMILIES: Final = tuple(name[:-1] for name in _LISTED if name[-1] == "*")
_NUMBERED: Final = tuple(name[:-1] for name in _LISTED if name[-1] == "#")

#: Meaning of the characters of an Asterisk extension pattern.
_PATTERN: Final = {"X": "[0-9]", "Z": "[1-9]", "N": "[2-9]", ".": ".+", "!": ".*"}
_PATTERN_PART: Final = re.compile(
    r"\[(?:[0-9A-Za-z*#+]-[0-9A-Za-z*#+]|[0-9A-Za-z*#+])+\]|[.!]$|[A-Za-z0-9*#+]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Reason for refusing a request: the field on the wire, and a sentence with the cure."""

    field: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Rules of one cell. `variables` are names and `NAME*`; `extensions` as in extensions.conf.

    Fields missing in a request get the cell's own values and need no rule.
    """

    variables: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()

    def refusal(self, request: CallRequest) -> Refusal | None:
        """Return the first broken rule; None if the request breaks none."""
        return next(self.refusals(request), None)

    def refusals(self, request: CallRequest) -> Iterator[Refusal]:
        """Yield every broken rule."""
        for name, _ in request.variables:
            if sentence := self._wrong_variable(name):
                yield Refusal(field="Variaveis", sentence=sentence)
        if request.context is not None and request.context not in self.contexts:
            yield _outside("Contexto", request.context, "contexts", self.contexts)
        if request.exten is not None and not is_extension_in(request.exten, self.extensions):
            yield _outside("Extensao", request.exten, "extensions", self.extensions)
        if request.priority is not None and request.priority not in self.priorities:
            yield _outside("Prioridade", request.priority, "priorities", self.priorities)

    def _wrong_variable(self, name: str) -> str | None:
        """Return the sentence if the name is refused. Ignore leading underscores (inheritance)."""
        bare = name.lstrip("_")
        if meant := asterisk_name_in(bare):
            return f"Variaveis.{name}: Asterisk gives {meant} a meaning of its own; rename it"
        if any(_is_covered(bare, entry) for entry in (ALWAYS, *self.variables)):
            return None
        return (
            f"Variaveis.{name}: this cell takes only {', '.join((ALWAYS, *self.variables))}; "
            "rename it, or add it to the cell's variables in dialer.toml"
        )


def asterisk_name_in(entry: str) -> str | None:
    """Return the first name with a meaning in Asterisk that `entry` (a name or `NAME*`) covers.

    Ignores case. None if it covers none.
    """
    text = entry.upper()
    return _covered_by_prefix(text[:-1]) if text.endswith("*") else _meant_by(text)


def is_extension_in(exten: str, patterns: Iterable[str]) -> bool:
    """True if a pattern matches the whole extension. Raise ValueError for a wrong pattern."""
    return any(extension_regex(pattern).fullmatch(exten) for pattern in patterns)


@cache
def extension_regex(pattern: str) -> re.Pattern[str]:
    """Compile an extension of extensions.conf: literal text, or `_` and a pattern.

    X is 0-9, Z 1-9, N 2-9, `[1-5]` one of a set; at the end, `.` is one or more characters and
    `!` any number of them.

    Raises:
        ValueError: the pattern is wrong.
    """
    if not pattern.startswith("_"):
        return re.compile(re.escape(pattern))
    parts = _PATTERN_PART.findall(pattern)
    try:
        if parts and "_" + "".join(parts) == pattern:
            return re.compile("".join(_part_regex(part) for part in parts))
    except re.error:  # a reversed range, such as [5-1]
        pass
    raise ValueError("is not a pattern of extensions.conf; it takes one such as _2XXX or _0[1-5]X.")


def _part_regex(part: str) -> str:
    return part if part.startswith("[") else _PATTERN.get(part.upper(), re.escape(part))


def _is_covered(name: str, entry: str) -> bool:
    """True if the entry equals the name, or is `NAME*` with a prefix of it; case-sensitive."""
    return name.startswith(entry[:-1]) if entry.endswith("*") else name == entry


def _meant_by(name: str) -> str | None:
    if name in _NAMES:
        return name
    for family in _FAMILIES:
        if name.startswith(family):
            return f"{family}*"
    stem = name.rstrip("0123456789")
    return name if stem != name and stem in _NUMBERED else None


def _covered_by_prefix(prefix: str) -> str | None:
    """Like `_meant_by`, for all names with that prefix."""
    if meant := _meant_by(prefix):
        return meant
    stems = (*_NAMES, *(f"{family}*" for family in _FAMILIES), *(f"{stem}1" for stem in _NUMBERED))
    return min((name for name in stems if name.startswith(prefix)), default=None)


def _outside(field: str, value: object, setting: str, known: Iterable[object]) -> Refusal:
    takes = ", ".join(map(str, known)) or "none"
    return Refusal(
        field=field,
        sentence=f"{field} {value} is not allowed: this cell takes {takes}; "
        f"add it to the cell's {setting} in dialer.toml",
    )
