"""Commands for the users of the web page: `dialer users add|list|role|password|remove|link`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from dialer.cli.groups import EXIT_NO, group
from dialer.cli.tables import table
from dialer.domain.roles import Role
from dialer.errors import DialerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dialer.store.people import People, User

_Answer = TypeVar("_Answer")

#: Bytes of standard input that are read for a password; more is none.
PASSWORD_AT_MOST: Final = 4096

users = group("Manage the users of the web page: who signs in, and what they may do there.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name with which the user signs in.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@users.command("add")
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What the user may do.")],
    password_stdin: FromStdin = False,
) -> None:
    """Add a user. Without --password-stdin the password is asked for at the terminal."""
    from dialer.cli.steer import operator
    from dialer.domain.people import require_name

    require_name(name)
    kept = _hash_of_new_password(password_stdin)
    if not _with_people(lambda people: people.add(name, role, kept, by=operator())):
        raise DialerError(
            f"there is a user {name}; change it with `dialer users role {name} {role}` or "
            f"`dialer users password {name}`"
        )
    typer.echo(f"{name} is added: {role}")


@users.command("list")
def list_users(
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each user.")] = False,
) -> None:
    """List the users."""
    found = _with_people(lambda people: people.users())
    head = ("USER", "ROLE", "PASSWORD", "ADDED (UTC)", "BY")
    for line in map(_json, found) if json else table(head, [_row(user) for user in found]):
        typer.echo(line)
    if not found:
        typer.echo("no users yet; `dialer users add` adds one", err=True)


@users.command("role")
def role(
    name: Name, role: Annotated[Role, typer.Argument(help="What the user may do from now on.")]
) -> None:
    """Give a user another role. The user has to sign in again."""
    from dialer.cli.steer import operator

    _with_people(lambda people: people.change_role(name, role, operator()))
    typer.echo(f"{name} has the role {role}")


@users.command("password")
def password(name: Name, password_stdin: FromStdin = False) -> None:
    """Give a user another password. The user has to sign in again."""
    from dialer.cli.steer import operator

    kept = _hash_of_new_password(password_stdin)
    _with_people(lambda people: people.set_password(name, kept, operator()))
    typer.echo(f"{name} has the new password")


@users.command("remove")
def remove(name: Name) -> None:
    """Remove a user, who is signed out at once; exit code 1 if there is none."""
    from dialer.cli.steer import operator

    if not _with_people(lambda people: people.remove(name, operator())):
        typer.echo(f"there is no user {name}", err=True)
        raise typer.Exit(EXIT_NO)
    typer.echo(f"{name} is removed")


@users.command("link")
def link(
    name: Name,
    role: Annotated[
        Role | None, typer.Option(help="Role of a new user; default: the role that the user has.")
    ] = None,
) -> None:
    """Print a link with which a person sets the password of a user, once, within an hour."""
    from dialer.cli.steer import operator
    from dialer.domain.people import require_name

    require_name(name)

    async def made(people: People) -> str:
        given = role
        if given is None:
            known = await people.user(name)
            if known is None:
                raise DialerError(f"there is no user {name}; give --role to make a link for one")
            given = known.role
        return await people.new_link(name, given, by=operator())

    typer.echo(f"/login?link={_with_people(made)}")
    typer.echo("open it below the address of `dialer web`: once, within an hour", err=True)


def _hash_of_new_password(from_stdin: bool) -> str:
    """Read a password, and return what is kept of it.

    Raises:
        DialerError: there is none, it is too short or too long, or argon2 is not installed.
    """
    from dialer.passwords import hashed, require_good

    given = _from_stdin() if from_stdin else _from_terminal()
    require_good(given)
    return hashed(given)


def _from_stdin() -> str:
    """Return the one line of standard input."""
    import sys

    text = sys.stdin.buffer.read(PASSWORD_AT_MOST).decode(errors="surrogateescape")
    given = text.removesuffix("\n").removesuffix("\r")
    if "\n" in given or "\r" in given:
        raise DialerError("standard input has several lines; give only the password")
    return given


def _from_terminal() -> str:
    """Ask twice, and show nothing of what is typed."""
    import sys

    if not sys.stdin.isatty():
        raise DialerError(
            "there is no terminal to ask for the password; give it with --password-stdin"
        )
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt="The same again")
    return given


def _with_people(work: Callable[[People], Awaitable[_Answer]]) -> _Answer:
    from dialer.cli.registry import with_registry
    from dialer.settings import load
    from dialer.store.people import People

    return with_registry(load(), lambda steps: work(People(steps)))


def _added(user: User) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(user.created_ms / 1000, UTC).isoformat(sep=" ")[:19]


def _row(user: User) -> tuple[str, ...]:
    has_password = "yes" if user.has_password else "no"
    return (user.name, user.role, has_password, _added(user), user.by)


def _json(user: User) -> str:
    import json

    shown = {
        "user": user.name,
        "role": user.role,
        "has_password": user.has_password,
        "added": f"{_added(user).replace(' ', 'T')}Z",
        "by": user.by,
    }
    return json.dumps(shown, ensure_ascii=False)
