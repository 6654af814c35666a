"""JSON Schemas of the messages, generated from the pydantic models that validate them.

`python -m dialer.multcall.schema docs/schemas` writes them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from dialer.multcall.agents import Operador
from dialer.multcall.answers import Ack, Dead, Response
from dialer.multcall.code import CodeMessage
from dialer.multcall.request import Request

#: File name → the message it describes.
MESSAGES: Final[Mapping[str, type[BaseModel]]] = {
    "request.schema.json": Request,
    "ack.schema.json": Ack,
    "codligacao.schema.json": CodeMessage,
    "response.schema.json": Response,
    "dead.schema.json": Dead,
    "operador.schema.json": Operador,
}


class _WithoutFieldTitles(GenerateJsonSchema):
    """Schema generator that adds no titles to fields; their wire name is enough."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's schema (draft 2020-12)."""
    schema = model.model_json_schema(schema_generator=_WithoutFieldTitles)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas into `folder`; create the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, model in MESSAGES.items():
        path = folder / name
        text = json.dumps(schema_of(model), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        written.append(path)
    return written


def main(arguments: Sequence[str]) -> int:
    """Write the schemas into the folder given as the only argument; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m dialer.multcall.schema FOLDER", file=sys.stderr)
        return 2
    for path in write_schemas(Path(arguments[0])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
