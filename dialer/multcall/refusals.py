"""Turns what is wrong with an element into one sentence that names the field."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dialer.errors import InvalidRequest
from dialer.multcall.identity import id_json
from dialer.multcall.rawjson import RawObject

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], found: RawObject) -> Model:
    """The element as a `model`; null is as good as missing.

    Raises:
        InvalidRequest: for the first field that breaks its rule.
    """
    values = {name: value for name, value in found.values.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _first_refusal(error, model, found) from None


def unreadable(found: RawObject) -> InvalidRequest:
    """The refusal of an element that is not one whole JSON object."""
    return InvalidRequest(
        found.fault or "", field=found.fault_field, request_id_json=id_json(found)
    )


def breaks_a_rule(model: type[BaseModel], name: str, found: RawObject) -> InvalidRequest:
    """The refusal of the field `name`, in the words of its description in `model`."""
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
