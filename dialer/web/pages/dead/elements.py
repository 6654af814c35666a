"""The dead elements of a cell, with the settings in force, and those that a form names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.requests import Request

from dialer.dead_list import HANDLED, SOUGHT_AMONG, DeadElements
from dialer.errors import ConfigError
from dialer.store.ledger import DeadEntry, DeadList
from dialer.web.hub import Look
from dialer.web.site import WITHIN_S, site_of, visitor_of

#: Entries that one form sends or discards.
MANY: Final = 200

#: The field of an entry in a form is this with the entry's name.
FIELD: Final = "entry."

#: What is said of an entry that is not found.
GONE: Final = f"{HANDLED}, or it is not among the newest {SOUGHT_AMONG:,}"

_NAME: Final = re.compile(r"[0-9a-f]{10}")


def elements(request: Request, look: Look, cell: str) -> DeadElements:
    """Return what the visitor can do with the dead elements of a cell.

    Raises:
        ConfigError: there is no such cell.
    """
    settings = look.seen.live.settings  # PBXs and trunks are live
    dead = DeadList(site_of(request).steps_of(cell), cell, settings.multcall.push)
    return DeadElements(dead, settings, settings.cell(cell), visitor_of(request).name)


def names_in(form: Mapping[str, str]) -> list[str]:
    """Return the names of the entries that a form chooses: the ticked ones, or all it shows.

    Raises:
        ConfigError: these are none, or too many.
    """
    if form.get("all"):
        given = form.get("shown", "").split()
    else:
        given = [name.removeprefix(FIELD) for name in form if name.startswith(FIELD)]
    names = [name for name in dict.fromkeys(given) if _NAME.fullmatch(name)]
    if not names:
        raise ConfigError("no entry is chosen: tick those that you mean")
    if len(names) > MANY:
        raise ConfigError(f"these are {len(names)} entries: choose at most {MANY} at a time")
    return names


async def named(dead: DeadList, names: Sequence[str]) -> list[DeadEntry]:
    """Return the entries of these names that are still there, the oldest first.

    They are sought among the newest. What cannot be a name is not sought.
    """
    sought = [name for name in names if _NAME.fullmatch(name)]
    if not sought:
        return []
    async with asyncio.timeout(WITHIN_S):
        found = await dead.newest(len(sought), names=sought, among=SOUGHT_AMONG)
    return found[::-1]
