"""`dialer metrics`: the snapshot for Prometheus, taken when it scrapes."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from dialer.domain.limits import Limit
from dialer.errors import DialerError
from dialer.monitor.collector import Collector, Seen
from dialer.settings import Settings
from dialer.store.registry import PbxState

logger = logging.getLogger(__name__)

#: A bridge whose last heartbeat is older is dead, in seconds.
BRIDGE_SILENT_AFTER_S: Final = 4.0

#: A look that takes longer has failed, in seconds. Prometheus gives up after 10 s by default.
WITHIN_S: Final = 5.0


def families(seen: Seen) -> Iterator[Metric]:
    """Yield all metrics of a snapshot. Their labels are cell, pbx, outcome and reason only."""
    yield from _of_cells(seen)
    yield from _of_limits(seen)
    yield _responses(seen)
    yield from _of_pbxs(seen.snapshot.pbxs)
    yield _gauge("dialer_troubles", "Sentences of `dialer monitor` about what is wrong.", (), [
        ((), len(seen.unfit) + len(seen.snapshot.troubles()))
    ])  # fmt: skip


Values = Iterable[tuple[Sequence[str], float]]


def _gauge(name: str, what: str, labels: Sequence[str], values: Values) -> Metric:
    made = GaugeMetricFamily(name, what, labels=labels)
    for label, value in values:
        made.add_metric(label, value)
    return made


def _of_cells(seen: Seen) -> Iterator[Metric]:
    cells, snapshot = seen.snapshot.cells, seen.snapshot

    def each(name: str, what: str, value: Callable[[str], float]) -> Metric:
        return _gauge(name, what, ("cell",), [((cell,), value(cell)) for cell in cells])

    yield each(
        "dialer_requests_waiting",
        "Requests that wait to be dialed.",
        lambda c: cells[c].counts.waiting,
    )
    yield each(
        "dialer_requests_parked",
        "Those of them that wait for their trunk.",
        lambda c: sum(cells[c].counts.parked.values()),
    )
    yield each("dialer_calls", "Calls without a Response.", lambda c: cells[c].counts.live)
    yield each(
        "dialer_calls_unclaimed",
        "Calls that no worker has claimed.",
        lambda c: cells[c].counts.unclaimed,
    )
    yield each(
        "dialer_calls_awaiting_code",
        "Calls that wait for their CODLIGACAO.",
        lambda c: cells[c].counts.awaiting,
    )
    yield each("dialer_threads", "Most calls at once.", lambda c: snapshot.threads.get(c, 0))
    yield each("dialer_dead_elements", "Entries on the dead list.", lambda c: cells[c].counts.dead)
    teams = {cell: team for cell in cells if (team := snapshot.team(cell)) is not None}
    yield _gauge(
        "dialer_agents",
        "Operators of the queue by what they do; reason is available, ringing, busy and so on.",
        ("cell", "reason"),
        [((cell, what), n) for cell, team in teams.items() for what, n in asdict(team).items()],
    )
    yield each(
        "dialer_bridges",
        "Bridges that live.",
        lambda c: sum(age < BRIDGE_SILENT_AFTER_S for age in cells[c].bridges.values()),
    )


def _of_limits(seen: Seen) -> Iterator[Metric]:
    decisions = {cell: seen.snapshot.decision(cell) for cell in seen.snapshot.cells}
    yield _gauge(
        "dialer_cell_dialing",
        "1 if calls of the cell are placed.",
        ("cell",),
        [((cell,), float(one.is_dialing)) for cell, one in decisions.items()],
    )
    yield _gauge(
        "dialer_cell_limit",
        "1 for the limit that binds the cell, as `dialer why` names it.",
        ("cell", "reason"),
        [((c, limit), float(limit is d.limit)) for c, d in decisions.items() for limit in Limit],
    )


def _responses(seen: Seen) -> Metric:
    made = CounterMetricFamily(
        "dialer_responses",
        "Responses to Multcall; pbx is empty for requests that were not dialed.",
        labels=("cell", "pbx", "outcome"),
    )
    for cell, outcomes in seen.counted.items():
        for (pbx, result), n in outcomes.items():
            made.add_metric((cell, pbx, result), n)
    return made


def _of_pbxs(pbxs: Mapping[str, PbxState]) -> Iterator[Metric]:
    def each(name: str, what: str, value: Callable[[PbxState], float]) -> Metric:
        return _gauge(name, what, ("pbx",), [((one,), value(pbx)) for one, pbx in pbxs.items()])

    yield each(
        "dialer_pbx_ready",
        "1 if the PBX takes calls.",
        lambda pbx: float(pbx.load.is_taking_calls),
    )
    yield each("dialer_pbx_calls", "Calls on the PBX.", lambda pbx: pbx.load.calls)
    yield each("dialer_pbx_max_calls", "Most calls at once.", lambda pbx: pbx.load.max_calls)
    yield each("dialer_pbx_cps", "Most calls a second.", lambda pbx: pbx.cps)
    yield each(
        "dialer_pbx_governed_cps",
        "Most calls a second by its governor, 0 if that limits nothing.",
        lambda pbx: pbx.governed.rate,
    )
    yield each(
        "dialer_pbx_heartbeat_age_seconds",
        "Age of the last heartbeat of its worker; NaN if there never was one.",
        lambda pbx: math.nan if math.isinf(pbx.silent_s) else pbx.silent_s,
    )
    obstacles = {name: pbx.obstacle() for name, pbx in pbxs.items()}
    yield _gauge(
        "dialer_pbx_obstacle",
        "1 for the reason why the PBX takes no calls.",
        ("pbx", "reason"),
        [((name, one.limit), 1.0) for name, one in obstacles.items() if one is not None],
    )


@dataclass(slots=True, eq=False)  # the registry needs a hash
class Scrapes(PrometheusCollector):
    """What Prometheus asks. It runs in the threads of the HTTP server, the look in `loop`."""

    collector: Collector
    loop: asyncio.AbstractEventLoop
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def collect(self) -> Iterator[Metric]:
        """Take a snapshot. If that fails, yield only `dialer_up` and the time, and log why."""
        began = time.monotonic()
        asking = asyncio.run_coroutine_threadsafe(self._look(), self.loop)
        try:
            seen: Seen | None = asking.result(WITHIN_S)
        except Exception as error:  # noqa: BLE001  # logged; the next scrape tries again
            asking.cancel()
            seen = None
            logger.error(  # noqa: TRY400  # needs no traceback
                "Metrics cannot be read; trying again with the next scrape",
                extra={"error": str(error) or "Redis does not answer"},
            )
        yield _gauge("dialer_up", "1 if every Redis answers.", (), [((), float(seen is not None))])
        yield _gauge(
            "dialer_look_seconds", "How long reading took.", (), [((), time.monotonic() - began)]
        )
        if seen is not None:
            yield from families(seen)

    async def _look(self) -> Seen:
        async with self._looking:
            return await self.collector.look()


async def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the metrics until SIGTERM or SIGINT.

    Raises:
        DialerError: the port cannot be used.
        StoreUnavailable: a Redis cannot be reached at start.
        StoreUnfit: a Redis is too old, or a cluster.
    """
    async with Collector(settings) as collector:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Scrapes(collector, asyncio.get_running_loop()))
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise DialerError(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another --port"
            ) from None
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        logger.info("Metrics ready", extra={"url": f"http://{host}:{server.server_port}/metrics"})
        try:
            await stop.wait()
        finally:
            server.shutdown()
            thread.join()
