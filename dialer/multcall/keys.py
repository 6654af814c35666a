"""Names of the Redis keys that Multcall and the dialer share.

Owns the prefix and the six key names of a cell. Knows nothing of what the keys hold
(the other modules of this package) nor of Redis itself (`dialer.store`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: What every shared key starts with; a trailing part names the function, then the cell.
PREFIX: Final = "ZancURA2.0-"


@dataclass(frozen=True, slots=True)
class CellKeys:
    """The six keys of one cell; its name goes in as it is configured, hyphens and all."""

    cell: str

    @property
    def request(self) -> str:
        """Calls to place.

        List, Multcall → dialer. An element lives until the bridge admits or refuses it.
        """
        return f"{PREFIX}Request-{self.cell}"

    @property
    def ack(self) -> str:
        """Word that the PBX accepted a call.

        List, dialer → Multcall. An element lives until Multcall takes it.
        """
        return f"{PREFIX}ACK-{self.cell}"

    @property
    def code(self) -> str:
        """Multcall's own number for an acknowledged call.

        List, Multcall → dialer. An element lives until the bridge takes it.
        """
        return f"{PREFIX}CODLIGACAO-{self.cell}"

    @property
    def response(self) -> str:
        """How a call ended, exactly one for every request.

        List, dialer → Multcall. An element lives until Multcall takes it.
        """
        return f"{PREFIX}Response-{self.cell}"

    @property
    def counter(self) -> str:
        """How many calls are admitted and not yet answered by a Response.

        Integer, written by the dialer, read by anyone. Lives for ever; idle it is 0.
        """
        return f"{PREFIX}Counter-{self.cell}"

    @property
    def counter_ack(self) -> str:
        """How many acknowledged calls have a code that neither came nor timed out.

        Integer, written by the dialer, read by anyone. Lives for ever; idle it is 0.
        """
        return f"{PREFIX}CounterACK-{self.cell}"
