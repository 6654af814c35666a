"""Simulated Asterisk: an AMI server on a real TCP port, with calls in real time.

Production code runs against it unmodified. Connects the parts (`session`: connections,
`actions`: responses, `calls`: calls) and owns the methods that inject faults. Does not know
Redis, Celery or Multcall.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Final

from dialer.simulation.pbx.actions import Exchange
from dialer.simulation.pbx.calls import AstDb, CallFloor
from dialer.simulation.pbx.events import Event, event_mask, shutdown
from dialer.simulation.pbx.filters import parse_filter
from dialer.simulation.pbx.outcomes import VERSIONS, Version
from dialer.simulation.pbx.session import AmiSession
from dialer.simulation.pbx.timing import CallHabits

UPTIME_AT_START_S: Final = 3600.0
"""A new simulated PBX reports an uptime of one hour, so that a restart is visible at once."""
_BACKLOG: Final = 512


class SimulatedPbx:
    """One simulated Asterisk.

    Ranges are (shortest, longest) in seconds. `include` is false to simulate a missing dialplan
    include: then no note is written to AstDB. `maxcalls` is that of asterisk.conf, 0 for none:
    calls answered beyond it never enter the dialplan. `read` and `write` are the AMI user's
    permissions as in manager.conf, `eventfilter` its lines of that name.
    """

    def __init__(
        self,
        *,
        name: str = "pbx01",
        host: str = "127.0.0.1",
        port: int = 0,
        username: str = "dialer",
        secret: str = "secret",
        version: Version = "22",
        ring_time: tuple[float, float] = (1.0, 4.0),
        talk_time: tuple[float, float] = (2.0, 8.0),
        reject_time: tuple[float, float] = (0.05, 0.3),
        long_talk: float = 300.0,
        seed: int | None = 1,
        include: bool = True,
        maxcalls: int = 0,
        read: str = "all",
        write: str = "all",
        eventfilter: Sequence[str] = (),
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(f"no such Asterisk version: {version}; known: {list(VERSIONS)}")
        self.name = name
        self.host = host
        self.port = port
        self.is_hung = False
        self.astdb: AstDb = {}
        self._sessions: set[AmiSession] = set()
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        habits = CallHabits(
            version=version,
            ring_time_s=ring_time,
            talk_time_s=talk_time,
            reject_time_s=reject_time,
            long_talk_s=long_talk,
            is_dialplan_included=include,
            maxcalls=maxcalls,
        )
        floor = CallFloor(habits=habits, publish=self._publish, astdb=self.astdb, seed=seed)
        self.exchange = Exchange(
            name=name,
            username=username,
            secret=secret,
            floor=floor,
            astdb=self.astdb,
            started_at=time.time() - UPTIME_AT_START_S,
            read_permissions=event_mask(read) or 0,
            write_permissions=event_mask(write) or 0,
            eventfilters=[parse_filter(line) for line in eventfilter],
        )

    # Running -------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; afterwards `port` is the real port."""
        listener = self._bind()
        self.port = listener.getsockname()[1]
        await self._listen(listener)

    async def stop(self) -> None:
        """Close everything; calls end without events."""
        await self._settled()
        self._close_listener()
        self.drop_links()
        self.exchange.floor.vanish()
        # One iteration of the loop, so that the transports are closed too.
        await asyncio.sleep(0)

    async def __aenter__(self) -> SimulatedPbx:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Switches ------------------------------------------------------------------------

    def drop_links(self) -> None:
        """Abort all AMI connections; calls continue."""
        for session in tuple(self._sessions):
            session.drop()

    def hang(self) -> None:
        """Stop reading and writing; TCP stays open and calls continue."""
        self.is_hung = True
        for session in self._sessions:
            session.hang()

    def unhang(self) -> None:
        """Resume: send the queued output, execute the received actions."""
        self.is_hung = False
        for session in self._sessions:
            session.unhang()

    def slow_down(self, capacity: float | None) -> None:
        """Start at most so many calls a second from now on; None: any number.

        Calls beyond that wait, replies come late, and what waits too long starves: it rings when
        nobody expects it any longer.
        """
        self.exchange.floor.workload.change(capacity, time.monotonic())

    def restart(self, *, is_clean: bool = False) -> None:
        """Restart: drop calls, close links, change the start time, keep AstDB.

        A clean restart sends Shutdown first; a crash sends nothing. The start time advances by
        at least one second, because AMI reports whole seconds.
        """
        exchange = self.exchange
        if is_clean:
            for session in self._sessions:
                session.send(shutdown(is_restart=True).text)
                session.close_gently()
        else:
            self.drop_links()
        exchange.floor.vanish()
        exchange.started_at = max(time.time(), exchange.started_at + 1)
        self.is_hung = False

    def refuse_connections(self, refuse: bool) -> None:
        """Close the listening port, or open it again; existing links stay up.

        The port listens before this returns; connections get the banner one iteration of the
        loop later.
        """
        if refuse:
            self._close_listener()
        elif self._server is None and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._listen(self._bind()))

    # Counts for tests ----------------------------------------------------------------

    @property
    def rings(self) -> Counter[str]:
        """How many times each number was dialed."""
        return self.exchange.floor.rings

    @property
    def live(self) -> int:
        """Calls up now, ringing or answered."""
        return len(self.exchange.floor.live)

    @property
    def peak_live(self) -> int:
        """The highest number of simultaneous calls."""
        return self.exchange.floor.peak_live

    @property
    def connections(self) -> int:
        """AMI connections open now."""
        return len(self._sessions)

    def stats(self) -> dict[str, object]:
        """Return all counts as a JSON-compatible dictionary."""
        floor = self.exchange.floor
        return {
            "name": self.name,
            "version": floor.habits.version,
            "port": self.port,
            "connections": self.connections,
            "originates": floor.originates,
            "refused_duplicates": floor.refused_duplicates,
            "started": floor.started,
            "starved": floor.starved,
            "rings": dict(floor.rings),
            "live": self.live,
            "peak_live": floor.peak_live,
            "answered": floor.answered,
            "ended": floor.ended,
            "notes": len(self.astdb),
            "uptime_s": self.exchange.uptime_s,
        }

    # For the sessions ----------------------------------------------------------------

    def opened(self, session: AmiSession) -> None:
        """Register a new connection."""
        self._sessions.add(session)

    def closed(self, session: AmiSession) -> None:
        """Forget a closed connection."""
        self._sessions.discard(session)

    def _publish(self, event: Event) -> None:
        encoded = cache(event.text.encode)
        for session in self._sessions:
            session.publish(event, encoded)

    # The port ------------------------------------------------------------------------

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        listener.listen(_BACKLOG)
        return listener

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: AmiSession(self), sock=listener, backlog=_BACKLOG
        )
        self._opening = None

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _settled(self) -> None:
        if self._opening is not None:
            await self._opening
