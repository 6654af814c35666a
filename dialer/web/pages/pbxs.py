"""The page of a PBX: whether it takes calls, its limits, trunks, cells and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from dialer.domain.parameters import Subject
from dialer.monitor import troubles
from dialer.settings.tables import Pbx
from dialer.store.registry import PbxState, Registry
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage
from dialer.web.pages import steer
from dialer.web.pages.overview import pbx_row
from dialer.web.pages.parameters import operations, parameters_of
from dialer.web.site import Site, site_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """A trunk. `rate` is its governor's limit in calls a second, 0 for none.

    `refused` is the share of calls for which the carrier had no room, if there is a limit.
    """

    name: str
    is_default: bool
    rate: float
    refused: float


async def context(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what is shown of a PBX now.

    Raises:
        ConfigError: there is no such PBX.
    """
    pbx = look.seen.live.settings.pbx(names["pbx"])
    row = pbx_row(look, pbx.name)
    state: PbxState = row["state"]
    return {
        "pbx": row,
        "is_governed": pbx.governor,
        "trunks": trunks_of(pbx, state),
        "warnings": [] if row["obstacle"] else [*troubles.of_pbx(pbx.name, state)],
        "cells": {
            cell: state.lacking.get(cell, "")
            for cell, pbxs in look.seen.snapshot.pbxs_of_cells.items()
            if pbx.name in pbxs
        },
    }


async def around(request: Request) -> Mapping[str, Any]:
    """Return the parameters of a PBX, and its Asterisk."""
    site, name = site_of(request), request.path_params["pbx"]
    return {
        "parameters": await parameters_of(site, Subject("pbx", name)),
        "done": steer.number_in(request.query_params.get("done", "")),
        "asterisk": await Registry(site.collector.registry).asterisk(name),
    }


def trunks_of(pbx: Pbx, state: PbxState) -> list[Trunk]:
    """Return the trunks of a PBX in their order, each with what limits it."""
    limits = state.governed.trunks
    return [
        Trunk(
            name=name,
            is_default=name == pbx.default_trunk,
            rate=limits[name].rate if name in limits else 0.0,
            refused=limits[name].share if name in limits else 0.0,
        )
        for name in pbx.trunks
    ]


PBX: Final = LivePage(
    path="/pbxs/{pbx}",
    template="pbx.html",
    live_template="pbx_live.html",
    context=context,
    around=around,
)
LIVE: Sequence[LivePage] = (PBX,)
PAGES: Sequence[Page] = operations(PBX, "pbx", stop="drain")
