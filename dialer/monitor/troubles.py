"""Sentences about what prevents calls from being dialed or answered, each with its cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dialer.store.ledger import Late
from dialer.store.registry import (
    PBX_SILENT_AFTER_S,
    SKEW_MAX_S,
    SKEW_WARNED_S,
    BridgeState,
    PbxState,
    skew_words,
)

#: A heartbeat that is older is named, although calls may still go there, in seconds.
HEARTBEAT_LATE_S: Final = 2.5

#: A bridge whose last heartbeat is older does not serve its cells, in seconds.
BRIDGE_SILENT_AFTER_S: Final = 4.0

#: A share of calls that ended at once is named from here on.
NAMED_SHARE: Final = 0.05


def of_pbx(name: str, pbx: PbxState, worker: str = "") -> Iterator[str]:
    """Yield what is wrong with a PBX, apart from single cells.

    `worker` is the pid and host of a worker that serves one of its cells, '' if none does.
    """
    if not pbx.instance and worker:
        yield (
            f"{name}: its worker, {worker}, uses another registry than this dialer.toml: make "
            "[registry] redis_url, and that of [multcall], equal on both hosts"
        )
    elif not pbx.instance:
        yield f"{name}: no worker yet; start 'celery -A dialer worker -Q {name}' on its host"
    elif pbx.link == "stopping":
        yield f"{name}: its worker was stopped"
    elif pbx.silent_s >= PBX_SILENT_AFTER_S:
        yield f"{name}: no heartbeat of its worker for {pbx.silent_s:.0f} s; see its log"
    elif pbx.trouble:
        yield f"{name} takes no calls: {pbx.trouble}"
    elif pbx.link != "up":
        yield f"{name}: no AMI link for {pbx.unready_s:.0f} s; is its Asterisk up?"
    else:
        yield from _of_working(name, pbx)
    if pbx.drained:
        yield f"{name} is {pbx.drained}"


def _of_working(name: str, pbx: PbxState) -> Iterator[str]:
    """Yield what is wrong with a PBX whose worker says that it is ready."""
    if pbx.silent_s >= HEARTBEAT_LATE_S:
        yield f"{name}: no heartbeat of its worker for {pbx.silent_s:.0f} s"
    if abs(pbx.skew_s) > SKEW_MAX_S:
        yield f"{name} TAKES NO CALLS: {skew_words(pbx.skew_s)}"
    elif abs(pbx.skew_s) > SKEW_WARNED_S:
        yield f"{name}: {skew_words(pbx.skew_s)}"
    if pbx.verdict is not None:
        failed = f", {pbx.verdict.trials} failed" if pbx.verdict.trials else ""
        yield f"{name} is not taking calls: {pbx.verdict.reason}; single calls try it{failed}"
    elif (bad := pbx.results.at_once) and bad >= NAMED_SHARE * pbx.results.claimed:
        share = 100 * bad / max(bad, pbx.results.claimed)
        yield f"{name}: {pbx.results.in_words()} ({share:.0f} %)"
    if pbx.results.is_congested:
        yield (
            f"{name}: {pbx.results.congested} of its {pbx.results.claimed} calls of the last "
            "minute ended in CONGESTION: ask the carrier, and see that its trunks are registered "
            "and have channels free"
        )
    for sentence in pbx.governed.in_words(pbx.cps):
        yield f"{name}: {sentence}"
    if 0 < pbx.cap < pbx.max_calls:
        yield (
            f"{name}: maxcalls in its asterisk.conf leaves room for {pbx.cap} of its calls, and "
            f"its max_calls is {pbx.max_calls}; raise maxcalls, or lower max_calls"
        )


def of_messages(name: str, pbx: PbxState) -> Iterator[str]:
    """Yield that messages do not reach a PBX's worker, which finds its calls all the same."""
    if pbx.results.is_unannounced:
        yield (
            f"{name}: no message announced {pbx.results.unannounced} of its {pbx.results.claimed} "
            "calls of the last minute in time; its worker found them itself, each a second late: "
            "was the broker down, is [broker] url the same on its host and on the bridge's, and "
            f"does no other program take from the queue {name}?"
        )


def of_late_calls(
    cell: str, unclaimed: Mapping[str, Late], unanswered: Mapping[str, Late]
) -> Iterator[str]:
    """Yield which PBXs leave calls of a cell waiting."""
    for pbx, late in unclaimed.items():
        yield (
            f"{pbx} has not claimed {_calls(late)} of {cell}, queued to it for up to "
            f"{late.oldest_s:.0f} s; see the log of its worker"
        )
    for pbx, late in unanswered.items():
        yield (
            f"{pbx}: Asterisk has not answered the Originate of {_calls(late)} of {cell} for up "
            f"to {late.oldest_s:.0f} s; does it hang?"
        )


def of_bridges(
    cells: Mapping[str, Mapping[str, float]], said: Mapping[str, BridgeState]
) -> Iterator[str]:
    """Yield which cells have no bridge, and what is wrong with the bridges that live.

    `cells` has for each cell its bridges with the seconds since their heartbeats.
    """
    living: set[str] = set()
    for cell, bridges in cells.items():
        alive = {name for name, silent_s in bridges.items() if silent_s < BRIDGE_SILENT_AFTER_S}
        living |= alive
        if not alive:
            since = f" for {min(bridges.values()):.0f} s" if bridges else ""
            yield f"{cell}: no bridge serves it{since}; start 'dialer bridge'"
    for name in sorted(living & said.keys()):
        state = said[name]
        if state.broker:
            yield f"bridge {name}: the broker takes no tasks: {state.broker}"
        if abs(state.skew_s) > SKEW_WARNED_S:
            loud = "WRONG CLOCK: " if abs(state.skew_s) > SKEW_MAX_S else ""
            yield f"bridge {name}: {loud}{skew_words(state.skew_s)}"


def _calls(late: Late) -> str:
    return f"{late.calls} call{'s' * (late.calls > 1)}"
