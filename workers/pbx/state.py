"""State of the worker's PBX, and the reason if a cell's calls cannot be dialed on it."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dialer.domain.limits import Limit
from dialer.domain.why import Obstacle
from dialer.store.registry import Link
from workers.ami import AmiLink
from workers.pbx.clock import RedisClock
from workers.pbx.results import Results

#: A cell whose Redis refused a command is tried again after this time, in seconds.
REFUSED_FOR_S: Final = 10.0


def _new_instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(slots=True)
class PbxState:
    """The state of one PBX. Belongs to the worker's event loop.

    `boot` identifies Asterisk's present start, `asterisk` names the Asterisk for people.
    `has_include` is true if the dialplan include was loaded when the link came up, `confirms` if it
    reports the hand-over. `answered` counts the followed calls that are answered now. `lacking` has
    a sentence with the cure for each cell whose target is missing here, `paused` for each cell that
    an operator paused; `without_agent` says why the operators of the queue prevent a call of a
    cell, '' if they do not; `limits` has the limit of each of those that lacks another thing than a
    target. `looks` are the looks for what prevents all calls although the link may be up, each with
    its limit: it returns a sentence with the cure, or ''. `cap` is how many calls `maxcalls` of
    asterisk.conf leaves room for, 0 for no limit. `instance` changes whenever nudges to this PBX
    may have been lost. `changed_at` is when live parameters last changed, by `monotonic`.
    """

    name: str
    link: AmiLink
    boot: str = ""
    asterisk: str = ""
    has_include: bool = False
    confirms: bool = False
    answered: Callable[[], int] = lambda: 0
    lacking: dict[str, str] = field(default_factory=dict)
    paused: Mapping[str, str] = field(default_factory=dict)
    without_agent: Callable[[str], str] = lambda _: ""
    limits: dict[str, Limit] = field(default_factory=dict)
    looks: list[tuple[Limit, Callable[[], str]]] = field(default_factory=list)
    cap: int = 0
    clock: RedisClock = field(default_factory=RedisClock)
    results: Results = field(default_factory=Results)
    monotonic: Callable[[], float] = time.monotonic
    is_stopping: bool = False
    changed_at: float = -math.inf
    instance: str = field(default_factory=_new_instance)
    #: Cells whose Redis refused a command, with the sentence and the time of that.
    _refused: dict[str, tuple[str, float]] = field(default_factory=dict)

    def new_instance(self) -> None:
        """Change `instance`, so that a verdict on what was before no longer holds."""
        self.instance = _new_instance()

    @property
    def trouble(self) -> str:
        """Why no calls are dialed here although the link may be up; empty if nothing is wrong."""
        found = self.obstacle
        return found.reason if found is not None else ""

    @property
    def obstacle(self) -> Obstacle | None:
        """What prevents all calls although the link may be up; None if nothing is wrong."""
        for limit, look in self.looks:
            if sentence := look():
                return Obstacle(limit=limit, reason=sentence)
        return None

    @property
    def known_limits(self) -> dict[str, Limit]:
        """The limits for the heartbeat: that of all calls as that of '', and those of cells."""
        found = dict.fromkeys(self.refusals(), Limit.REDIS_REFUSES) | self.limits
        obstacle = self.obstacle
        return found | ({"": obstacle.limit} if obstacle is not None else {})

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
        return (
            self.trouble
            or self.paused.get(cell)
            or self.lacking.get(cell)
            or self.refusals().get(cell)
        )

    def reason_not_to_claim(self, cell: str) -> str | None:
        """Return why no further call of a cell may be claimed now, None if one may be.

        A claimed call has its operator, so that only this looks for a free one.
        """
        return self.reason_not_to_dial(cell) or self.without_agent(cell) or None

    def refuse(self, cell: str, error: Exception) -> None:
        """Note that the cell's Redis refused a command: its calls wait or go elsewhere."""
        sentence = (
            f"the Redis of cell {cell} refuses the worker of {self.name} ({error}): "
            "`dialer doctor` on its host says what is missing"
        )
        self._refused[cell] = sentence, self.monotonic()

    def refusals(self) -> dict[str, str]:
        """Return the sentence of each cell whose Redis refused a command a moment ago."""
        since = self.monotonic() - REFUSED_FOR_S
        return {cell: sentence for cell, (sentence, at) in self._refused.items() if at > since}
