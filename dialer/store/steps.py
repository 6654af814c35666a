"""Runner of the Lua steps of one Redis server: pipelined, in order, retried until they succeed.

A step that runs again with the same arguments changes nothing, so it is safe to retry after a
lost reply or a restart of the server.

If a replica may replace the server, the steps in `_REPLICATED` count as done only when a replica
has them: a claim that is lost with the master would let a call be dialed twice. If no replica
confirms, this is logged once and the steps continue, because after a failover only one server is
left and calls must go on until the other is repaired. If you prefer safety, set
`min-replicas-to-write 1`; the server then refuses writes, and the steps are retried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from dialer.errors import StepsStopped
from dialer.failpoints import failpoint
from dialer.store.client import cancel, is_passing
from dialer.store.keys import CALL_PREFIX
from dialer.store.scripts import SOURCES

logger = logging.getLogger(__name__)

#: Maximum number of steps in one round trip, so that other clients do not wait long.
BATCH: Final = 200

#: Pause before a retry while the server is unavailable, in seconds.
RETRY_PAUSE_S: Final = 0.25

#: Timeout of WAIT for a replica in ms; the second one is used after a replica did not confirm.
REPLICA_WITHIN_MS: Final = 500
REPLICA_AWAY_MS: Final = 10

#: Steps whose loss does harm: they decide who may dial a call, and what Multcall reads.
_REPLICATED: Final = frozenset(
    {"hold", "fence", "claim", "unclaim", "end", "end_release", "code", "late_codes", "refuse"}
)

Arg = str | bytes | int | float
T = TypeVar("T")


@dataclass(slots=True)
class _Step:
    name: str
    keys: Sequence[str]
    args: Sequence[Arg]
    done: asyncio.Future[Any]

    @property
    def call(self) -> str | None:
        """The key of the call that the step changes; None if it has none or many."""
        return next((key for key in self.keys if key.startswith(CALL_PREFIX)), None)


def _split(steps: Sequence[_Step]) -> tuple[list[_Step], list[_Step]]:
    """Split the queue into a batch with at most one step per call, and the rest.

    So the steps of a call stay in order, even if the server refuses one command of a pipeline
    for now and runs the next.
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

    `where` names the server in logs. `replicated`: a replica may replace the server.
    `on_recovered` is called when the server is available again after an outage. `on_stopped` is
    called if an unexpected error stops the steps; the owner must then end its process.
    """

    redis: Redis
    where: str
    replicated: bool = False
    on_recovered: Callable[[], None] | None = None
    on_stopped: Callable[[StepsStopped], None] | None = None
    _down: asyncio.Event = field(default_factory=asyncio.Event)
    _unconfirmed: bool = False
    _retrying: bool = False
    _shas: dict[str, str] = field(default_factory=dict)
    _queue: asyncio.Queue[_Step] = field(default_factory=asyncio.Queue)
    _runner: asyncio.Task[None] | None = None
    _stopped: str | None = None

    @property
    def is_down(self) -> bool:
        """True while the server is unavailable."""
        return self._down.is_set()

    async def wait_done_or_down(self, work: asyncio.Future[Any]) -> bool:
        """Wait until `work` is done or the server is unavailable; return true if it is done."""
        down = asyncio.ensure_future(self._down.wait())
        try:
            await asyncio.wait({work, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            down.cancel()
        return work.done()

    async def or_none_if_down(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await `work`; cancel it and return None if the server goes down first."""
        task = asyncio.ensure_future(work)
        try:
            return task.result() if await self.wait_done_or_down(task) else None
        finally:
            await cancel([task])

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg] = ()) -> Any:
        """Run step `name`; retry through outages of the server, without a limit.

        Raises:
            RedisError: the server refused the step for a reason that waiting does not cure.
            StepsStopped: steps no longer run, because of an unexpected error or `close`.
        """
        if self._stopped is not None:
            raise StepsStopped(self._stopped)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all(), name=f"steps {self.where}")
        failpoint(f"{name}.before")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Encode here, so that text with lone surrogates raises in its caller only.
        encoded = [arg.encode() if isinstance(arg, str) else arg for arg in args]
        self._queue.put_nowait(_Step(name, keys, encoded, done))
        result = await done
        failpoint(f"{name}.after")
        return result

    async def read(self, *command: Arg) -> Any:
        """Run one read command; retry through outages, without a limit."""
        return (await self.read_many([command]))[0]

    async def read_many(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Run read commands in one round trip; retry through outages, without a limit."""
        if not commands:
            return []
        while True:
            pipe = self.redis.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            try:
                replies = list(await pipe.execute())
                if self.is_down and not self._retrying:
                    self._mark_up()
                return replies
            except (RedisError, OSError) as error:
                if not is_passing(error):
                    raise
                self.mark_down(error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def close(self) -> None:
        """Stop; cancel the steps that wait, and refuse later ones."""
        self._stopped = self._stopped or f"the connection to {self.where} was closed"
        if self._runner is not None:
            await cancel([self._runner])
        await self.redis.aclose()

    async def _run_all(self) -> None:
        """Run steps until `close`, or until an unexpected error, which fails every step."""
        waiting: list[_Step] = []
        try:
            while True:
                await self._run_round(waiting)
        except Exception as error:  # noqa: BLE001  # logged; fails every step
            self._stop(error, waiting)
        finally:
            self._stopped = self._stopped or f"the steps of {self.where} were cancelled"
            for step in self._take_all(waiting):
                step.done.cancel()

    async def _run_round(self, waiting: list[_Step]) -> None:
        """Run one batch of `waiting` and the queue; steps to run again stay in `waiting`."""
        if not waiting:
            waiting.append(await self._queue.get())
        while len(waiting) < BATCH and not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        batch, later = _split(waiting)
        again = await self._run_batch(batch)
        waiting[:] = again + later
        self._retrying = bool(again)
        if again:
            await asyncio.sleep(RETRY_PAUSE_S)

    def _take_all(self, waiting: list[_Step]) -> list[_Step]:
        """Empty `waiting` and the queue; return their steps that have no result yet."""
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        steps = [step for step in waiting if not step.done.done()]
        waiting.clear()
        return steps

    def _stop(self, error: Exception, waiting: list[_Step]) -> None:
        """Fail all waiting steps and every later one."""
        logger.critical(
            "Redis steps stopped by an unexpected error; the process must end",
            extra={"redis": self.where, "error": repr(error)},
            exc_info=error,
        )
        self._stopped = (
            f"an unexpected error stopped the Redis steps of {self.where}: {error!r}; "
            "the process must be restarted"
        )
        for step in self._take_all(waiting):
            failure = StepsStopped(self._stopped)
            failure.__cause__ = error
            step.done.set_exception(failure)
        if self.on_stopped is not None:
            self.on_stopped(StepsStopped(self._stopped))

    async def _run_batch(self, batch: list[_Step]) -> list[_Step]:
        """Run the batch in one round trip; return the steps that have to run again, in order."""
        try:
            await self._load({step.name for step in batch})
            pipe = self.redis.pipeline(transaction=False)
            for step in batch:
                pipe.evalsha(self._shas[step.name], len(step.keys), *step.keys, *step.args)
            needs_replica = self.replicated and any(step.name in _REPLICATED for step in batch)
            if needs_replica:
                timeout_ms = REPLICA_AWAY_MS if self._unconfirmed else REPLICA_WITHIN_MS
                pipe.execute_command("WAIT", 1, timeout_ms)
            replies = await pipe.execute(raise_on_error=False)
            if needs_replica and not self._confirmed(replies.pop()):
                return batch
        except (RedisError, OSError) as error:
            if is_passing(error):
                self.mark_down(error)
                return batch
            replies = [error] * len(batch)
        return self._deliver_replies(batch, replies)

    def _deliver_replies(self, batch: list[_Step], replies: list[Any]) -> list[_Step]:
        """Give each step its reply; return the steps that have to run again."""
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
        if not again and self.is_down:
            self._mark_up()
        return again

    def _confirmed(self, reply: Any) -> bool:
        """Handle the reply to WAIT; return false if the server is no longer the master."""
        if isinstance(reply, BaseException):
            if is_passing(reply) or "replica" in str(reply):
                self.mark_down(reply)
                return False
            reply = 0  # this user has no permission for WAIT
        if self._unconfirmed is (reply == 0):
            return True
        self._unconfirmed = reply == 0
        if self._unconfirmed:
            logger.warning(
                "Redis replica does not confirm writes; if this Redis fails now, the newest calls "
                "may be lost or dialed again",
                extra={"redis": self.where},
            )
        else:
            logger.warning("Redis replica confirms writes again", extra={"redis": self.where})
        return True

    async def _load(self, names: set[str]) -> None:
        for name in names - self._shas.keys():
            self._shas[name] = await self.redis.script_load(SOURCES[name])

    def _mark_up(self) -> None:
        self._down.clear()
        logger.warning("Redis available again", extra={"redis": self.where})
        if self.on_recovered is not None:
            self.on_recovered()

    def mark_down(self, error: BaseException) -> None:
        """Record that the server is unavailable; log it once for each outage."""
        if not self.is_down:
            self._down.set()
            logger.error(
                "Redis unavailable; retrying, nothing is lost",
                extra={"redis": self.where, "error": str(error)},
            )
