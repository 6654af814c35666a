"""Sentences for invalid elements: the field, and what it must be."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dialer.errors import InvalidRequest
from dialer.multcall.identity import id_json
from dialer.multcall.rawjson import RawObject

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], found: RawObject) -> Model:
    """Validate the element as `model`; a field that is null counts as missing.

    Raises:
        InvalidRequest: for the first field that breaks its rule.
    """
    values = {name: value for name, value in found.values.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _first_refusal(error, model, found) from None


def unreadable(found: RawObject) -> InvalidRequest:
    """Return the error for an element that is not one complete JSON object."""
    return InvalidRequest(
        found.fault or "", field=found.fault_field, request_id_json=id_json(found)
    )


def breaks_a_rule(model: type[BaseModel], name: str, found: RawObject) -> InvalidRequest:
    """Return the error for the field `name`, with the rule from its description in `model`."""
    return InvalidRequest(
        f"{name} must be {_rule(model, name)}", field=name, request_id_json=id_json(found)
    )


def _first_refusal(
    error: ValidationError, model: type[BaseModel], found: RawObject
) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        sentence = f"{name} is missing; it must be {_rule(model, name)}"
    elif first["type"] == "variable":
        sentence = first["msg"]
    else:
        return breaks_a_rule(model, name, found)
    return InvalidRequest(sentence, field=name, request_id_json=id_json(found))


def _rule(model: type[BaseModel], name: str) -> str:
    rules = {field.alias: field.description for field in model.model_fields.values()}
    return rules[name] or ""
