"""What this worker knows of its PBX, and why a cell's calls cannot be dialed there now."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field

from dialer.store.registry import Link
from workers.ami import AmiLink


def _new_instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(slots=True)
class PbxState:
    """The state of one PBX. Belongs to the worker's event loop.

    `boot` names Asterisk's present start, `has_include` says whether the dialplan include was
    loaded when the link came up. `lacking` has a sentence, with the cure, for each cell that lacks
    something here. `instance` changes whenever calls that were queued here may have been lost:
    the bridge then sends them again.
    """

    name: str
    link: AmiLink
    boot: str = ""
    has_include: bool = False
    lacking: dict[str, str] = field(default_factory=dict)
    is_stopping: bool = False
    instance: str = field(default_factory=_new_instance)

    def new_instance(self) -> None:
        """Make the bridge send again what was queued here."""
        self.instance = _new_instance()

    @property
    def word(self) -> Link:
        """What the heartbeat says of this PBX."""
        if self.is_stopping:
            return "stopping"
        return "up" if self.link.ready else "down"

    def why_not(self, cell: str) -> str | None:
        """Why calls of a cell cannot be dialed now, None if they can."""
        if self.is_stopping:
            return f"the worker of {self.name} stops"
        if not self.link.ready:
            return f"the AMI link of {self.name} is down"
        return self.lacking.get(cell)
