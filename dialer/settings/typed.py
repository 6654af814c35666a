"""Live values as an operator types them: `threads=30`, `pbxs=pbx01,pbx02`, hours in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from dialer.domain.parameters import (
    CELL_KNOBS,
    OF_FILE,
    PBX_KNOBS,
    STATES,
    Kind,
    Subject,
    Value,
    Wanted,
)
from dialer.errors import ConfigError
from dialer.settings.problems import Problem, field_names, nearest
from dialer.settings.tables import WEEKDAYS, Cell, Limits, Pbx

KNOBS: Final[Mapping[Kind, tuple[str, ...]]] = {"cell": CELL_KNOBS, "pbx": PBX_KNOBS}

_HOURS_KNOB: Final = "limits/calling_hours"

#: Values that are whole numbers, decimal numbers, true or false, lists of names.
_WHOLE: Final = frozenset({"threads", "retries", "ring_timeout", "queue_timeout", "max_calls"})
_DECIMAL: Final = frozenset(
    {"cps", "power_ratio", "timeout_command_response", "timeout_command_ack"}
)
_FLAGS: Final = frozenset({"governor"})
_LISTS: Final = frozenset({"pbxs", "trunks"})

#: Values that are one of some words.
_WORDS: Final = frozenset({"amd", "mode", "limits/outside_hours"})

#: What a value takes, for an operator; the sentences of the file have its quotes and brackets.
_TAKES: Final[Mapping[str, str]] = {
    "pbxs": "names of PBXs with commas, as pbxs=pbx01,pbx02",
    "trunk": "a trunk of its PBXs, or none for the default of each PBX",
    "amd": "off, hangup, message or pass",
    "mode": "ura, progressive or power",
    "limits/outside_hours": "hold or expire",
    _HOURS_KNOB: "days and times in quotes, as 'mon-fri 08:00-20:00; sat 08:00-14:00'",
    "governor": "true or false",
}

_EXAMPLES: Final[Mapping[Kind, str]] = {"cell": "threads=30", "pbx": "max_calls=60"}

#: Days in English and Portuguese, by their first letters.
_DAYS: Final[Mapping[str, str]] = {
    **{day: day for day in WEEKDAYS},
    "seg": "mon",
    "ter": "tue",
    "qua": "wed",
    "qui": "thu",
    "sex": "fri",
    "sab": "sat",
    "sáb": "sat",
    "dom": "sun",
}
_EVERY_DAY: Final = frozenset({"daily", "every day", "todos", "todo dia", "all"})

_HOURS: Final = re.compile(
    r"(?P<days>[^0-9]+?)\s*(?P<first>[0-9]{1,2}:[0-9]{2})\s*-\s*(?P<last>[0-9]{1,2}:[0-9]{2})"
)


def wanted(kind: Kind, pairs: Iterable[str]) -> dict[str, Wanted]:
    """Read `KEY=VALUE` as an operator types it; without a value: the file's again.

    Raises:
        ConfigError: there is no such live parameter, or the text is no value of it.
    """
    found: dict[str, Wanted] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(
                f"{pair!r} is not KEY=VALUE; write, for example, {_EXAMPLES[kind]}: no blanks "
                "around the =, commas between names, and quotes around a value with blanks"
            )
        name = _knob(kind, key.strip())
        if name in found:
            raise ConfigError(f"{shown(name)} is given twice; give one value")
        found[name] = _read(name, text.strip()) if text.strip() else OF_FILE
    if not found:
        raise ConfigError(f"nothing to set; write, for example, {_EXAMPLES[kind]}")
    return found


def shown(name: str) -> str:
    """Return a knob's name as an operator types it."""
    return name.rpartition("/")[2]


def value_words(name: str, value: Value) -> str:
    """Return a value as an operator types it; `name` is a knob or a state."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if name == _HOURS_KNOB and isinstance(value, list):
        return "; ".join(_hours_words(hours) for hours in value) or "any time"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def in_words(problem: Problem, subject: Subject, typed: Mapping[str, Value]) -> Problem:
    """Return a problem of the file's models in the words of the command that set the values."""
    path = problem.field.partition("]")[2].lstrip(".").replace(".", "/")
    name = next(
        (one for one in typed if path == one or path.startswith((f"{one}[", f"{one}/"))), ""
    )
    if not name:
        return problem
    text = problem.text
    what, _, takes = text.partition("; it takes ")
    if what.endswith("is wrong"):
        text = f"{value_words(name, typed[name])!r} is wrong; it takes {_TAKES.get(name, takes)}"
    return replace(problem, field=shown(name), text=text)


def _hours_words(hours: object) -> str:
    if not isinstance(hours, Mapping) or not isinstance(hours.get("days"), list | tuple):
        return str(hours)  # of another release
    return f"{','.join(map(str, hours['days']))} {hours.get('from')}-{hours.get('to')}"


# --- names ----------------------------------------------------------------------------------


def _knob(kind: Kind, key: str) -> str:
    by_name = {shown(knob): knob for knob in KNOBS[kind]}
    by_name |= {knob.replace("/", "."): knob for knob in KNOBS[kind]}
    if (found := by_name.get(key)) is not None:
        return found
    raise ConfigError(_no_knob(kind, key, by_name))


def _no_knob(kind: Kind, key: str, known: Mapping[str, str]) -> str:
    thing, other = ("cell", "PBX") if kind == "cell" else ("PBX", "cell")
    other_kind: Kind = "pbx" if kind == "cell" else "cell"
    in_file = field_names(Cell if kind == "cell" else Pbx)
    if kind == "cell":
        in_file |= field_names(Limits)
        in_file |= {f"limits.{name}": one for name, one in field_names(Limits).items()}
    if key in in_file:
        return (
            f"{key} of a {thing} is in dialer.toml only: change it there, and reload the bridges "
            "and workers"
        )
    if key in map(shown, KNOBS[other_kind]):
        command = "dialer pbx set" if kind == "cell" else "dialer cells set"
        return f"{key} is a value of a {other}: {command} <{other}> {key}=<value>"
    if key in {STATES["cell"], STATES["pbx"], "pause", "drain"}:
        return f"{key!r} is no value: dialer cells pause <cell>, dialer pbx drain <PBX>"
    like = nearest(key, known)
    every = ", ".join(map(shown, KNOBS[kind]))
    return f"a {thing} has no live parameter {key!r}; " + (
        f"did you mean {like}?" if like else f"there are {every}"
    )


# --- values ---------------------------------------------------------------------------------


def _read(name: str, text: str) -> Value:
    if name in _WHOLE:
        return _whole(name, text)
    if name in _DECIMAL:
        return _decimal(name, text)
    if name in _FLAGS:
        return {"true": True, "false": False}.get(text.casefold(), text)
    if name in _WORDS:
        return text.casefold()
    if name == _HOURS_KNOB:
        return _hours(text)
    if name in _LISTS:
        return [part for part in re.split(r"""[,;\s\[\]"']+""", text) if part]
    return None if text.casefold() in {"none", "null"} else text


def _whole(name: str, text: str) -> Value:
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,14})", text):
        return int(text)
    raise ConfigError(
        f"{name}: {text!r} is no whole number; write digits only, as 1000: no point, no comma, no "
        "unit"
    )


def _decimal(name: str, text: str) -> Value:
    if re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", text):
        raise ConfigError(
            f"{name}: {text!r} is not clear; write {text.replace('.', '')} or {float(text):g}"
        )
    if re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return float(text) if "." in text else int(text)
    if re.fullmatch(r"-?[0-9]+,[0-9]+", text):
        raise ConfigError(f"{name}: {text!r} has a comma; write {text.replace(',', '.')}")
    raise ConfigError(f"{name}: {text!r} is no number; write digits and a point, as 2.5: no unit")


def _hours(text: str) -> list[dict[str, Value]]:
    """Read hours such as `mon-fri 08:00-20:00; sat 08:00-14:00`, or `any time`."""
    plain = re.sub("[\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}]", "-", text).strip("'\" ")
    if plain.casefold() in {"any time", "[]"}:
        return []
    found = []
    for part in filter(str.strip, plain.split(";")):
        match = _HOURS.fullmatch(part.strip())
        if match is None:
            raise ConfigError(
                f"calling_hours: {part.strip()!r} is wrong; write {_TAKES[_HOURS_KNOB]}; 'any "
                "time' for no hours. To place no calls at all: dialer cells pause"
            )
        first, last = (match[end].rjust(5, "0") for end in ("first", "last"))
        found.append({"days": [*_days(match["days"])], "from": first, "to": last})
    return found


def _days(text: str) -> Iterator[str]:
    if text.strip().casefold() in _EVERY_DAY:
        yield from WEEKDAYS
        return
    for part in text.casefold().split(","):
        first, _, last = (day.strip() for day in part.partition("-"))
        start, end = (WEEKDAYS.index(_day(day)) for day in (first, last or first))
        yield from (WEEKDAYS[(start + n) % 7] for n in range((end - start) % 7 + 1))


def _day(text: str) -> str:
    found = _DAYS.get(text[:3])
    if found is None or not text.isalpha():
        raise ConfigError(
            f"calling_hours: {text!r} is no day; days are {', '.join(WEEKDAYS)}, and mon-fri for "
            "several"
        )
    return found
