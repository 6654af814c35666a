"""Check of the names that a site gives to fields: none unknown, none twice in one message."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from dialer.multcall.answers import Ack, ErrorDetail, Response
from dialer.multcall.code import CodeMessage
from dialer.multcall.fields import Fields
from dialer.multcall.refusals import known
from dialer.multcall.request import Request

#: The messages whose fields can be renamed, by their names in docs/wire.md.
MESSAGES: Final[Mapping[str, type[BaseModel]]] = {
    "Request": Request,
    "ACK": Ack,
    "CODLIGACAO": CodeMessage,
    "Response": Response,
    "Erro": ErrorDetail,
}

#: Every field of these messages, in their order.
FIELDS: Final = tuple(dict.fromkeys(name for model in MESSAGES.values() for name in known(model)))


def clashes(fields: Fields, *, any_case: bool) -> Iterator[str]:
    """Yield a sentence for each name that two fields of one message share.

    With `any_case`, names that differ only in capital and small letters are the same.
    """
    seen: set[tuple[str, ...]] = set()
    for message, model in MESSAGES.items():
        by_name = defaultdict[str, list[str]](list)
        for ours in known(model):
            theirs = fields.name(ours)
            by_name[theirs.casefold() if any_case else theirs].append(ours)
        for same in map(tuple, by_name.values()):
            if len(same) > 1 and same not in seen:
                seen.add(same)
                alike = " (any_case is on)" if fields.name(same[0]) != fields.name(same[1]) else ""
                yield (
                    f"{' and '.join(same)} of {message} are both named {fields.name(same[0])}"
                    f"{alike}; give each its own name"
                )
