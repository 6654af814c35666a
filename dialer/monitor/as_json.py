"""The snapshot as `dialer monitor --json` writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dialer.monitor.snapshot import OUTCOMES_OF_MIN, Snapshot
from dialer.settings.live import Live
from dialer.store.ledger import by_result
from dialer.store.redis_url import place_of


def as_json(
    snapshot: Snapshot, live: Live, cell_urls: Mapping[str, str], of_servers: Sequence[str]
) -> dict[str, Any]:
    """Return the snapshot as values of JSON. Seconds have `_s` in their names."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "cells": [_cell(name, snapshot, live, cell_urls) for name in snapshot.cells],
        "pbxs": [_pbx(name, snapshot) for name in snapshot.pbxs],
        "troubles": [*of_servers, *snapshot.troubles()],
    }


def _cell(
    name: str, snapshot: Snapshot, live: Live, cell_urls: Mapping[str, str]
) -> dict[str, Any]:
    counts, decision = snapshot.cells[name].counts, snapshot.decision(name)
    return {
        "cell": name,
        "server": place_of(cell_urls[name]),
        "dialing": decision.is_dialing,
        "limit": decision.limit,
        "sentence": decision.sentence,
        "paused": snapshot.paused.get(name),
        "threads": live.settings.cell(name).threads,
        "pbxs": [*snapshot.pbxs_of_cells.get(name, ())],
        "waiting": counts.waiting,
        "parked": dict(counts.parked),
        "calls": counts.live,
        "unclaimed": counts.unclaimed,
        "awaiting_code": counts.awaiting,
        "dead": counts.dead,
        "lists": dict(counts.lists),
        "outcomes": by_result(snapshot.cells[name].outcomes),
        "outcomes_of_s": OUTCOMES_OF_MIN * 60,
        "agents": asdict(team) if (team := snapshot.team(name)) is not None else None,
    }


def _pbx(name: str, snapshot: Snapshot) -> dict[str, Any]:
    pbx = snapshot.pbxs[name]
    return {
        "pbx": name,
        "ready": pbx.load.ready,
        "link": pbx.link or None,
        "drained": pbx.drained or None,
        "calls": pbx.load.calls,
        "max_calls": pbx.load.max_calls,
        "cps": pbx.cps,
        "starts_now": pbx.load.starts,
        "heartbeat_age_s": None if math.isinf(pbx.silent_s) else round(pbx.silent_s, 3),
        "lacking": dict(pbx.lacking),
        "why_not_taking": pbx.why_not_taking() or None,
    }
