"""Reader of `dialer.toml` and the sentences for everything that can be wrong in it.

A sentence has the file, the field's dotted path with the cell's or PBX's name, the problem and
the cure. Only numbers and names are repeated, never a text value: it may be a misplaced secret.
Reads no environment; variable names are passed in.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dialer.errors import ConfigError

#: Valid names of cells and PBXs; a PBX's name is also its Celery queue.
NAME: Final = r"[A-Za-z0-9_.-]{1,64}"

#: The field with the name of a member, for each list of tables.
NAMED_BY: Final[Mapping[str, str]] = {"pbxs": "name", "cells": "nome"}

#: pydantic's errors for numeric fields, whose value is safe to repeat.
_OUT_OF_RANGE: Final = frozenset(
    {"greater_than", "greater_than_equal", "less_than_equal", "int_from_float"}
)

#: Most digits of a number that an error repeats.
_SHOWN_DIGITS: Final = 32

Location = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: the field's dotted path and a sentence without secrets."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


class SettingsRefused(ConfigError):
    """The settings are wrong; `problems` has all of them, `source` is the file."""

    def __init__(self, problems: Iterable[Problem], *, source: str = "settings") -> None:
        self.problems = tuple(dict.fromkeys(problems))
        self.source = source
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.source} has {len(self.problems)} errors:{lines}"


def read(path: Path) -> dict[str, Any]:
    """Return the file's tables without validation. A byte order mark is skipped.

    Raises:
        ConfigError: the file is missing, cannot be read, or is not TOML.
    """
    problem = ""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        problem = (
            "there is no such file. Set DIALER_CONFIG to yours, convert an old settings.py "
            f"with `dialer config import settings.py --output {path}`, "
            "or start from the example deploy/dialer.toml"
        )
    except UnicodeDecodeError:
        problem = "is not UTF-8 text; save it as UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {error}"
    except ValueError:  # of int(): more digits than Python reads
        problem = "is not TOML: a number in it has too many digits"
    except RecursionError:
        problem = "is not TOML: it is nested too deeply"
    except OSError as error:
        problem = (
            f"cannot be read: {error.strerror}; it must be a file, "
            "readable for the user that this program runs as"
        )
    # Raised outside `except`, so that the parser's exception, which may contain the whole text
    # of the file, is not attached as context.
    raise ConfigError(f"{path}: {problem}")


def line_in(path: Path) -> str:
    """Return the text of a file with one value, without byte order mark and line end.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8 text.
    """
    problem = ""
    try:
        return path.read_bytes().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        problem = "is not UTF-8 text; write the value into it as plain text"
    except OSError as error:
        problem = (
            f"cannot be read: {error.strerror}; it must be a file with the value, "
            "readable for the user that this program runs as"
        )
    # Raised outside `except`: the decoder's exception contains the secret.
    raise ConfigError(f"{path} {problem}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most similar to `word`; None if none is similar."""
    by_fold = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(word.casefold(), by_fold, n=1)
    return by_fold[found[0]] if found else None


def field_names(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the model's fields by their names in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def problems_of(
    error: ValidationError,
    root: type[BaseModel],
    data: Mapping[str, Any],
    origin: Callable[[Location], str | None],
) -> Iterator[Problem]:
    """Convert a pydantic error to problems.

    Args:
        error: raised by pydantic for `root`.
        data: the validated data, for the names of cells and PBXs.
        origin: returns the variable that set the field at a location, None if none did.
    """
    for one in error.errors(include_url=False):
        location = tuple(part for part in one["loc"] if part != "[key]")
        if one["type"] == "too_short" and one["input"]:
            continue  # pydantic counts only valid members, and reports the others separately
        text = _sentence(one["type"], one["input"], one.get("ctx", {}), location, root)
        variable = origin(location)
        yield Problem(
            field=dotted(location, data), text=f"{text} (from {variable})" if variable else text
        )


def dotted(location: Location, data: Mapping[str, Any]) -> str:
    """Format `("cells", 0, "threads")` as `cells[ASR_TIM].threads`; `cells[#1]` if nameless."""
    path = ""
    value: Any = data
    for part in location:
        table = path
        value = _item(value, part)
        if isinstance(part, str):
            word = part if is_name(part) else repr(part)
            path += f".{word}" if path else word
        else:
            name = value.get(NAMED_BY.get(table, "")) if isinstance(value, dict) else None
            path += f"[{name if is_name(name) else f'#{part + 1}'}]"
    return path


def is_name(value: object) -> bool:
    """True if `value` is a valid name of a cell or PBX, so that it is safe to print."""
    return isinstance(value, str) and re.fullmatch(NAME, value) is not None


def _item(value: Any, part: int | str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, Sequence) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _sentence(
    kind: str, given: object, context: Mapping[str, Any], location: Location, root: type[BaseModel]
) -> str:
    owner, field = _owner(location, root)
    if kind == "extra_forbidden":
        return _unknown(str(location[-1]), field_names(owner))
    if kind == "value_error":
        return str(context["error"])
    wrong = "is wrong"
    if kind == "missing":
        wrong = "is missing"
    elif kind in _OUT_OF_RANGE:
        wrong = f"{_shown(given)} is wrong"
    return f"{wrong}; it takes {_takes(field) or 'a table'}"


def _takes(field: FieldInfo | None) -> str | None:
    """Return the field's description; for an optional field it is in the inner annotation."""
    if field is None or field.description is not None:
        return field and field.description
    inner = (FieldInfo.from_annotation(one) for one in get_args(field.annotation))
    return next((one.description for one in inner if one.description is not None), None)


def _shown(number: object) -> str:
    """Return the number as text, cut if it is very long."""
    try:
        text = str(number)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_DIGITS else f"{text[:_SHOWN_DIGITS]}..."


def _unknown(name: str, known: Mapping[str, object]) -> str:
    like = nearest(name, known)
    cure = f"did you mean {like}?" if like else f"known here: {', '.join(known)}"
    return f"there is no such setting; {cure}"


def _owner(location: Location, root: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the model of the path's last field, and the field itself; None if unknown."""
    model, field = root, None
    for part in location:
        if isinstance(part, int):
            continue
        if field is not None:
            inner = model_in(field.annotation)
            if inner is None:
                return model, field
            model = inner
        field = field_names(model).get(part)
        if field is None:
            break
    return model, field


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation, also inside a tuple or an optional; None if none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


def cross_problems(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems between fields: names used twice, references to unknown names.

    Uses the raw values, so that these problems can be reported together with those of single
    fields. Values of a wrong type are skipped here.
    """
    pbxs, cells = _members(data, "pbxs"), _members(data, "cells")
    yield from _twice("pbxs", pbxs, "queue")
    yield from _twice("cells", cells, "cell")
    trunks = {str(pbx["name"]): pbx.get("trunks") for pbx in pbxs}
    for cell in cells:
        yield from _cell_problems(cell, trunks)


def _members(data: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    members = data.get(kind)
    if not isinstance(members, list | tuple):
        return []
    return [m for m in members if isinstance(m, dict) and is_name(m.get(NAMED_BY[kind]))]


def _twice(kind: str, members: list[dict[str, Any]], thing: str) -> Iterator[Problem]:
    key = NAMED_BY[kind]
    for name, times in Counter(member[key] for member in members).items():
        if times > 1:
            text = f"this name is used {times} times; each {thing} needs its own name"
            yield Problem(field=f"{kind}[{name}].{key}", text=text)


def _cell_problems(cell: dict[str, Any], trunks: dict[str, Any]) -> Iterator[Problem]:
    path = f"cells[{cell['nome']}]"
    wanted = cell.get("pbxs")
    names = [n for n in wanted if is_name(n)] if isinstance(wanted, list | tuple) else []
    for name in names:
        if name not in trunks:
            yield Problem(field=f"{path}.pbxs", text=_unknown_pbx(name, trunks))
    if len(set(names)) < len(names):
        yield Problem(field=f"{path}.pbxs", text="lists a PBX twice; list each PBX once")
    known = [t for n in names if isinstance(t := trunks.get(n), dict)]
    trunk = cell.get("trunk")
    if is_name(trunk) and known and not any(trunk in t for t in known):
        every = sorted({str(name) for table in known for name in table if is_name(name)})
        text = f"none of the cell's PBXs has that trunk; they have {', '.join(every)}"
        yield Problem(field=f"{path}.trunk", text=text)


def _unknown_pbx(name: str, known: Iterable[str]) -> str:
    like = nearest(name, known)
    if like:
        return f"there is no PBX {name}; did you mean {like}?"
    # A name unlike all known ones may be a misplaced secret: it is not repeated.
    return f"lists an unknown PBX; known are: {', '.join(known) or 'none'}"
