"""Names of the Redis keys that Multcall and the dialer share.

Owns the prefix and the key names of a cell. Does not know the content of the keys
(the other modules of this package) or Redis itself (`dialer.store`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: What every shared key starts with; a trailing part names the function, then the cell.
PREFIX: Final = "ZancURA2.0-"


@dataclass(frozen=True, slots=True)
class CellKeys:
    """The keys of one cell; its name is used exactly as configured, hyphens included."""

    cell: str

    @property
    def request(self) -> str:
        """Requests: calls to dial.

        List, Multcall → dialer. An element lives until the bridge admits or refuses it.
        """
        return f"{PREFIX}Request-{self.cell}"

    @property
    def ack(self) -> str:
        """Acknowledgements: the PBX accepted a call.

        List, dialer → Multcall. An element lives until Multcall takes it.
        """
        return f"{PREFIX}ACK-{self.cell}"

    @property
    def code(self) -> str:
        """Codes: Multcall's own number for an acknowledged call.

        List, Multcall → dialer. An element lives until the bridge fetches it.
        """
        return f"{PREFIX}CODLIGACAO-{self.cell}"

    @property
    def response(self) -> str:
        """Responses: the result of a call, exactly one per request.

        List, dialer → Multcall. An element lives until Multcall takes it.
        """
        return f"{PREFIX}Response-{self.cell}"

    @property
    def agents(self) -> str:
        """What each operator does, of cells with `agents = "multcall"`.

        Hash, Multcall → dialer, operator to JSON. Kept by Multcall.
        """
        return f"{PREFIX}Operadores-{self.cell}"

    @property
    def counter(self) -> str:
        """Number of admitted calls whose Response has not been pushed yet.

        Integer, written by the dialer, read by anyone. Kept, without expiry; 0 when idle.
        """
        return f"{PREFIX}Counter-{self.cell}"

    @property
    def counter_ack(self) -> str:
        """Number of acknowledged calls whose code has neither arrived nor timed out.

        Integer, written by the dialer, read by anyone. Kept, without expiry; 0 when idle.
        """
        return f"{PREFIX}CounterACK-{self.cell}"
