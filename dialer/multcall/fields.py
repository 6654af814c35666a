"""Names of the fields on the wire: ours, or those that `[multcall.fields]` gives them.

Everything else in this package uses our names. Elements that come in are renamed once, when they
are read; answers and error sentences take the site's names when they are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dialer.multcall.rawjson import RawObject


@dataclass(frozen=True, slots=True)
class Fields:
    """`renamed` has the site's name for each field that is renamed, by our name."""

    renamed: Mapping[str, str] = field(default_factory=dict)

    def name(self, ours: str) -> str:
        """Return the field's name on the wire."""
        return self.renamed.get(ours, ours)

    def key(self, ours: str) -> str:
        """Return the field's name on the wire as JSON text."""
        theirs = self.renamed.get(ours)
        return f'"{ours}"' if theirs is None else json.dumps(theirs, ensure_ascii=False)

    def said(self, sentence: str, ours: str) -> str:
        """Return a sentence about the field `ours` with its name on the wire."""
        theirs = self.name(ours)
        return sentence if theirs == ours else sentence.replace(ours, theirs, 1)

    def ours(self, found: RawObject, known: Iterable[str], *, any_case: bool = False) -> RawObject:
        """Return the element with our names for the `known` fields, and without other fields.

        With `any_case` a field that is not there by its exact name is looked for without regard
        to capital and small letters. The other names are in `unknown`.
        """
        sent: dict[str, str] = {}  # our name: the name in the element
        folded: dict[str, str] = {}
        if any_case:
            folded = {name.casefold(): name for name in found.values}
        for ours in known:
            theirs = self.name(ours)
            if theirs in found.values:
                sent[ours] = theirs
            elif (like := folded.get(theirs.casefold())) is not None:
                sent[ours] = like
        used = set(sent.values())
        return replace(
            found,
            values={ours: found.values[theirs] for ours, theirs in sent.items()},
            spans={ours: found.spans[theirs] for ours, theirs in sent.items()},
            unknown=tuple(name for name in found.values if name not in used),
        )


#: Our own names.
PLAIN: Final = Fields()
