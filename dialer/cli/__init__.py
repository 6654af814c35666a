"""The command line `dialer`: the list of its commands and the entry point.

One module per command group. Owns what is printed on the terminal and the exit codes: 0 done,
1 the answer is no, 2 a `DialerError` (one sentence on standard error), 130 interrupted.
Each command imports what it needs when it runs, so that the help appears at once.
"""

from __future__ import annotations

import sys

from dialer.cli import (
    call,
    dead,
    dnc,
    doctor,
    programs,
    settings,
    simulate,
    steer,
    users,
    why,
    wire,
)
from dialer.cli.groups import EXIT_ERROR, group
from dialer.errors import DialerError

app = group("Place Multcall's calls on Asterisk PBXs.")
app.command()(programs.bridge)
app.command()(programs.demo)
app.command()(programs.monitor)
app.command()(programs.metrics)
app.command()(programs.traces)
app.command()(programs.web)
app.command()(doctor.doctor)
app.command()(call.call)
app.command()(why.why)
app.add_typer(steer.cells, name="cells")
app.add_typer(steer.pbx, name="pbx")
app.add_typer(steer.changes, name="changes")
app.add_typer(settings.config, name="config")
app.add_typer(simulate.simulate, name="simulate")
app.add_typer(dead.dead, name="dead")
app.add_typer(dnc.dnc, name="dnc")
app.add_typer(users.users, name="users")
app.add_typer(wire.wire, name="wire")


def main() -> None:
    """Run the program `dialer`; print a `DialerError` as one sentence and exit with code 2."""
    try:
        app(prog_name="dialer")
    except DialerError as error:
        sys.stderr.write(f"dialer: {error}\n")
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not type(error).__module__.startswith("redis."):
            raise
        sys.stderr.write(f"dialer: Redis refuses: {error}; `dialer doctor` says what is wrong\n")
        sys.exit(EXIT_ERROR)
