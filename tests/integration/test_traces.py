"""`dialer traces`: each ended call reaches an OTLP collector, also one that was away."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from dialer.monitor import traces
from dialer.monitor.traces import Traces, trace_id
from dialer.store.ledger import LedgerReads
from tests.integration.cell_rig import CELL, Site
from tests.integration.stack import BIN, Stack
from tests.integration.stack import CELL as TIM
from tests.integration.test_flower import free_port
from tests.waiting import wait_until


@dataclass(slots=True)
class Exported:
    """An exporter; `calls` are the call ids that it took. It refuses while `is_away`."""

    is_away: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    asked: int = 0

    def export(self, spans: Sequence[ReadableSpan], /) -> SpanExportResult:
        self.asked += 1
        if self.is_away:
            return SpanExportResult.FAILURE
        self.calls.update(str((span.attributes or {})["dialer.call_id"]) for span in spans
                          if span.parent is None)  # fmt: skip
        return SpanExportResult.SUCCESS


@pytest.fixture
async def site(redis_url: str) -> AsyncIterator[Site]:
    async with Site(redis_url) as site:
        yield site


async def ended(site: Site, *names: str) -> None:
    for name in names:
        await site.admitted(name)
        await site.end(name)


async def looking(site: Site) -> tuple[Traces, Exported]:
    """Traces that have looked once."""
    exported = Exported()
    found = Traces([LedgerReads(site.steps, CELL)], exported)
    await found.look()
    return found, exported


async def test_each_call_that_ends_is_sent_once(site: Site) -> None:
    await ended(site, "before")
    found, exported = await looking(site)
    await ended(site, "a", "b")
    await site.admitted("up")
    await found.look()
    await found.look()
    await ended(site, "c")
    await found.look()
    assert exported.calls == {f"{CELL}:{name}": 1 for name in ("a", "b", "c")}
    assert exported.asked == 2, "nothing is sent if nothing ended"


async def test_traces_wait_for_a_collector_that_is_away(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(traces, "WAITING_MAX", 2)
    found, exported = await looking(site)
    exported.is_away = True
    await ended(site, "a", "b")
    await found.look()
    await ended(site, "c")
    await found.look()
    exported.is_away = False
    await found.look()
    assert exported.calls == {f"{CELL}:b": 1, f"{CELL}:c": 1}, "the oldest was dropped"
    assert [record.message for record in caplog.records] == [
        "Traces wait; trying again",
        "Traces dropped; too many wait",
        "Traces go on",
    ]


@pytest.mark.parametrize("before", [["before"], []])
async def test_calls_that_ended_too_fast_are_named(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: list[str],
) -> None:
    monkeypatch.setattr(traces, "ENDED_KEPT", 2)
    await ended(site, *before)
    found, exported = await looking(site)
    await ended(site, "a", "b", "c")
    await found.look()
    assert exported.calls == {f"{CELL}:b": 1, f"{CELL}:c": 1}
    assert "some have no trace" in caplog.text


async def test_a_strange_list_stops_no_other_cell(site: Site) -> None:
    async with Site(site.url, "OTHER") as other:
        exported = Exported()
        found = Traces([LedgerReads(one.steps, one.cell) for one in (site, other)], exported)
        await site.redis.set(site.ledger.keys.ended, "x")
        await found.look()
        await ended(other, "a")
        await found.look()
    assert exported.calls == {"OTHER:a": 1}


# --- the process ---------------------------------------------------------------------------


@contextmanager
def collector(port: int) -> Iterator[list[ExportTraceServiceRequest]]:
    """A collector that takes OTLP over HTTP; what it got."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def names_in(got: Sequence[ExportTraceServiceRequest]) -> dict[str, list[str]]:
    """Return the names of the spans by trace, in hexadecimal."""
    found: dict[str, list[str]] = {}
    for request in got:
        for of_resource in request.resource_spans:
            for scope in of_resource.scope_spans:
                for span in scope.spans:
                    found.setdefault(span.trace_id.hex(), []).append(span.name)
    return found


async def test_calls_reach_a_collector_that_comes_late(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start()
        port = free_port()
        command = [str(BIN / "dialer"), "traces", "--endpoint", f"http://127.0.0.1:{port}"]
        program = await stack.run("traces", command)
        await wait_until(lambda: "Traces ready" in program.log, "it is ready")
        pushed = await stack.push(3)
        await stack.responses(3)
        await wait_until(lambda: "Traces wait; trying again" in program.log, "the cure is named")
        assert "Traceback" not in program.log
        ids = [f"{TIM}:{one['IdRequisicao']}" for one in pushed]
        wanted = {f"{trace_id(one):032x}" for one in ids}
        with collector(port) as got:
            await wait_until(lambda: names_in(got).keys() == wanted, "the traces arrive")
            for names in names_in(got).values():
                assert names == ["call", "wait for the worker", "originate", "ring", "talk"]
            sent = b"".join(one.SerializeToString() for one in got)
            assert [one for one in pushed if one["Telefone"].encode() in sent] == []
        assert await program.stop() == 0


async def test_a_wrong_endpoint_is_one_sentence(tmp_path: Path) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        command = [str(BIN / "dialer"), "traces", "--endpoint", "127.0.0.1:4318"]
        program = await stack.run("traces", command)
        assert await program.exit_code() == 2
        assert "give --endpoint http://HOST:4318" in program.log
