"""`dialer users add|list|role|password|remove|link` on a real Redis: output and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from dialer.cli import app
from dialer.cli.groups import EXIT_ERROR, EXIT_NO
from dialer.cli.steer import operator
from dialer.domain.roles import Role
from dialer.passwords import is_right
from dialer.store.client import connect
from dialer.store.people import Did, LastAdmin, Link, NoSuchUser, People
from dialer.store.steps import Steps
from tests.processes import PbxPlace, site_toml

Users = Callable[..., Result]
Answer = TypeVar("Answer")

PASSWORD = b"correct horse\n"


@pytest.fixture
def users(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Users:
    """Run `dialer users ...` with settings whose registry is `redis_url`."""
    pbx = PbxPlace(name="pbx01", port=5038, secret="x")
    config = tmp_path / "dialer.toml"
    config.write_text(site_toml(redis_url, redis_url, [pbx], cells={"ASR_TIM": {}}))
    monkeypatch.setenv("DIALER_CONFIG", str(config))
    return lambda *arguments, stdin=b"": CliRunner().invoke(app, ["users", *arguments], input=stdin)


def asked(redis_url: str, work: Callable[[People], Awaitable[Answer]]) -> Answer:
    async def connected() -> Answer:
        steps = Steps(connect(redis_url), "the registry's Redis")
        try:
            return await work(People(steps))
        finally:
            await steps.close()

    return asyncio.run(connected())


def add(users: Users, name: str, role: str = "view", stdin: bytes = PASSWORD) -> Result:
    return users("add", name, "--role", role, "--password-stdin", stdin=stdin)


def test_a_user_is_added_with_the_password(users: Users, redis_url: str) -> None:
    assert add(users, "ana", "admin").stdout == "ana is added: admin\n"
    kept = asked(redis_url, lambda people: people.password_hash("ana"))
    assert is_right(kept, "correct horse")
    (deed,) = asked(redis_url, lambda people: people.deeds(9))
    assert (deed.by, deed.did, deed.what) == (operator(), Did.USER_ADDED, "ana: admin")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=repr)
def test_the_end_of_the_line_is_no_part_of_a_password(
    users: Users, redis_url: str, end: bytes
) -> None:
    add(users, "ana", stdin="senha de João".encode() + end)
    kept = asked(redis_url, lambda people: people.password_hash("ana"))
    assert is_right(kept, "senha de João")


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "the password has 0 characters; choose one with 10 to 200"),
        (b"short\n", "the password has 5 characters; choose one with 10 to 200"),
        (b"x" * 9999, "the password has 4096 characters; choose one with 10 to 200"),
        (
            b"one password\nanother one\n",
            "standard input has several lines; give only the password",
        ),
        (
            b"\xff" * 12,
            "the password has bytes that are no characters; type it, or send it as UTF-8",
        ),
    ],
    ids=["none", "short", "long", "lines", "bytes"],
)
def test_a_bad_password_is_one_sentence(users: Users, stdin: bytes, said: str) -> None:
    assert str(add(users, "ana", stdin=stdin).exception) == said
    assert users("list").stderr.startswith("no users yet")


def test_without_a_terminal_the_password_is_not_asked_for(users: Users) -> None:
    for command in (("add", "ana", "--role", "view"), ("password", "ana")):
        assert str(users(*command, stdin=PASSWORD).exception) == (
            "there is no terminal to ask for the password; give it with --password-stdin"
        )


def test_at_a_terminal_the_password_is_asked_for_twice(users: Users, redis_url: str) -> None:
    command = [sys.executable, "-m", "dialer.cli", "users", "add", "ana", "--role", "view"]
    terminal, inside = os.openpty()
    program = subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    said = until(terminal, b"Password: ")
    for answer, question in ((PASSWORD, b"again: "), (b"another horse\n", b"Password: ")):
        os.write(terminal, answer)
        said += until(terminal, question)
    os.write(terminal, PASSWORD)
    said += until(terminal, b"again: ")
    os.write(terminal, PASSWORD)
    said += until(terminal, b"ana is added: view")
    assert program.wait() == 0
    os.close(terminal)
    assert b"horse" not in said
    kept = asked(redis_url, lambda people: people.password_hash("ana"))
    assert is_right(kept, "correct horse")


def until(terminal: int, end: bytes) -> bytes:
    """Read what a program writes, until it wrote `end`."""
    said = b""
    while end not in said:
        said += os.read(terminal, 4096)
    return said


def test_a_user_is_not_added_over_another(users: Users, redis_url: str) -> None:
    add(users, "ana", "view")
    assert str(add(users, "ana", "admin", b"another horse").exception) == (
        "there is a user ana; change it with `dialer users role ana admin` or `dialer users "
        "password ana`"
    )
    (ana,) = asked(redis_url, lambda people: people.users())
    assert ana.role is Role.VIEW
    assert "cannot be the name of a user" in str(add(users, "a b").exception)


def test_users_are_listed(users: Users) -> None:
    nobody = users("list")
    assert (nobody.exit_code, nobody.stdout.splitlines()[1:]) == (0, [])
    assert nobody.stderr == "no users yet; `dialer users add` adds one\n"
    add(users, "bia", "operate")
    add(users, "ana", "admin")
    head, ana, bia = users("list").stdout.splitlines()
    assert head.split() == ["USER", "ROLE", "PASSWORD", "ADDED", "(UTC)", "BY"]
    by = re.escape(operator())
    assert re.fullmatch(rf"ana +admin +yes +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +{by}", ana)
    assert bia.split()[:3] == ["bia", "operate", "yes"]
    rows = [json.loads(line) for line in users("list", "--json").stdout.splitlines()]
    assert [(row["user"], row["role"], row["has_password"]) for row in rows] == [
        ("ana", "admin", True),
        ("bia", "operate", True),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0]["added"])
    assert rows[0]["by"] == operator()


def test_a_role_is_changed(users: Users, redis_url: str) -> None:
    add(users, "ana")
    assert users("role", "ana", "operate").stdout == "ana has the role operate\n"
    (ana,) = asked(redis_url, lambda people: people.users())
    assert ana.role is Role.OPERATE
    assert isinstance(users("role", "eva", "view").exception, NoSuchUser)
    assert users("role", "ana", "boss").exit_code == EXIT_ERROR


def test_a_password_is_changed(users: Users, redis_url: str) -> None:
    add(users, "ana")
    ran = users("password", "ana", "--password-stdin", stdin=b"another horse\n")
    assert ran.stdout == "ana has the new password\n"
    kept = asked(redis_url, lambda people: people.password_hash("ana"))
    assert is_right(kept, "another horse")
    assert not is_right(kept, "correct horse")
    ran = users("password", "eva", "--password-stdin", stdin=PASSWORD)
    assert str(ran.exception) == "there is no user eva; `dialer users list` names all"


def test_a_user_is_removed(users: Users) -> None:
    add(users, "ana")
    assert users("remove", "ana").stdout == "ana is removed\n"
    again = users("remove", "ana")
    assert (again.exit_code, again.stdout) == (EXIT_NO, "")
    assert again.stderr == "there is no user ana\n"


def test_the_last_admin_cannot_be_removed_or_demoted(users: Users) -> None:
    add(users, "ana", "admin")
    for command in (("remove", "ana"), ("role", "ana", "view")):
        assert isinstance(users(*command).exception, LastAdmin)


def test_a_link_is_good_once(users: Users, redis_url: str) -> None:
    made = users("link", "ana", "--role", "admin")
    found = re.fullmatch(r"/login\?link=([\w-]{43})\n", made.stdout)
    assert found is not None
    assert "once, within an hour" in made.stderr
    token = found[1]
    wanted = Link(name="ana", role=Role.ADMIN, enters=False)
    assert asked(redis_url, lambda people: people.use_link(token)) == wanted
    assert asked(redis_url, lambda people: people.use_link(token)) is None
    (deed,) = asked(redis_url, lambda people: people.deeds(9))
    assert (deed.by, deed.did, deed.what) == (operator(), Did.LINK_MADE, "ana: admin")


def test_a_link_keeps_the_role_of_a_user(users: Users, redis_url: str) -> None:
    add(users, "ana", "operate")
    token = users("link", "ana").stdout.strip().removeprefix("/login?link=")
    link = asked(redis_url, lambda people: people.link(token))
    assert link == Link(name="ana", role=Role.OPERATE, enters=False)
    assert str(users("link", "eva").exception) == (
        "there is no user eva; give --role to make a link for one"
    )
    assert "cannot be the name of a user" in str(users("link", "a b").exception)
