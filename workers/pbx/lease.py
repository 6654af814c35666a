"""The lease of a PBX: one worker at a time, and a fencing number for the cells' ledgers.

A worker takes the lease at its start and renews it with each heartbeat. Another worker gets it
when the holder stops, is dead, or has been silent for `PBX_DEAD_AFTER_S`; the holder's steps are
fenced then. Owns the rules of that; the atomic steps are in `dialer.store`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Never

from dialer.errors import Fenced, PbxHeld
from dialer.store.ledger.fence import Fence
from dialer.store.registry import PBX_DEAD_AFTER_S, Held, Holder, Registry
from workers.pbx.clock import RedisClock

logger = logging.getLogger(__name__)

#: Pause between two attempts to get the lease of a holder that is silent or stops, in seconds.
TRY_EVERY_S: Final = 0.25

#: A lease that was not renewed for so long no longer counts: another worker may soon have it.
VALID_S: Final = PBX_DEAD_AFTER_S - 2.0


@dataclass(slots=True)
class Pulse:
    """A name of this process that exists exactly as long as the process: an abstract socket.

    Other processes in the same network namespace see at once if the process is dead, whatever its
    pid or host name; also a container that shares the network of a host, as in our compose file.
    """

    place: str = field(default_factory=lambda: _place())
    _socket: socket.socket | None = None

    def start(self, name: str) -> None:
        """Begin to exist under this name; nothing is done on systems without such sockets."""
        if self.place:
            self._socket = _bound(name)

    def is_dead(self, holder: Holder) -> bool:
        """True if the holder ran at this place and runs no longer."""
        if not self.place or holder.place != self.place:
            return False
        found = _bound(holder.name)
        if found is not None:
            found.close()
        return found is not None

    def is_here(self, holder: Holder) -> bool:
        """True if the holder runs at this place."""
        return bool(self.place) and holder.place == self.place and not self.is_dead(holder)

    def stop(self) -> None:
        """Cease to exist."""
        if self._socket is not None:
            self._socket.close()


def _bound(name: str) -> socket.socket | None:
    """Return a socket that occupies the name, None if another process does."""
    new = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        new.bind(f"\0dialer-worker-{name}")
    except OSError:
        new.close()
        return None
    return new


def _place() -> str:
    """Return this boot of this machine and its network namespace, empty if not on Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{os.stat('/proc/self/ns/net').st_ino}"
    except OSError:
        return ""


@dataclass(slots=True)
class PbxLease:
    """The lease of one worker process. Belongs to its event loop."""

    registry: Registry
    fence: Fence
    clock: RedisClock
    pulse: Pulse = field(default_factory=Pulse)
    monotonic: Callable[[], float] = time.monotonic
    me: Holder = field(init=False)
    _renewed_at: float | None = None

    def __post_init__(self) -> None:
        host, pid = socket.gethostname(), str(os.getpid())
        name = f"{self.fence.pbx}-{secrets.token_hex(8)}"
        self.me = Holder(name=name, host=host, pid=pid, place=self.pulse.place)
        self.pulse.start(name)
        self.fence.on_fenced = self._challenge

    async def take(self) -> None:
        """Take the lease; wait for a holder that stops, or that may be dead.

        Raises:
            PbxHeld: another worker has it and lives.
        """
        first: Held | None = None
        since, dead = 0.0, ""
        while not (held := await self._hold(dead=dead)).fence:
            if self.pulse.is_dead(held.holder):
                dead = held.holder.name
                continue
            if first is None or first.holder != held.holder:
                first, since = held, self.monotonic()
                logger.warning(
                    "Waiting for the lease of the PBX; its last worker may be dead",
                    extra={"pbx": self.fence.pbx, "host": held.holder.host, "pid": held.holder.pid},
                )
            is_alive = self.pulse.is_here(held.holder) or held.seen_ms != first.seen_ms
            if is_alive and held.link != "stopping":
                self.pulse.stop()
                raise PbxHeld(_held_by(self.fence.pbx, held))
            if self.monotonic() - since >= PBX_DEAD_AFTER_S:
                dead = held.holder.name  # by our clock: that of Redis was set back
            await asyncio.sleep(TRY_EVERY_S)

    async def _hold(self, *, dead: str = "", above: int = 0) -> Held:
        sent_at = self.monotonic()
        held = await self.registry.hold(self.fence.pbx, self.me, dead=dead, above=above)
        self.clock.hear(held.now_ms, sent_at)
        if held.fence:
            self.fence.number = held.fence
            self._renewed_at = sent_at
        return held

    def renewed(self, sent_at: float) -> None:
        """Note that a heartbeat sent at that time (monotonic) has renewed the lease."""
        self._renewed_at = sent_at

    @property
    def trouble(self) -> str:
        """A sentence with the cure while the lease cannot be renewed, else empty."""
        if self._renewed_at is None or self.monotonic() - self._renewed_at < VALID_S:
            return ""
        return (
            f"the worker of {self.fence.pbx} could not renew its lease for {VALID_S:g} s, because "
            "the registry's Redis does not answer it: see that this host reaches it"
        )

    async def _challenge(self, newest: int) -> None:
        """A cell's Redis has seen a greater number: get a greater one, or give up.

        The registry may have lost its data, or its clock was set back; then this worker is still
        the holder and gets a greater number.
        """
        if newest >= self.fence.number and not (await self._hold(above=newest)).fence:
            self.lost()

    def lost(self) -> Never:
        """Raise `Fenced`, because another worker has the lease."""
        raise Fenced(
            f"another worker has taken over {self.fence.pbx}, because this one was silent for "
            f"{PBX_DEAD_AFTER_S:g} s; this one ends and writes nothing more"
        )

    async def let_go(self) -> None:
        """Return the lease, so that the next worker starts at once."""
        if self.fence.number:
            await self.registry.let_go(self.fence.pbx, self.me.name)


def _held_by(pbx: str, held: Held) -> str:
    other = held.holder
    asterisk = f", on the Asterisk {held.asterisk}" if held.asterisk else ""
    return (
        f"{pbx} has a worker already: pid {other.pid} on host {other.host}{asterisk}. One PBX has "
        "one worker: stop that one first, or correct -Q here (and in a copied service file)"
    )
