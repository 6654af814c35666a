"""Conversion of a cell's settings to the text that `CellBook` stores in Redis, and back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from dialer.settings.tables import Cell

logger = logging.getLogger(__name__)


def text_of(cell: Cell) -> str:
    """Return a cell as JSON, without its `redis_url`, which may contain a password.

    Unset fields are omitted, so that another version of the program uses its own defaults.
    """
    return cell.model_dump_json(by_alias=True, exclude={"redis_url"}, exclude_unset=True)


def cells_of(texts: Mapping[str, bytes]) -> list[Cell]:
    """Return the readable cells; warn of each unreadable one. `texts`: name of a cell to JSON."""
    return list(_readable(texts))


def _readable(texts: Mapping[str, bytes]) -> Iterator[Cell]:
    for name, text in texts.items():
        try:
            yield Cell.model_validate_json(text)
        except ValidationError:
            _warn_unreadable(name, text)


@functools.cache  # one warning for each text
def _warn_unreadable(cell: str, _text: bytes) -> None:
    logger.warning(
        "Kept settings of a cell cannot be read; put the cell back into dialer.toml until its "
        "calls are over",
        extra={"cell": cell},
    )
