"""Runner of the Lua steps of one Redis server: pipelined, in order, retried until they succeed.

Steps and reads share one connection. Those of one turn of the event loop are written together, and
the next ones without waiting for the replies. Only a step of a call waits until the one before it
has its reply: Redis may refuse the first for now and run the second.

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
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from dialer.domain.limits import Limit
from dialer.domain.why import Obstacle
from dialer.errors import StepsStopped
from dialer.failpoints import failpoint
from dialer.store.client import cancel, is_passing
from dialer.store.keys import CALL_PREFIX
from dialer.store.scripts import DIGESTS, SOURCES
from dialer.store.shared_connection import SharedConnection, pack
from dialer.store.step_queue import Step, StepQueue

logger = logging.getLogger(__name__)

#: Maximum number of steps and reads under way, so that other clients do not wait long.
BATCH: Final = 200

#: Maximum number of reads of one caller under way, so that steps do not wait long behind them.
READS: Final = 100

#: Pause before a retry while the server is unavailable, in seconds.
RETRY_PAUSE_S: Final = 0.25

#: Timeout of WAIT for a replica in ms; the second one is used after a replica did not confirm.
REPLICA_WITHIN_MS: Final = 500
REPLICA_AWAY_MS: Final = 10

#: Steps whose loss does harm: they decide who may dial a call, and what Multcall reads.
_REPLICATED: Final = frozenset(
    {
        "hold",
        "fence",
        "claim",
        "unclaim",
        "end",
        "end_release",
        "code",
        "late_codes",
        "refuse",
        "change",
        "dead_send",
        "user_set",
        "user_remove",
    }
)

Arg = str | bytes | int | float
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Steps that were written together, behind `loads` Lua texts; a WAIT may come last."""

    steps: list[Step]
    loads: int
    has_wait: bool


def _permanent(replies: list[Any]) -> Exception | None:
    """Return the first error that waiting does not cure."""
    errors = (reply for reply in replies if isinstance(reply, Exception))
    return next((error for error in errors if not is_passing(error)), None)


def _is_from_replica(replies: list[Any] | Exception) -> bool:
    """True if the server refused something because it is not the master."""
    errors = [r for r in replies if isinstance(r, ResponseError)] if type(replies) is list else []
    return any(isinstance(e, ReadOnlyError) or "replica" in str(e) for e in errors)


def redis_obstacle(where: str, error: BaseException | None) -> Obstacle:
    """Return why nothing is dialed while a Redis answers this: it refuses, or it is away."""
    said = str(error) or "no answer in time"
    if isinstance(error, ResponseError):
        return Obstacle(
            limit=Limit.REDIS_REFUSES,
            reason=f"{where} refuses to write ({said}): `dialer doctor` says what is wrong",
        )
    return Obstacle(
        limit=Limit.REDIS_AWAY,
        reason=f"{where} does not answer ({said}): see that it runs and that this host reaches it",
    )


async def redis_time(steps: Steps) -> float:
    """Return the present time of a Redis server, in seconds since 1970."""
    seconds, micros = await steps.read("TIME")
    return int(seconds) + int(micros) / 1e6


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
    _down_because: BaseException | None = None
    _unconfirmed: bool = False
    _queue: StepQueue = field(default_factory=StepQueue)
    _under_way: int = 0
    _is_waiting_for_replica: bool = False
    _must_pause: bool = False
    #: Steps whose Lua text was sent over this connection.
    _loaded: set[str] = field(default_factory=set)
    _connection: SharedConnection | None = None
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: asyncio.Task[None] | None = None
    _stopped: str | None = None

    @property
    def is_down(self) -> bool:
        """True while the server is unavailable."""
        return self._down.is_set()

    @property
    def obstacle(self) -> Obstacle | None:
        """Why the server is unavailable, None while it is available."""
        return redis_obstacle(self.where, self._down_because) if self.is_down else None

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

    async def run(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[Arg] = (),
        *,
        calls: Collection[str] = (),
    ) -> Any:
        """Run step `name`; retry through outages of the server, without a limit.

        `calls` are the keys of the calls that it changes, if they are not among `keys`.

        Raises:
            RedisError: the server refused the step for a reason that waiting does not cure.
            StepsStopped: steps no longer run, because of an unexpected error or `close`.
        """
        failpoint(f"{name}.before")
        # Pack here, so that an argument that cannot be sent raises in its caller only.
        command = pack("EVALSHA", DIGESTS.get(name, name), len(keys), *keys, *args)
        of_keys = [key for key in keys if key.startswith(CALL_PREFIX)]
        result = await self._add(name, tuple(dict.fromkeys(calls)) or tuple(of_keys[:1]), command)
        failpoint(f"{name}.after")
        return result

    async def read(self, *command: Arg) -> Any:
        """Run one read command; retry through outages, without a limit."""
        return self._parsed(command[0], await self._add("", (), pack(*command)))

    async def read_many(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
        """Run read commands; retry through outages, without a limit.

        Raises:
            RedisError: the server refused one for a reason that waiting does not cure.
            StepsStopped: steps no longer run, because of an unexpected error or `close`.
        """
        packed = [pack(*command) for command in commands]
        replies: list[Any] = []
        for start in range(0, len(packed), READS):
            some = packed[start : start + READS]
            replies += await asyncio.gather(*(self._add("", (), read) for read in some))
        return [
            self._parsed(command[0], reply)
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _parsed(self, command: Arg, reply: Any) -> Any:
        """Return a reply as redis-py does: HGETALL is a flat list over RESP2, a dict over RESP3."""
        parse = self.redis.response_callbacks.get(str(command))
        return reply if parse is None else parse(reply)

    async def close(self) -> None:
        """Stop; cancel the steps that wait, and refuse later ones."""
        self._stopped = self._stopped or f"the connection to {self.where} was closed"
        if self._runner is not None:
            await cancel([self._runner])
        for step in self._take_all():
            step.done.cancel()
        await self._disconnect()
        await self.redis.aclose()

    def _add(self, name: str, calls: tuple[str, ...], command: bytes) -> asyncio.Future[Any]:
        if self._stopped is not None:
            raise StepsStopped(self._stopped)
        loop = asyncio.get_running_loop()
        if self._runner is None:
            self._runner = loop.create_task(self._run_all(), name=f"steps {self.where}")
        step = Step(name, calls, command, loop.create_future())
        self._queue.add(step)
        self._wanted.set()
        return step.done

    async def _run_all(self) -> None:
        """Write steps until `close`, or until an unexpected error, which fails every step."""
        try:
            while self._stopped is None:
                await self._wanted.wait()
                if self._must_pause:
                    await asyncio.sleep(RETRY_PAUSE_S)
                    self._must_pause = False
                self._wanted.clear()
                connection = self._connection
                if connection is None or not connection.is_open:
                    connection = await self._connect()
                if connection is not None:
                    self._write(connection)
        except Exception as error:  # noqa: BLE001  # logged; fails every step
            self._stop(error)
        finally:
            self._stopped = self._stopped or f"the steps of {self.where} were cancelled"
            for step in self._take_all():
                step.done.cancel()

    async def _connect(self) -> SharedConnection | None:
        """Connect; None if the server is unavailable or refuses."""
        try:
            await self._disconnect()
            self._connection = await SharedConnection.open(self.redis)
        except (RedisError, OSError) as error:
            if is_passing(error):
                self.mark_down(error)
                self._retry_later()
            else:
                self._fail_waiting(error)
            return None
        self._loaded.clear()
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _write(self, connection: SharedConnection) -> None:
        """Write the steps that wait in one go, as many as may be under way.

        While the server waits for its replica it runs nothing of this connection, so nothing is
        written either: what comes in the meantime needs only one WAIT more.
        """
        room = 0 if self._is_waiting_for_replica else BATCH - self._under_way
        if not (steps := self._queue.first(room)):
            return
        names = {step.name for step in steps if step.name}
        to_load = names - self._loaded
        commands = [pack("SCRIPT", "LOAD", SOURCES[name]) for name in to_load]
        commands += [step.command for step in steps]
        needs_replica = self.replicated and not names.isdisjoint(_REPLICATED)
        if needs_replica:
            timeout_ms = REPLICA_AWAY_MS if self._unconfirmed else REPLICA_WITHIN_MS
            commands.append(pack("WAIT", 1, timeout_ms))
        self._queue.remove_first(len(steps))
        self._loaded |= to_load
        self._under_way += len(steps)
        self._is_waiting_for_replica = needs_replica
        batch = _Batch(steps, len(to_load), needs_replica)
        connection.send(commands, partial(self._take_replies, batch))

    def _take_replies(self, batch: _Batch, replies: list[Any] | Exception) -> None:
        """Deliver the replies to what `_write` wrote; see that the rest is written."""
        self._under_way -= len(batch.steps)
        if batch.has_wait:
            self._is_waiting_for_replica = False
        if self._stopped is not None:
            self._queue.put_back(batch.steps)  # `_take_all` takes them
            return
        try:
            again = self._deliver(batch, replies)
            if again:
                self._queue.put_back(again)
                self._retry_later()
                if _is_from_replica(replies) and self._connection is not None:
                    # A new connection asks the sentinels who is the master.
                    self._connection.lose(RedisConnectionError("the server is a replica"))
            elif self.is_down and not self._queue.retries:
                self._mark_up()
            if self._queue:
                self._wanted.set()
        except Exception as error:  # noqa: BLE001  # logged; fails every step
            self._queue.put_back(batch.steps)
            self._stop(error)

    def _deliver(self, batch: _Batch, replies: list[Any] | Exception) -> list[Step]:
        """Give each step its reply; return the steps that have to run again."""
        if isinstance(replies, Exception):
            if is_passing(replies):
                self.mark_down(replies)
                return batch.steps
            for step in batch.steps:
                self._queue.finish(step, replies)
            return []
        if batch.has_wait and not self._confirmed(replies[-1]):
            return batch.steps
        again: list[Step] = []
        for step, reply in zip(batch.steps, replies[batch.loads :], strict=False):
            if isinstance(reply, NoScriptError):
                self._loaded.clear()
                reply = _permanent(replies[: batch.loads]) or reply
            if isinstance(reply, NoScriptError):
                again.append(step)
            elif isinstance(reply, Exception) and is_passing(reply):
                self.mark_down(reply)
                again.append(step)
            else:
                self._queue.finish(step, reply)
        return again

    def _retry_later(self) -> None:
        """Write the steps that wait after a pause."""
        self._queue.drop_abandoned()
        self._must_pause = True
        self._wanted.set()

    def _fail_waiting(self, error: Exception) -> None:
        """Give the steps that wait an error that waiting does not cure."""
        steps = self._queue.first(BATCH)
        self._queue.remove_first(len(steps))
        for step in steps:
            self._queue.finish(step, error)
        if self._queue:
            self._retry_later()

    def _take_all(self) -> list[Step]:
        """Cut the connection; take the steps that have no result yet."""
        if self._connection is not None:
            self._connection.lose(RedisConnectionError(self._stopped or ""))
        return self._queue.take_all()

    def _stop(self, error: Exception) -> None:
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
        for step in self._take_all():
            failure = StepsStopped(self._stopped)
            failure.__cause__ = error
            step.done.set_exception(failure)
        if self.on_stopped is not None:
            self.on_stopped(StepsStopped(self._stopped))

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

    def _mark_up(self) -> None:
        self._down.clear()
        logger.warning("Redis available again", extra={"redis": self.where})
        if self.on_recovered is not None:
            self.on_recovered()

    def mark_down(self, error: BaseException) -> None:
        """Record that the server is unavailable; log it once for each outage."""
        self._down_because = error
        if not self.is_down:
            self._down.set()
            logger.error(
                "Redis unavailable; retrying, nothing is lost",
                extra={"redis": self.where, "error": str(error)},
            )
