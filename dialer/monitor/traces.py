"""`dialer traces`: each call that ended, as a trace of OpenTelemetry sent over OTLP/HTTP.

The times are those of the ledger, read when a call has ended: bridge and worker do nothing for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final, Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from redis.exceptions import RedisError

from dialer.domain.story import Step, Story
from dialer.errors import DialerError
from dialer.monitor.collector import Collector
from dialer.settings import Settings
from dialer.store.ledger import LedgerReads

logger = logging.getLogger(__name__)

#: Pause between two looks at the ended calls, in seconds.
LOOK_EVERY_S: Final = 1.0

#: Ended calls that a cell keeps, see `_finish.lua`. If all are new, some may have been missed.
ENDED_KEPT: Final = 1000

#: Calls whose traces wait for a collector that is away; the oldest are dropped then.
WAITING_MAX: Final = 10_000

#: Calls sent in one request.
SENT_AT_ONCE: Final = 500

#: The collector has so long to answer, in seconds.
SENT_WITHIN_S: Final = 5.0

RESOURCE: Final = Resource.create({"service.name": "multcall-dialer"})

#: What a call does after it reached a state. The last state has no span of its own.
_NAMES: Final = {
    "queued": "wait for the worker",
    "originating": "originate",
    "accepted": "ring",
    "answered": "talk",
}


class Exporter(Protocol):
    """What sends spans; `OTLPSpanExporter`."""

    def export(self, spans: Sequence[ReadableSpan], /) -> SpanExportResult:
        """Send them; say whether the collector took them."""
        ...


# --- one call --------------------------------------------------------------------------------


def trace_id(call_id: str) -> int:
    """Return the id of a call's trace: the first 16 bytes of the SHA-256 of the call id."""
    return int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:16])


def spans_of(story: Story) -> list[ReadableSpan]:
    """Return the spans of a call: one for the whole call, and one for each state that it left.

    They are the same each time, so that a call that is sent twice is one trace. Telephone numbers
    are not in them. A call without a known time has no spans.
    """
    if not story.steps:
        return []
    whole = _context(story.call_id, "call")
    ends = [step.at for step in story.steps]
    cell, _, request_id = story.call_id.partition(":")
    attributes = {
        "dialer.call_id": story.call_id,
        "dialer.request_id": request_id,
        "dialer.cell": cell,
        "dialer.pbx": story.pbx,
        "dialer.result": story.result,
        "dialer.error": story.error,
    }
    root = ReadableSpan(
        "call",
        context=whole,
        resource=RESOURCE,
        attributes={name: value for name, value in attributes.items() if value},
        status=Status(StatusCode.ERROR, story.error) if story.error else Status(),
        start_time=_ns(ends[0]),
        end_time=_ns(max(ends)),
    )
    return [root, *_parts(story.call_id, story.steps, whole)]


def _parts(call_id: str, steps: Sequence[Step], whole: SpanContext) -> Iterator[ReadableSpan]:
    for step, following in pairwise(steps):
        yield ReadableSpan(
            _NAMES.get(step.state, step.state),
            context=_context(call_id, step.state),
            parent=whole,
            resource=RESOURCE,
            attributes={"dialer.state": step.state, "dialer.by": step.by},
            start_time=_ns(step.at),
            end_time=_ns(max(step.at, following.at)),  # the clocks of two hosts may differ
        )


def _context(call_id: str, name: str) -> SpanContext:
    digest = hashlib.sha256(f"{call_id} {name}".encode()).digest()
    return SpanContext(
        trace_id=trace_id(call_id),
        span_id=int.from_bytes(digest[:8]),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _ns(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


# --- all calls -------------------------------------------------------------------------------


@dataclass(slots=True)
class Traces:
    """Finds the calls of some cells that ended since the last look, and sends their traces.

    What ended before the first look is not sent.
    """

    cells: Sequence[LedgerReads]
    exporter: Exporter
    _seen: dict[str, set[str]] = field(default_factory=dict)
    _waiting: dict[str, list[ReadableSpan]] = field(default_factory=dict)
    _troubles: set[str] = field(default_factory=set)

    async def look(self) -> None:
        """Read what ended, and send it. What cannot be read or sent is tried at the next look."""
        await asyncio.gather(*map(self._read, self.cells))
        while self._waiting:
            names = list(self._waiting)[:SENT_AT_ONCE]
            spans = [span for name in names for span in self._waiting[name]]
            sent = await asyncio.to_thread(self.exporter.export, spans)
            if sent is not SpanExportResult.SUCCESS:
                error = "it takes no traces: see that it runs, and --endpoint"
                self._trouble("collector", error)
                self._drop()
                return
            self._trouble("collector", "")
            for name in names:
                del self._waiting[name]

    async def _read(self, reads: LedgerReads) -> None:
        try:
            ended = [one.call_id for one in await reads.ended(ENDED_KEPT)]
            seen = self._seen.get(reads.cell)
            new = [one for one in reversed(ended) if seen is not None and one not in seen]
            stories = await asyncio.gather(*map(reads.story, new))
        except (RedisError, OSError, DialerError) as error:
            self._trouble(reads.cell, str(error) or "Redis does not answer")
            return
        self._trouble(reads.cell, "")
        self._seen[reads.cell] = set(ended)
        if len(new) >= ENDED_KEPT:
            logger.warning(
                "More calls ended than can be traced; some have no trace",
                extra={"cell": reads.cell, "calls": len(new)},
            )
        for story in stories:
            if story is not None and (spans := spans_of(story)):
                self._waiting[story.call_id] = spans

    def _drop(self) -> None:
        """Drop the oldest traces if too many wait."""
        dropped = list(self._waiting)[: max(0, len(self._waiting) - WAITING_MAX)]
        for name in dropped:
            del self._waiting[name]
        if dropped:
            logger.warning("Traces dropped; too many wait", extra={"calls": len(dropped)})

    def _trouble(self, of: str, error: str) -> None:
        """Log what does not work, and with an empty error that it works again, once each."""
        if error and of not in self._troubles:
            self._troubles.add(of)
            logger.error("Traces wait; trying again", extra={"of": of, "error": error})
        elif not error and of in self._troubles:
            self._troubles.discard(of)
            logger.info("Traces go on", extra={"of": of})


async def serve(settings: Settings, endpoint: str) -> None:
    """Send the traces of ended calls to a collector until SIGTERM or SIGINT.

    `endpoint` is its URL, without the path `/v1/traces`. The variables of OpenTelemetry that begin
    with `OTEL_EXPORTER_OTLP_` set headers and certificates.

    Raises:
        StoreUnavailable: the registry's Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
    """
    # It logs a failed request by itself, with its whole traceback; ours has the sentence.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    url = f"{endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, timeout=SENT_WITHIN_S)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Collector(settings, needs_every_redis=False) as collector:
        reads = [
            LedgerReads(collector.steps_at(redis_url), cell)
            for cell, redis_url in collector.cell_urls.items()
        ]
        traces = Traces(reads, exporter)
        await traces.look()
        logger.info("Traces ready", extra={"url": url, "cells": len(reads)})
        while not stop.is_set():
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                await traces.look()
        await traces.look()
