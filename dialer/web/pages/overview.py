"""The overview: one row per cell and per PBX, what is wrong first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dialer.domain.call import Result
from dialer.domain.parameters import Setting
from dialer.store.ledger import Minute, Outcomes, by_result
from dialer.web.access import Page
from dialer.web.hub import Look
from dialer.web.live import LivePage
from dialer.web.site import Site

#: Seconds of a minute.
MINUTE_S = 60


async def context(site: Site, look: Look, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what the overview shows."""
    seen = look.seen
    return {
        "troubles": [*seen.unfit, *seen.snapshot.troubles()],
        "cells": [cell_row(site, look, name) for name in seen.snapshot.cells],
        "pbxs": [pbx_row(look, name) for name in seen.snapshot.pbxs],
    }


def cell_row(site: Site, look: Look, name: str) -> dict[str, Any]:
    """Return what is shown of a cell."""
    seen, paused = look.seen, look.seen.live.paused.get(name)
    return {
        "name": name,
        "decision": seen.snapshot.decision(name),
        "counts": seen.snapshot.cells[name].counts,
        "is_read": not seen.snapshot.cells[name].unreadable,
        "threads": seen.snapshot.threads.get(name, 0),
        "paused": paused,
        "paused_at": when(paused),
        "zone": seen.live.settings.cell(name).limits.time_zone,
        "per_minute": _per_minute(site.collector.minutes(name)),
        "answer_rate": answer_rate(seen.snapshot.cells[name].outcomes),
        "team": seen.snapshot.team(name),
    }


def pbx_row(look: Look, name: str) -> dict[str, Any]:
    """Return what is shown of a PBX."""
    state, drained = look.seen.snapshot.pbxs[name], look.seen.live.drained.get(name)
    return {
        "name": name,
        "state": state,
        "obstacle": state.obstacle(),
        "drained": drained,
        "drained_at": when(drained),
    }


def when(setting: Setting | None) -> datetime | None:
    """Return when somebody set a live value."""
    return datetime.fromtimestamp(setting.at_ms / 1000, UTC) if setting is not None else None


def answer_rate(outcomes: Outcomes) -> float | None:
    """Return the share of dialed calls that customers answered, None if none was dialed."""
    dialed = by_result(Outcomes({key: n for key, n in outcomes.items() if key[0]}))
    total = dialed.total()
    return dialed[Result.ANSWERED] / total if total else None


def _per_minute(minutes: Mapping[int, Minute]) -> int:
    """Return the calls of the last full minute; the newest minute that was read is the present one.

    The minutes are those of Redis's clock, which may differ from ours.
    """
    last = minutes.get(max(minutes, default=0) - 1, Minute())
    return sum(n for (pbx, _), n in last.outcomes.items() if pbx)


LIVE: Sequence[LivePage] = (
    LivePage(
        path="/",
        template="overview.html",
        live_template="overview_live.html",
        context=context,
    ),
)
PAGES: Sequence[Page] = ()
