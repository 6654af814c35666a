"""State of the worker's PBX, and the reason if a cell's calls cannot be dialed on it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from dialer.store.registry import Link
from workers.ami import AmiLink
from workers.pbx.results import Results

#: Who looks for a trouble: the first one with a sentence is reported.
Source = Literal["lease", "clock", "consumer"]


def _new_instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(slots=True)
class PbxState:
    """The state of one PBX. Belongs to the worker's event loop.

    `boot` identifies Asterisk's present start. `has_include` is true if the dialplan include was
    loaded when the link came up, `confirms` if it reports the hand-over. `answered` counts the
    followed calls that are answered now. `lacking` has a sentence with the cure for each cell whose
    target is missing here. `troubles` has sentences with the cure for what prevents all calls
    although the link may be up. `cap` is how many calls `maxcalls` of asterisk.conf leaves room
    for, 0 for no limit. `skew_ms` is this host's clock minus the registry's, `fence` the number of
    the lease, 0 for none. `instance` changes whenever nudges to this PBX may have been lost.
    """

    name: str
    link: AmiLink
    boot: str = ""
    has_include: bool = False
    confirms: bool = False
    answered: Callable[[], int] = lambda: 0
    lacking: dict[str, str] = field(default_factory=dict)
    troubles: dict[Source, str] = field(default_factory=dict)
    cap: int = 0
    skew_ms: int = 0
    fence: int = 0
    results: Results = field(default_factory=Results)
    is_stopping: bool = False
    instance: str = field(default_factory=_new_instance)

    def new_instance(self) -> None:
        """Change `instance`, so that the bridge publishes calls queued here again."""
        self.instance = _new_instance()

    @property
    def trouble(self) -> str:
        """Why no calls are dialed here although the link may be up; empty if nothing is wrong."""
        return next((sentence for sentence in self.troubles.values() if sentence), "")

    @property
    def link_state(self) -> Link:
        """State of the AMI link for the heartbeat."""
        if self.is_stopping:
            return "stopping"
        return "up" if self.link.ready else "down"

    def reason_not_to_dial(self, cell: str) -> str | None:
        """Return why calls of a cell cannot be dialed now, None if they can."""
        if self.is_stopping:
            return f"the worker of {self.name} stops"
        if not self.link.ready:
            return f"the AMI link of {self.name} is down"
        return self.trouble or self.lacking.get(cell)
