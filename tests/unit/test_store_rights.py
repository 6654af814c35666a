"""The trial of each Redis command: what is sent, and which missing right a refusal names."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from dialer.store.rights import missing_rights, step_commands, trials, wire_trials


class Server:
    """A pipeline that refuses some commands; it remembers all."""

    def __init__(self, **refused: str) -> None:
        self.refused = refused
        self.sent: list[tuple[Any, ...]] = []

    def pipeline(self, *, transaction: bool) -> Server:
        assert not transaction
        return self

    def execute_command(self, *command: Any) -> None:
        self.sent.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return [self._reply(*command) for command in self.sent]

    def _reply(self, name: str, *args: Any) -> Any:
        if name in self.refused:
            return NoPermissionError(self.refused[name])
        return ResponseError("wrong type") if name == "LPOS" else 1

    async def missing(self, *cells: str) -> list[str]:
        return await missing_rights(cast(Redis, self), cells)


def test_every_command_of_a_step_is_tried_on_throw_away_keys() -> None:
    tried = {str(command[0]): command for command in trials("p")}
    assert step_commands() <= tried.keys()
    assert tried["LMOVE"] == ("LMOVE", "p:none", "p:other", "LEFT", "RIGHT")
    assert tried["SET"] == ("SET", "p:key", "v", "EX", 60)
    assert tried["TIME"] == ("TIME",)
    assert tried["BLMOVE"][:3] == ("BLMOVE", "p:none", "p:other")
    assert {"LPUSH", "RPUSH"} <= tried.keys()  # Multcall's lists, whichever end it pushes to


@pytest.mark.parametrize(("name", "n"), [("HINCRBY", 1), ("ZRANGE", 0), ("PEXPIRE", 60_000)])
def test_numbers_are_sent_as_they_are(name: str, n: int) -> None:
    command = next(command for command in trials("p") if command[0] == name)
    assert command[-1] == n


def test_the_keys_of_multcall_are_not_changed() -> None:
    commands = list(wire_trials("ASR", "absent"))
    removed = [command for command in commands if command[0] == "LREM"]
    ranges = [command for command in commands if command[0] == "SETRANGE"]
    assert [command[2:] for command in removed] == [(1, "absent")] * 4
    assert [command[2:] for command in ranges] == [(0, "")] * 2


async def test_with_all_rights_nothing_is_missing() -> None:
    server = Server()
    assert await server.missing() == []
    load, evaluate = server.sent[-3:-1]
    assert load == ("SCRIPT", "LOAD", "return 1")
    assert (evaluate[0], evaluate[2]) == ("EVALSHA", 0)


async def test_the_throw_away_keys_are_deleted_at_the_end() -> None:
    server = Server()
    await server.missing("ASR")
    name, *keys = server.sent[-1]
    used = {
        str(w) for command in server.sent for w in command if str(w).startswith("dialer:doctor")
    }
    assert (name, set(keys)) == (
        "DEL",
        {key for key in used if ":" in key[len("dialer:doctor-") :]},
    )
    assert keys


async def test_each_missing_right_is_named_once() -> None:
    server = Server(
        HGET="no permissions to run 'hget'",
        SCRIPT="no permissions to run 'script|load'",
        LREM="No permissions to access a key",
        SETRANGE="No permissions to access a key",
    )
    missing = await server.missing("ASR")
    assert missing[:3] == ["+hget", "~dialer:*", missing[2]]
    assert missing[-1] == "+script|load"
    assert len(missing) == len(set(missing)) == 9
    assert all(right.startswith("~") for right in missing[2:-1])
