"""Sentences for invalid elements: the field, what it must be, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from dialer.domain.numbers import without_separators
from dialer.errors import InvalidRequest
from dialer.multcall.fields import Fields
from dialer.multcall.identity import id_json
from dialer.multcall.lenient import EMPTY_DATE
from dialer.multcall.rawjson import PLAIN_NAME, RawObject

Model = TypeVar("Model", bound=BaseModel)

_NOT_A_NUMBER: Final = "text, not a number: "

_KINDS: Final[tuple[tuple[type, str], ...]] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)


_TEXT: Final = (str,)

#: How a rule begins, and the kinds of values that it is about; any other rule is about text.
_WANTED: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("an integer", (int,)),
    ("a number", (int, float)),
    ("an object", (dict,)),
    ("JSON", (object,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: the field and a sentence about it, both with our names."""

    field: str
    sentence: str


def validated(model: type[Model], found: RawObject, fields: Fields) -> Model | list[Problem]:
    """Validate the element as `model`; a field that is null counts as missing.

    Return all problems if there are any.
    """
    values = {name: value for name, value in found.values.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        return list(_problems(error, model, found, fields))


def refused(problems: Iterable[Problem], found: RawObject, fields: Fields) -> InvalidRequest:
    """Return the error for an element with these problems, in the names of the wire."""
    found_problems = tuple(dict.fromkeys(problems))
    return InvalidRequest(
        *(fields.said(problem.sentence, problem.field) for problem in found_problems),
        field=fields.name(found_problems[0].field),
        request_id_json=id_json(found),
    )


def unreadable(found: RawObject) -> InvalidRequest:
    """Return the error for an element that is not one complete JSON object."""
    return InvalidRequest(
        found.fault or "", field=found.fault_field, request_id_json=id_json(found)
    )


def rule_of(model: type[BaseModel], name: str) -> str:
    """Return what ends the sentence "<field> must be ..."."""
    rules = {field.alias: field.description for field in model.model_fields.values()}
    return rules[name] or ""


def misspelled(model: type[BaseModel], found: RawObject, fields: Fields) -> Iterator[Problem]:
    """Yield the fields that are not there, while the element has one of nearly that name.

    They are problems of an element that is refused anyway. An optional one by itself is a field
    that we do not know, and such are ignored.
    """
    for name in known(model):
        if name not in found.values and (like := _like(name, found, fields)):
            yield Problem(field=name, sentence=f"{name} is missing; {like}")


def _problems(
    error: ValidationError, model: type[BaseModel], found: RawObject, fields: Fields
) -> Iterator[Problem]:
    seen: set[str] = set()
    for one in error.errors(include_url=False, include_input=False):
        name = str(one["loc"][0])
        if name in seen:
            continue
        seen.add(name)
        if one["type"] == "variables":
            for sentence in one["ctx"]["sentences"]:
                yield Problem(field=name, sentence=sentence)
        elif one["type"] == "missing":
            cure = _like(name, found, fields) or f"it must be {rule_of(model, name)}"
            yield Problem(field=name, sentence=f"{name} is missing; {cure}")
        else:
            is_required = next(
                f.is_required() for f in model.model_fields.values() if f.alias == name
            )
            yield breaks_a_rule(model, name, found.values[name], is_required=is_required)
    yield from (one for one in misspelled(model, found, fields) if one.field not in seen)


def breaks_a_rule(
    model: type[BaseModel], name: str, value: object, *, is_required: bool = False
) -> Problem:
    """Return the problem of a field with the rule from its description in `model`."""
    rule = rule_of(model, name)
    if isinstance(value, str):
        rule = rule.removeprefix(_NOT_A_NUMBER)
    details = (_empty(value, is_required=is_required), _kind(rule, value), _form(name, value))
    detail = next((f"; {text}" for text in details if text), "")
    return Problem(field=name, sentence=f"{name} must be {rule}{detail}")


def _empty(value: object, *, is_required: bool) -> str:
    cure = "" if is_required else ": leave the field out"
    if value == "":
        return f"it is empty{cure}"
    if isinstance(value, str) and EMPTY_DATE.fullmatch(value):
        return f"it is the empty date of .NET{cure}"
    if value == 0 and not isinstance(value, bool):
        return "" if is_required else f"it is 0{cure}"
    return ""


def _kind(rule: str, value: object) -> str:
    """Return what kind of value it is, if the rule is about another kind; else ''."""
    wanted = next((kinds for start, kinds in _WANTED if rule.startswith(start)), _TEXT)
    if wanted is _TEXT and "an integer" in rule:
        wanted = (str, int)
    is_said = rule.startswith(_NOT_A_NUMBER) and type(value) in (int, float)
    if is_said or (isinstance(value, wanted) and not isinstance(value, bool)):
        return ""
    kind = next(text for kind, text in _KINDS if isinstance(value, kind))
    if isinstance(value, float) and int in wanted:
        return "it has a decimal point"
    if isinstance(value, str):
        return f"it is {kind}: remove the quotes"
    is_number = type(value) in (int, float)
    return f"it is {kind}: put it in quotes" if is_number and str in wanted else f"it is {kind}"


def _form(name: str, value: object) -> str:
    """Return what is wrong with text of which nearly everything is right; '' if nothing is."""
    if not isinstance(value, str):
        return ""
    if name == "Telefone" and without_separators(value):
        return "leave out blanks and punctuation"
    return ""


def _like(name: str, found: RawObject, fields: Fields) -> str:
    """Return the sentence about a field whose name is nearly `name`; '' if there is none."""
    theirs = fields.name(name)
    safe = [other for other in found.unknown if PLAIN_NAME.fullmatch(other)]
    for other in safe:
        if other.casefold() == theirs.casefold():
            return f"the element has {other}: capital and small letters differ, write {theirs}"
    if theirs != name and name in safe:
        return f"the element has {name}, which [multcall.fields] renames to {theirs}"
    return ""


def known(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the model's fields on our wire."""
    return tuple(field.alias or "" for field in model.model_fields.values())
