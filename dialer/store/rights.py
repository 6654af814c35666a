"""The Redis commands that the programs need, each tried on a throw-away key.

The commands of the Lua steps are taken from their text, so a new one is tried too. Redis checks the
rights of a user for every command, also inside a script.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from dialer.multcall.keys import CellKeys
from dialer.store.scripts import SOURCES

#: A script that does nothing.
SCRIPT: Final = "return 1"

Command = Sequence[str | int]

#: A throw-away key of each type expires after this time, in seconds.
KEY_LIFETIME_S: Final = 60

#: Where a command needs more than a key. KEY, SET, ZSET, HASH, LIST, STREAM and OTHER are
#: throw-away keys.
_ARGUMENTS: Final[Mapping[str, Command]] = {
    "BLMOVE": ("NONE", "OTHER", "LEFT", "RIGHT", "0.01"),
    "DEL": ("NONE",),
    "EXISTS": ("KEY",),
    "EXPIRE": ("KEY", KEY_LIFETIME_S),
    "GET": ("KEY",),
    "HDEL": ("HASH", "f"),
    "HGET": ("HASH", "f"),
    "HGETALL": ("HASH",),
    "HINCRBY": ("HASH", "n", 1),
    "HMGET": ("HASH", "f"),
    "HSET": ("HASH", "f", "v"),
    "HSETNX": ("HASH", "f", "v"),
    "INCRBY": ("COUNT", 1),
    "LLEN": ("LIST",),
    "LMOVE": ("NONE", "OTHER", "LEFT", "RIGHT"),
    "LPOS": ("LIST", "v"),
    "LPUSH": ("LIST", "v"),
    "LRANGE": ("LIST", 0, 0),
    "LREM": ("LIST", 1, "v"),
    "LTRIM": ("LIST", 0, 0),
    "PEXPIRE": ("KEY", KEY_LIFETIME_S * 1000),
    "RPUSH": ("LIST", "v"),
    "SADD": ("SET", "v"),
    "SCARD": ("SET",),
    "SET": ("KEY", "v", "EX", KEY_LIFETIME_S),
    "SMEMBERS": ("SET",),
    "SMISMEMBER": ("SET", "v"),
    "SRANDMEMBER": ("SET",),
    "SREM": ("SET", "v"),
    "TIME": (),
    "TYPE": ("KEY",),
    "XADD": ("STREAM", "*", "f", "v"),
    "XRANGE": ("STREAM", "-", "+"),
    "XREVRANGE": ("STREAM", "+", "-"),
    "ZADD": ("ZSET", 1, "v"),
    "ZCARD": ("ZSET",),
    "ZCOUNT": ("ZSET", 0, 1),
    "ZRANGE": ("ZSET", 0, 0),
    "ZRANGEBYSCORE": ("ZSET", 0, 1),
    "ZREM": ("ZSET", "v"),
    "ZREMRANGEBYSCORE": ("ZSET", 0, 1),
    "ZSCORE": ("ZSET", "v"),
}

#: Commands that are sent without a Lua step, and LPUSH, which the steps have as an argument
#: (`push = "left"`).
_DIRECT: Final = ("BLMOVE", "SMISMEMBER", "HGET", "HGETALL", "LLEN", "LPUSH", "LRANGE", "ZCARD")


#: Commands of operators, who change live parameters or look at the system. Calls are dialed without
#: these rights too.
_OF_OPERATORS: Final = frozenset({"SRANDMEMBER", "XADD", "XRANGE", "XREVRANGE"})


def step_commands() -> frozenset[str]:
    """Return every command in the Lua steps."""
    found = (re.findall(r"redis\.p?call\(\s*['\"]([A-Za-z]+)", text) for text in SOURCES.values())
    return frozenset(name.upper() for names in found for name in names)


def trials(prefix: str, *, but: frozenset[str] = frozenset()) -> Iterator[Command]:
    """Yield every needed command `but` some, on keys that begin with `prefix`."""
    for name in sorted(step_commands().union(_DIRECT) - but):
        arguments = _ARGUMENTS.get(name, ("KEY",))
        yield (name, *(_key(prefix, word) for word in arguments))


def _key(prefix: str, word: str | int) -> str | int:
    is_key = isinstance(word, str) and word.isupper() and word not in {"LEFT", "RIGHT", "EX"}
    return f"{prefix}:{word.lower()}" if is_key and isinstance(word, str) else word


def wire_trials(cell: str, absent: str) -> Iterator[Command]:
    """Yield commands that change nothing, on the real keys of Multcall. `absent` is in no list."""
    keys = CellKeys(cell)
    for key in (keys.request, keys.ack, keys.code, keys.response):
        yield ("LREM", key, 1, absent)
    for key in (keys.counter, keys.counter_ack):
        yield ("SETRANGE", key, 0, "")


async def missing_rights(
    redis: Redis, cells: Sequence[str] = (), *, only_to_dial: bool = False
) -> list[str]:
    """Try every command in one round trip; return the missing rights, as ACL SETUSER writes them.

    Multcall's keys of `cells` are tried too, without changing them. With `only_to_dial` those
    rights are left out without which calls are dialed all the same.

    Raises:
        RedisError, OSError: the connection failed.
    """
    prefix = f"dialer:doctor-{secrets.token_hex(6)}"
    commands: list[Command] = [
        *trials(prefix, but=_OF_OPERATORS if only_to_dial else frozenset()),
        *(command for cell in cells for command in wire_trials(cell, prefix)),
        ("SCRIPT", "LOAD", SCRIPT),
        ("EVALSHA", hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest(), 0),
    ]
    keys = {str(word) for command in commands for word in command if _is_of(word, prefix)}
    pipe = redis.pipeline(transaction=False)
    for command in [*commands, ("DEL", *sorted(keys))]:
        pipe.execute_command(*command)
    replies = await pipe.execute(raise_on_error=False)
    missing = [
        _named(command, str(reply))
        for command, reply in zip(commands, replies, strict=False)
        if isinstance(reply, NoPermissionError)
    ]
    return list(dict.fromkeys(missing))


def _is_of(word: str | int, prefix: str) -> bool:
    return isinstance(word, str) and word.startswith(f"{prefix}:")


def _named(command: Command, said: str) -> str:
    """Return the right that is missing, as ACL SETUSER writes it."""
    name = str(command[0]).lower()
    if name == "script":
        return "+script|load"
    if "key" not in said:
        return f"+{name}"
    key = str(command[1])
    return "~dialer:*" if key.startswith("dialer:") else f"~{key}"
