"""How this site's Multcall writes and reads: names of fields, and what is accepted leniently.

One object that is passed to whatever reads elements or writes answers. The default is the strict
wire of docs/wire.md, in which the ledger also stores its requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dialer.multcall.fields import PLAIN, Fields
from dialer.multcall.lenient import NOTHING, Lenient
from dialer.multcall.rawjson import RawObject, read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The wire of one site."""

    fields: Fields = PLAIN
    lenient: Lenient = NOTHING

    @property
    def is_strict(self) -> bool:
        """True if elements are as docs/wire.md has them, with our names."""
        return self == STRICT

    def read(self, raw: bytes, known: Sequence[str]) -> RawObject:
        """Parse an element; name its `known` fields as we do."""
        lenient = self.lenient
        found = read_object(lenient.element(raw))
        return self.fields.ours(found, known, any_case=lenient.any_case)


STRICT: Final = Wire()
