"""The settings in force, for commands that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dialer.cli.tables import printable
from dialer.errors import StoreUnavailable, StoreUnfit

if TYPE_CHECKING:
    from dialer.domain.parameters import Parameters
    from dialer.settings import Settings
    from dialer.settings.live import Live


def read_live(file: Settings) -> tuple[Live, Parameters | None]:
    """Return the settings in force, and the live parameters.

    If the registry's Redis is away, a warning is printed, the settings are those of the file, and
    the parameters None.
    """
    from dialer.cli.registry import with_registry
    from dialer.domain.parameters import Parameters
    from dialer.settings.live import with_parameters
    from dialer.store.parameters import ParameterStore

    parameters: Parameters | None
    try:
        parameters = with_registry(file, lambda steps: ParameterStore(steps).read())
    except (StoreUnavailable, StoreUnfit) as error:
        typer.echo(f"warning: the live parameters are not known: {error}", err=True)
        parameters = None
    live = with_parameters(file, parameters or Parameters())
    for problem in live.problems:
        typer.echo(printable(f"warning: a live parameter is not in force: {problem}"), err=True)
    return live, parameters
