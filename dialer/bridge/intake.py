"""Intake of one cell: fetch as many requests as have room; admit, park or refuse each.

A request is always in exactly one place: in Multcall's list, in this bridge's hand (a list in
Redis too; if the bridge dies, another takes it over), in the parked list of its trunk (shared by
all bridges of the cell), or in the ledger.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from redis.asyncio import Redis

from dialer.bridge.admission import Admissions
from dialer.bridge.cell import BridgeCell
from dialer.bridge.life import ALONE_AFTER_S, ALONE_AGE_S, BLOCK_S, Life
from dialer.bridge.refusals import Candidate, Element, Refusals
from dialer.domain.limits import Limit
from dialer.domain.room import CellRoom, Room
from dialer.domain.routing import Returns
from dialer.domain.why import Lately, stopped_by
from dialer.errors import StoreUnavailable
from dialer.store.client import wait_and_move
from dialer.store.keys import ANY_TRUNK
from dialer.store.ledger import Fetched

#: Maximum number of requests in the hand, and in one round.
BATCH: Final = 100

#: Longest wait for a request if a parked one waits for room on a ready PBX, in seconds.
BLOCK_PARKED_S: Final = 0.05

#: Pause before the room is read again while a cell is full or a PBX is at its pace, in seconds. It
#: doubles up to the second one until there is room.
FULL_PAUSE_S: Final = 0.02
FULL_PAUSE_MAX_S: Final = 0.1

#: A cell that waits for room accepts a reading of the PBXs that is at most so old, in seconds.
ROOM_AGE_S: Final = 0.01

#: Pause while no PBX is ready or the calling hours are over, in seconds.
IDLE_PAUSE_S: Final = 0.5


@dataclass(slots=True)
class Intake:
    """The intake of one cell. `blocking` is a separate client, because BLMOVE occupies it.

    `admitting` is held while requests become calls. `parked` is how many requests wait for each
    trunk, as of the last reading, which was at `_read_at`. `_first` is the trunk whose parked
    requests last went first; `_pause_s` the next pause while there is no room. `lately` is what
    became of the cell's requests in the last seconds.
    """

    cell: BridgeCell
    blocking: Redis
    life: Life = field(default_factory=Life)
    admitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    parked: Mapping[str, int] = field(default_factory=dict)
    lately: Lately = field(default_factory=Lately)
    refusals: Refusals = field(init=False)
    admissions: Admissions = field(init=False)
    _first: str = ""
    _read_at: float = -ALONE_AGE_S
    _pause_s: float = FULL_PAUSE_S
    _returns: Returns = field(default_factory=Returns)

    def __post_init__(self) -> None:
        self.refusals = Refusals(self.cell, self.lately)
        self.admissions = Admissions(self.cell, self.refusals)

    async def run(self) -> None:
        """Fetch and handle requests until cancelled."""
        while True:
            room, fetched = await self.fetch()
            async with self.admitting:
                left = await self.handle(room, fetched)
            if left is None:
                self._note_round(room, has_started=False)
                await self._wait(room, fetched)
                continue
            self._note_moved()
            if len(fetched.hand) == 1 and room.to_fetch and not fetched.parked:
                await self._handle_each_alone(left)

    async def fetch(self) -> tuple[Room, Fetched]:
        """Read the room of the cell and fetch as many requests as fit."""
        cell = self.cell
        self._read_at = asyncio.get_running_loop().time()
        states = await cell.states()
        threads = cell.threads
        now_us = int(asyncio.get_running_loop().time() * 1e6)
        loads = self._returns.level((state.load for state in states.values()), now_us)
        of_pbxs = sum(load.room for load in loads)
        if cell.is_paused(self.cell.clock.now()):
            of_pbxs = 0
        fetched = await cell.ledger.fetch(
            cell.bridge,
            at_most=min(BATCH, of_pbxs),
            threads=threads,
            sees_unclaimed=cell.settings.asks_asterisk,
        )
        self.parked = fetched.parked
        counts = CellRoom(threads=threads, live=fetched.live, in_hand=fetched.in_hand)
        loads = tuple(load.with_queued(fetched.unclaimed.get(load.name, 0)) for load in loads)
        return Room(cell=counts, pbxs=loads), fetched

    async def handle(self, room: Room, fetched: Fetched, *, is_alone: bool = False) -> Room | None:
        """Admit, park or refuse what was fetched.

        `is_alone`: the reading is a little old; requests that another bridge has parked since then
        are older, and go first.

        Return the room that is left, None if no request has left the hand or its parked list.
        """
        elements = await self._elements(room, fetched)
        if not elements:
            return None
        candidates = await self.refusals.read(elements)
        moved = len(elements) - len(candidates)
        (allowed, refused), must_read = await asyncio.gather(
            self.refusals.allowed(candidates), self._has_parked(is_alone=is_alone)
        )
        moved += refused
        started: Mapping[str, int] = {}
        if not must_read and not self.cell.is_paused(self.cell.clock.now()):
            others = await self._park(allowed, room)
            moved += len(allowed) - len(others)
            admitted = await self.admissions.admit(others, room)
            moved, started = moved + admitted.left, admitted.started
        left = room.after(started, moved)
        self._note_round(left, has_started=any(started.values()))
        return left if moved else None

    def _note_round(self, left: Room, *, has_started: bool) -> None:
        """Note what this round did, and what ended it."""
        now = asyncio.get_running_loop().time()
        if has_started:
            self.lately.started(now)
        limit = stopped_by(left)
        if limit is Limit.THREADS_FULL and self.cell.threads < self.cell.settings.threads:
            limit = Limit.AGENTS_RESERVED  # no operator for another call
        if limit is not Limit.NONE:
            self.lately.stopped(limit, now)

    async def _has_parked(self, *, is_alone: bool) -> bool:
        return is_alone and await self.cell.ledger.has_parked()

    def _note_moved(self) -> None:
        self.life.stir()
        self._pause_s = FULL_PAUSE_S

    async def _elements(self, room: Room, fetched: Fetched) -> list[Element]:
        """Return what to handle now: parked requests that have room (older), then the hand."""
        keys = self.cell.ledger.keys
        wanted: dict[str, int] = {}
        if fetched.parked and not self.cell.is_paused(self.cell.clock.now()):
            # Trunks of one PBX take turns, or one with a large backlog would use up all its room.
            turns = sorted(fetched.parked, key=lambda trunk: (trunk <= self._first, trunk))
            parked_by_turn = {trunk: fetched.parked[trunk] for trunk in turns}
            wanted = room.from_parked(parked_by_turn, at_most=BATCH)
            self._first = next(iter(wanted), self._first)
        parked = await self.cell.ledger.parked(wanted)
        return [
            *(Element(raw, keys.parked(trunk)) for trunk, rows in parked.items() for raw in rows),
            *(Element(raw, keys.hand(self.cell.bridge)) for raw in fetched.hand[:BATCH]),
        ]

    async def _park(self, candidates: Sequence[Candidate], room: Room) -> list[Candidate]:
        """Park requests whose trunk has no room; return the others.

        Also park requests if older ones wait for the same trunk, to keep the order of each trunk.
        Move a parked request to the list of another trunk if it needs that one by now (the cell's
        `trunk` was changed), so that it does not block those behind it. Those that need no
        particular trunk have a list without a name.
        """
        ledger = self.cell.ledger
        blocked: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
        others: list[Candidate] = []
        for candidate in candidates:
            element, trunk = candidate.element, self.cell.trunk(candidate.request)
            name = trunk or ANY_TRUNK
            is_due = element.source == ledger.keys.parked(name)
            if not is_due and (name in self.parked or room.is_blocked(trunk)):
                blocked[element.source].append((name, element.raw))
            else:
                others.append(candidate)
        for source, requests in blocked.items():
            await ledger.park(source, requests)
        return others

    # --- one request at a time -----------------------------------------------------

    async def _handle_each_alone(self, room: Room) -> None:
        """Wait for requests and handle each by the last reading: that saves steps of Redis.

        Return when the room must be read again.
        """
        loop = asyncio.get_running_loop()
        while room.is_ample and not room.cell.in_hand:
            began = loop.time()
            try:
                raw = await self._wait_once(self.life.block_s)
            except StoreUnavailable:  # `Steps` logs it
                return
            now = loop.time()
            if raw is None or now - began < ALONE_AFTER_S or now - self._read_at > ALONE_AGE_S:
                return
            counts = replace(room.cell, in_hand=1)
            async with self.admitting:
                given = replace(room, cell=counts), Fetched(hand=[raw])
                left = await self.handle(*given, is_alone=True)
            if left is None:
                return
            self._note_moved()
            room = left

    # --- waiting -------------------------------------------------------------------

    async def _wait(self, room: Room, fetched: Fetched) -> None:
        """Wait until there may be room, or a request."""
        if not room.is_ready or self.cell.is_paused(self.cell.clock.now()):
            await self._wait_until_open()
        elif fetched.hand or not room.to_fetch:
            await self._wait_for_room(room)
        else:
            await self._wait_for_request(room)

    async def _wait_until_open(self) -> None:
        # An operator who becomes free must not wait for long.
        pause_s = FULL_PAUSE_MAX_S if self.cell.settings.asks_asterisk else IDLE_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            if not self.life.is_quiet or await self._may_admit(max_age_s=pause_s / 2):
                return

    async def _wait_for_room(self, room: Room) -> None:
        """Pause until a PBX has room by the common reading of all cells, at most `BLOCK_S`."""
        loop = asyncio.get_running_loop()
        until, start_at = loop.time() + BLOCK_S, loop.time() + room.start_in_s
        while True:
            left_s = start_at - loop.time()
            await asyncio.sleep(min(self._pause_s, left_s if left_s > 0 else FULL_PAUSE_S))
            self._pause_s = min(2 * self._pause_s, FULL_PAUSE_MAX_S)
            if not self.life.is_known or loop.time() >= until:
                return
            if await self._may_admit(max_age_s=ROOM_AGE_S):
                return

    async def _may_admit(self, *, max_age_s: float) -> bool:
        """True if the cell is open and a PBX has room, as read at most `max_age_s` ago."""
        cell = self.cell
        if cell.is_paused(cell.clock.now()):
            return False
        states = await cell.states(max_age_s=max_age_s)
        return any(state.load.room for state in states.values())

    async def _wait_for_request(self, room: Room) -> None:
        """Let Redis move the next request to the hand; the next round handles it."""
        ready = frozenset[str]().union(*(p.trunks for p in room.pbxs if p.ready))
        is_due_soon = any(trunk in ready or trunk == ANY_TRUNK for trunk in self.parked)
        try:
            while True:
                within_s = BLOCK_PARKED_S if is_due_soon else self.life.block_s
                if await self._wait_once(within_s) is not None or not self.life.is_quiet:
                    return
                if not await self._may_admit(max_age_s=BLOCK_S):
                    return
        except StoreUnavailable:  # `Steps` logs it
            await asyncio.sleep(IDLE_PAUSE_S)

    async def _wait_once(self, within_s: float) -> bytes | None:
        ledger = self.cell.ledger
        return await wait_and_move(
            self.blocking,
            ledger.wire.request,
            ledger.keys.hand(self.cell.bridge),
            head=ledger.head,
            within_s=within_s,
            reply_within_s=self.cell.reply_within_s,
        )
