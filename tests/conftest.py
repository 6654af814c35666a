"""What all tests share: how a test says that something it needs is missing.

Here a missing service skips its tests and the closing summary names them; where
DIALER_REQUIRE_DOCKER=1 is set, as in CI, it fails them.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from typing import Protocol

import hypothesis
import pytest

REQUIRE_SERVICES = os.environ.get("DIALER_REQUIRE_DOCKER", "") not in ("", "0")
SKIP_PREFIX = "needs "
ACCEPTANCE = "tests/acceptance/"

# `make test` and CI take the same examples each time, so that the code alone decides whether
# they pass; `make fuzz` looks for new ones. A loaded machine is no reason to fail.
hypothesis.settings.register_profile(
    "dialer", derandomize=True, max_examples=100, deadline=None, print_blob=True
)
hypothesis.settings.register_profile(
    "fuzz", derandomize=False, max_examples=2_000, deadline=None, print_blob=True
)
hypothesis.settings.load_profile("dialer")


# A shell that starts the tests in the background ignores SIGINT, and every program that a test
# starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A run that is ended by SIGTERM, as `timeout` does it, ends the programs and containers that it
# started: left behind, they would take the calls of the next run.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class RequireService(Protocol):
    """End the test if `name` is missing; do nothing if `problem` is None."""

    def __call__(self, name: str, problem: str | None) -> None: ...


def require_service(name: str, problem: str | None) -> None:
    """Skips the test, or fails it in CI, when the service `name` has a `problem`."""
    if problem is None:
        return
    reason = f"{SKIP_PREFIX}{name}: {problem}"
    if REQUIRE_SERVICES:
        pytest.fail(f"{reason} (DIALER_REQUIRE_DOCKER is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", name="require_service")
def require_service_fixture() -> RequireService:
    """`require_service` for tests and fixtures of any scope."""
    return require_service


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run where acceptance tests had to run and were skipped, however it came."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not REQUIRE_SERVICES or reporter is None:
        return
    skipped = [r.nodeid for r in reporter.stats.get("skipped", []) if ACCEPTANCE in r.nodeid]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.section("skipped although DIALER_REQUIRE_DOCKER is set", red=True)
        for test in sorted(skipped):
            reporter.line(f"  {test}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what did not run because a service is missing, and what acceptance tests measured."""
    missing: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = _skip_reason(report)
        if reason.startswith(SKIP_PREFIX):
            missing[reason.removeprefix(SKIP_PREFIX)].append(report.nodeid)
    for service, tests in sorted(missing.items()):
        name, _, problem = service.partition(": ")
        terminalreporter.section(f"not run here for want of {name}", sep="-", yellow=True)
        terminalreporter.line(problem)
        for test in sorted(tests):
            terminalreporter.line(f"  {test}")

    passed: list[pytest.TestReport] = terminalreporter.stats.get("passed", [])
    measured = [r for r in passed if ACCEPTANCE in r.nodeid and r.capstdout.strip()]
    if measured:
        terminalreporter.section("measured", sep="-")
    for report in measured:
        terminalreporter.line(report.nodeid.rpartition("::")[2])
        for line in report.capstdout.strip().splitlines():
            terminalreporter.line(f"  {line}")


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    longrepr = report.longrepr
    if not isinstance(longrepr, tuple):
        return ""
    return str(longrepr[2]).removeprefix("Skipped: ")
