"""Command groups without Typer's extras, and the exit codes of commands."""

from __future__ import annotations

from typing import Final

import typer

EXIT_NO: Final = 1
EXIT_ERROR: Final = 2


def group(purpose: str, *, lists: bool = False) -> typer.Typer:
    """Return an empty command group; `purpose` is the first line of its help.

    `lists`: the group alone is a command too, its callback.
    """
    return typer.Typer(
        help=purpose,
        no_args_is_help=not lists,
        invoke_without_command=lists,
        add_completion=False,
        # Pretty exceptions would print local variables, and with them secrets.
        pretty_exceptions_enable=False,
    )
