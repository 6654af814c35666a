"""The heartbeat of a bridge in many cells of one server, which tells which have anything to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from dialer.multcall.keys import CellKeys
from dialer.store.keys import BRIDGE_FORGOTTEN_AFTER_S, IDLE_RETENTION_S, LedgerKeys
from dialer.store.ledger.bridge import BRIDGE_DEAD_AFTER_S
from dialer.store.steps import Steps

#: Cells in one step, so that other clients of Redis do not wait long.
CELLS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulsed:
    """What a pulse found in one cell.

    `is_quiet`: no calls, nothing parked, nothing in the bridge's hands. `can_take_over`: `takeover`
    has something to do. `code_in_s` is how soon a code is overdue, infinite for never;
    `unclaimed_s` how long ago the oldest unclaimed call was published, minus infinite for none.
    `live` are its calls, `waiting` the requests in Multcall's list; 0 in a quiet cell.
    """

    is_quiet: bool
    can_take_over: bool
    code_in_s: float = math.inf
    unclaimed_s: float = -math.inf
    live: int = 0
    waiting: int = 0


async def pulse(
    steps: Steps, bridge: str, cells: Sequence[LedgerKeys], *, is_renewal: bool
) -> list[Pulsed | RedisError]:
    """Send the heartbeat of `bridge` in these cells; return what each has, or why Redis refused.

    `is_renewal` renews the lifetime of the heartbeats.
    """
    found: list[Pulsed | RedisError] = []
    for start in range(0, len(cells), CELLS_AT_ONCE):
        part = cells[start : start + CELLS_AT_ONCE]
        replies = await steps.run(
            "pulse",
            [key for keys in part for key in _keys(keys, bridge)],
            [
                bridge,
                int(BRIDGE_DEAD_AFTER_S * 1000),
                BRIDGE_FORGOTTEN_AFTER_S * 1000,
                IDLE_RETENTION_S,
                int(is_renewal),
                *(prefix for keys in part for prefix in (keys.hand(""), keys.code_hand(""))),
            ],
        )
        found += [_pulsed(reply) for reply in replies]
    return found


def _keys(keys: LedgerKeys, bridge: str) -> tuple[str, ...]:
    return (
        *(keys.bridges, keys.live, keys.parking, keys.hand(bridge), keys.code_hand(bridge)),
        *(keys.awaiting, keys.queued, CellKeys(keys.cell).request),
    )


def _pulsed(reply: Any) -> Pulsed | RedisError:
    if isinstance(reply, bytes):
        return ResponseError(reply.decode(errors="replace"))
    is_quiet, can_take_over, code_ms, call_ms, live, waiting = reply
    return Pulsed(
        is_quiet=bool(is_quiet),
        can_take_over=bool(can_take_over),
        code_in_s=code_ms / 1000 if code_ms >= 0 else math.inf,
        unclaimed_s=call_ms / 1000 if call_ms >= 0 else -math.inf,
        live=live,
        waiting=waiting,
    )
