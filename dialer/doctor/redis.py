"""Checks of the Redis servers that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from dialer.doctor.findings import Finding, doubtful, good, split_sentence, wrong
from dialer.doctor.servers import Server, Use
from dialer.store import fitness
from dialer.store.client import connect, connection_trouble, durability_warning
from dialer.store.fitness import ServerFacts, read_facts
from dialer.store.redis_url import RedisAddress, redacted
from dialer.store.rights import missing_rights

#: A clock that differs more is doubtful, and wrong from the second value on. In seconds.
CLOCK_S: Final = (2.0, 30.0)

#: Shares of the memory limit from which on it is doubtful, and wrong.
MEMORY: Final = (0.8, 0.98)

MB: Final = 1_000_000

FactCheck = Callable[[Server, ServerFacts], Finding]


async def check_server(server: Server) -> list[Finding]:
    """Check one server; later checks are left out if an earlier one fails."""
    first = server.uses[0]
    async with connect(first.url) as redis:
        try:
            await redis.ping()
            facts = await read_facts(redis)
        except (RedisError, OSError) as error:
            return [_unreachable(server, first, error)]
        findings = [good("redis.reach", server.name, _uses(server))]
        if facts is None:
            findings.append(_info_forbidden(server, first))
        elif fatal := _fatal(server, facts):
            return [*findings, fatal]
        else:
            findings += [check(server, facts) for check in FACT_CHECKS]
            findings += [] if facts.is_disk_failing else await _durability(server, redis)
    for use in server.uses:
        findings += await _use(server, use, is_first=use is first)
    return findings


def _uses(server: Server) -> str:
    parts = []
    for use in server.uses:
        words = [f"cell {cell}" for cell in use.cells]
        words += [role for role in sorted(use.roles) if role != "multcall"]
        parts.append(f"db {RedisAddress.parse(use.url).db}: {', '.join(words)}")
    return "answers; " + "; ".join(parts)


def _unreachable(server: Server, use: Use, error: Exception) -> Finding:
    trouble = connection_trouble(error, RedisAddress.parse(use.url))
    if trouble is None:
        return wrong(
            "redis.reach",
            server.name,
            f"cannot be reached ({error})",
            f"start it, or correct its URL {redacted(use.url)} in dialer.toml"
            + (" (is that its TLS port?)" if RedisAddress.parse(use.url).tls else ""),
        )
    what, cure = split_sentence(trouble)
    is_tls = RedisAddress.parse(use.url).tls and "login" not in what
    return wrong("redis.tls" if is_tls else "redis.login", server.name, what, cure)


def _info_forbidden(server: Server, use: Use) -> Finding:
    user = RedisAddress.parse(use.url).username or "default"
    return doubtful(
        "redis.info",
        server.name,
        f"its user {user} may not run INFO, so version, policy and memory are not known",
        f"ACL SETUSER {user} +info",
    )


def _fatal(server: Server, facts: ServerFacts) -> Finding | None:
    """Return what makes every other check of a server pointless."""
    if trouble := fitness.version_trouble(facts):
        return wrong("redis.version", server.name, *split_sentence(trouble))
    if trouble := fitness.cluster_trouble(facts):
        return wrong("redis.cluster", server.name, *split_sentence(trouble))
    if facts.is_replica:
        return wrong(
            "redis.replica",
            server.name,
            "is a replica, which refuses writes",
            "name its master in dialer.toml, or the sentinels",
        )
    return None


def _version(server: Server, facts: ServerFacts) -> Finding:
    kind = "Valkey" if facts.is_valkey else "Redis"
    return good("redis.version", server.name, f"{kind} {facts.version}, one server")


def _eviction(server: Server, facts: ServerFacts) -> Finding:
    trouble = fitness.eviction_trouble(facts)
    if trouble is None:
        return good("redis.eviction", server.name, "keeps what it has (noeviction)")
    if server.keeps_calls:
        return wrong("redis.eviction", server.name, *split_sentence(trouble))
    return doubtful(
        "redis.eviction",
        server.name,
        f"has the maxmemory-policy {facts.policy}; Celery's messages may be deleted",
        "set 'maxmemory-policy noeviction' in its configuration",
    )


def _memory(server: Server, facts: ServerFacts) -> Finding:
    limit = facts.memory_limit or facts.memory_of_machine // 2
    share = facts.memory_used / limit if limit else 0.0
    used = f"{facts.memory_used / MB:.0f} of {limit / MB:.0f} MB used"
    cure = "raise maxmemory, or delete the dead lists (docs/operations.md says how much it needs)"
    if share >= MEMORY[1]:
        return wrong("redis.memory", server.name, f"its memory is full: {used}", cure)
    if share >= MEMORY[0]:
        return doubtful("redis.memory", server.name, f"its memory is nearly full: {used}", cure)
    return good("redis.memory", server.name, used)


def _clock(server: Server, facts: ServerFacts) -> Finding:
    ahead = facts.clock_ahead_s
    if abs(ahead) <= CLOCK_S[0]:
        return good("redis.clock", server.name, f"its clock is ours (within {CLOCK_S[0]:g} s)")
    side = "ahead of" if ahead > 0 else "behind"
    level = wrong if abs(ahead) > CLOCK_S[1] else doubtful
    return level(
        "redis.clock",
        server.name,
        f"its clock is {abs(ahead):.0f} s {side} this host's",
        "set both clocks by NTP (timedatectl)",
    )


def _disk(server: Server, facts: ServerFacts) -> Finding:
    if not facts.is_disk_failing:
        return good("redis.disk", server.name, "its last writes to disk succeeded")
    return wrong(
        "redis.disk",
        server.name,
        "cannot write its append-only file",
        "see its log; free disk space, or correct the owner of its folder",
    )


FACT_CHECKS: Final[tuple[FactCheck, ...]] = (_version, _eviction, _memory, _clock, _disk)


async def _durability(server: Server, redis: Redis) -> list[Finding]:
    if not server.keeps_calls:
        return []
    warning = await durability_warning(redis)
    if warning is None:
        return [good("redis.durability", server.name, "every write is on disk before its reply")]
    return [doubtful("redis.durability", server.name, *split_sentence(warning))]


async def _use(server: Server, use: Use, *, is_first: bool) -> list[Finding]:
    """Check login and rights of one URL."""
    if not use.keeps_calls:
        return []  # the broker's own probe tells more
    address = RedisAddress.parse(use.url)
    user = address.username or "default"
    async with connect(use.url) as redis:
        try:
            missing = await missing_rights(redis, use.cells)
        except (RedisError, OSError) as error:
            return [] if is_first else [_unreachable(server, use, error)]
    return list(_rights(server, user, address.db, missing))


def _rights(server: Server, user: str, db: int, missing: list[str]) -> Iterator[Finding]:
    if missing:
        yield wrong(
            "redis.rights",
            server.name,
            f"its user {user} lacks {', '.join(missing)}",
            f"ACL SETUSER {user} {' '.join(missing)}",
        )
    else:
        yield good("redis.rights", server.name, f"user {user} has every right in db {db}")
