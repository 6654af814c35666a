"""Runs the Lua steps of one Redis: pipelined, in order, repeated until they got through.

Every step may be run again with the same arguments and then changes nothing, so a
lost reply or a restarting server costs time and nothing else.

Where the server has a replica that may take its place, the steps that the outer world
acts upon are done only when a replica has them: a claim that died with the master would let a
call be dialed again. Where no replica confirms, we say so and go on: after a failover one server
is left, and a call centre must not stand still until somebody brings the other back. Whoever
prefers that sets `min-replicas-to-write 1`; then the server refuses, and we wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from dialer.failpoints import failpoint
from dialer.store.client import cancel, is_passing
from dialer.store.keys import CALL_PREFIX

logger = logging.getLogger(__name__)

#: Steps in one round trip; more would keep other clients of the server waiting.
BATCH: Final = 200

#: Pause between two tries while the server is away, in seconds.
RETRY_PAUSE_S: Final = 0.25

#: Longest wait for a replica, in ms; the shorter one while none confirms.
REPLICA_WITHIN_MS: Final = 500
REPLICA_AWAY_MS: Final = 10

#: What a replica must have before anybody acts on it: whether a call may be dialed, and Responses.
_REPLICATED: Final = frozenset({"claim", "unclaim", "end", "code", "late_codes", "refuse"})

Arg = str | bytes | int | float
T = TypeVar("T")

#: Scripts that end a call's life have `_finish.lua` in front.
_FINISHING: Final = frozenset({"end", "code", "late_codes"})


def _read_sources() -> dict[str, str]:
    folder = resources.files("dialer.store") / "lua"
    texts = {
        entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }
    finish = texts.pop("_finish")
    return {name: finish + text if name in _FINISHING else text for name, text in texts.items()}


#: The Lua text of every step, read once: an upgrade in place must not meet a running program.
SOURCES: Final = _read_sources()


@dataclass(slots=True)
class _Step:
    name: str
    keys: Sequence[str]
    args: Sequence[Arg]
    done: asyncio.Future[Any]

    @property
    def call(self) -> str | None:
        """The key of the call that it changes, None where it changes no certain one."""
        return next((key for key in self.keys if key.startswith(CALL_PREFIX)), None)


def _split(steps: Sequence[_Step]) -> tuple[list[_Step], list[_Step]]:
    """A batch and what waits for it: of two steps of one call the second waits.

    A server may refuse one command of a pipeline for a while and take the next.
    """
    batch: list[_Step] = []
    later: list[_Step] = []
    seen: set[str | None] = set()
    for step in steps:
        (later if step.call is not None and step.call in seen else batch).append(step)
        seen.add(step.call)
    return batch, later


@dataclass(slots=True)
class Steps:
    """The steps of one Redis server. Belongs to one event loop.

    `where` names the server in logs. `replicated`: a replica may take the server's place.
    `on_recovered` is called when a server that was away takes steps again.
    """

    redis: Redis
    where: str
    replicated: bool = False
    on_recovered: Callable[[], None] | None = None
    _down: asyncio.Event = field(default_factory=asyncio.Event)
    _unconfirmed: bool = False
    _refused: bool = False
    _shas: dict[str, str] = field(default_factory=dict)
    _queue: asyncio.Queue[_Step] = field(default_factory=asyncio.Queue)
    _runner: asyncio.Task[None] | None = None

    @property
    def outage(self) -> bool:
        """True while the server is away."""
        return self._down.is_set()

    async def wait_done_or_down(self, work: asyncio.Future[Any]) -> bool:
        """Waits until `work` is done, which may wait for this server, or the server is away.

        Returns whether it is done.
        """
        away = asyncio.ensure_future(self._down.wait())
        try:
            await asyncio.wait({work, away}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            away.cancel()
        return work.done()

    async def or_none_if_down(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` returns, which may wait for this server; None where the server is away.

        Then `work` is cancelled, and so it is with the caller.
        """
        task = asyncio.ensure_future(work)
        try:
            return task.result() if await self.wait_done_or_down(task) else None
        finally:
            await cancel([task])

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
        """Runs step `name`; waits through outages of the server, for ever.

        Raises:
            RedisError: the server refused the step for a reason that waiting does not cure.
        """
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all(), name=f"steps {self.where}")
        failpoint(f"{name}.before")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Encoded here, so that a text which no UTF-8 can carry fails its caller alone.
        encoded = [arg.encode() if isinstance(arg, str) else arg for arg in args]
        self._queue.put_nowait(_Step(name, keys, encoded, done))
        result = await done
        failpoint(f"{name}.after")
        return result

    async def read(self, *command: Arg) -> Any:
        """One reading command; waits through outages of the server, for ever."""
        return (await self.read_many([command]))[0]

    async def read_many(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Many reading commands in one round trip; waits through outages, for ever."""
        if not commands:
            return []
        while True:
            pipe = self.redis.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            try:
                replies = list(await pipe.execute())
                if self.outage and not self._refused:
                    self._mark_up()
                return replies
            except (RedisError, OSError) as error:
                if not is_passing(error):
                    raise
                self.mark_down(error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def close(self) -> None:
        """Stops; steps that wait are cancelled."""
        if self._runner is not None:
            await cancel([self._runner])
        await self.redis.aclose()

    async def _run_all(self) -> None:
        waiting: list[_Step] = []
        try:
            while True:
                if not waiting:
                    waiting.append(await self._queue.get())
                while len(waiting) < BATCH and not self._queue.empty():
                    waiting.append(self._queue.get_nowait())
                batch, later = _split(waiting)
                again = await self._run_batch(batch)
                waiting = again + later
                self._refused = bool(again)
                if again:
                    await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            while not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            for step in waiting:
                step.done.cancel()

    async def _run_batch(self, batch: list[_Step]) -> list[_Step]:
        """Runs the batch in one round trip; returns what has to be run again, in order."""
        try:
            await self._load({step.name for step in batch})
            pipe = self.redis.pipeline(transaction=False)
            for step in batch:
                pipe.evalsha(self._shas[step.name], len(step.keys), *step.keys, *step.args)
            asks = self.replicated and any(step.name in _REPLICATED for step in batch)
            if asks:
                patience_ms = REPLICA_AWAY_MS if self._unconfirmed else REPLICA_WITHIN_MS
                pipe.execute_command("WAIT", 1, patience_ms)
            replies = await pipe.execute(raise_on_error=False)
            if asks and not self._confirmed(replies.pop()):
                return batch
        except (RedisError, OSError) as error:
            if is_passing(error):
                self.mark_down(error)
                return batch
            replies = [error] * len(batch)
        return self._deliver_replies(batch, replies)

    def _deliver_replies(self, batch: list[_Step], replies: list[Any]) -> list[_Step]:
        again: list[_Step] = []
        for step, reply in zip(batch, replies, strict=True):
            if isinstance(reply, NoScriptError):
                self._shas.clear()
                again.append(step)
            elif isinstance(reply, BaseException) and is_passing(reply):
                self.mark_down(reply)
                again.append(step)
            elif step.done.done():
                continue
            elif isinstance(reply, BaseException):
                step.done.set_exception(reply)
            else:
                step.done.set_result(reply)
        if not again and self.outage:
            self._mark_up()
        return again

    def _confirmed(self, reply: Any) -> bool:
        """Reads the answer to WAIT; false where the server ceased to be the master meanwhile."""
        if isinstance(reply, BaseException):
            if is_passing(reply) or "replica" in str(reply):
                self.mark_down(reply)
                return False
            reply = 0  # we may not ask
        if self._unconfirmed is (reply == 0):
            return True
        self._unconfirmed = reply == 0
        if self._unconfirmed:
            logger.warning(
                "No replica confirms what is written; should this Redis die now, the last calls "
                "may be lost or dialed again",
                extra={"redis": self.where},
            )
        else:
            logger.warning("A replica confirms what is written", extra={"redis": self.where})
        return True

    async def _load(self, names: set[str]) -> None:
        for name in names - self._shas.keys():
            self._shas[name] = await self.redis.script_load(SOURCES[name])

    def _mark_up(self) -> None:
        self._down.clear()
        logger.warning("Redis is back", extra={"redis": self.where})
        if self.on_recovered is not None:
            self.on_recovered()

    def mark_down(self, error: BaseException) -> None:
        """The server does not answer: said once, until it does again."""
        if not self.outage:
            self._down.set()
            logger.error(
                "Redis does not take our steps; waiting for it, nothing is lost",
                extra={"redis": self.where, "error": str(error)},
            )
