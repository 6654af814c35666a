"""Flower of the compose stack in a real headless Chromium: what a supervisor sees.

Pictures of the pages are kept in tests/artifacts, which git ignores.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from dialer.simulation.multcall.player import play
from tests.acceptance.compose_stack.compose import FLOWER_LOGIN, FLOWER_PORT, ComposeSite
from tests.acceptance.test_dial_path import prefix
from tests.conftest import require_service
from tests.processes import ROOT

URL = f"http://127.0.0.1:{FLOWER_PORT}"
PICTURES = ROOT / "tests" / "artifacts"
WITHIN_MS = 20_000
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def start(stack: ComposeSite) -> str:
    """Calls are over; what their numbers begin with. (Before Chromium: its driver has a loop.)"""
    start = prefix()
    mix = {"answered": 6.0, "busy": 2.0, "invalid_number": 1.0}
    summary = asyncio.run(play(stack.redis_url, ["SHORT"], 30, 15.0, number_prefix=start, mix=mix))
    assert summary.is_right
    return start


@pytest.fixture(scope="module")
def browser(start: str) -> Iterator[Browser]:
    """Chromium of the machine: no download of its own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    require_service("Chromium", None if path else "on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose login is the supervisor's."""
    name, password = FLOWER_LOGIN
    context = browser.new_context(
        http_credentials={"username": name, "password": password},
        viewport={"width": 1500, "height": 900},
    )
    context.set_default_timeout(WITHIN_MS)
    yield context.new_page()
    context.close()


def picture(page: Page, name: str) -> None:
    """Keep what the page shows, where git does not look."""
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    ignored = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_flower_shows_workers_and_calls_without_numbers(page: Page, start: str) -> None:
    seen = []

    page.goto(f"{URL}/workers")
    for pbx in ("pbx01", "pbx02"):
        page.get_by_role("link", name=f"{pbx}@{pbx}").wait_for()
    picture(page, "flower-workers")
    seen.append(page.content())

    page.goto(f"{URL}/tasks")
    page.locator("table#tasks-table tbody tr", has_text="SHORT").first.wait_for()
    text = page.locator("table#tasks-table").inner_text()
    assert re.search(r"ANSWERED cause=16 talked=\d+\.\ds", text)
    assert re.search(r"BUSY cause=17", text)
    picture(page, "flower-tasks")
    seen.append(page.content())

    call = page.locator("table#tasks-table tbody tr", has_text="ANSWERED").first
    shown = call.inner_text()
    length = re.search(r"\t(\d+\.\d+) (m?s)\t", shown)
    assert length is not None, shown
    assert 0.5 < float(length[1]) / {"s": 1, "ms": 1000}[length[2]] < 30
    request_id = re.search(r"'SHORT', '([^']+)'", shown)
    assert request_id is not None, shown
    page.goto(f"{URL}/task/SHORT:{request_id[1]}")
    page.get_by_text("SUCCESS").first.wait_for()
    picture(page, "flower-call")
    seen.append(page.content())

    page.goto(f"{URL}/worker/pbx01@pbx01")
    page.get_by_text("dialer.originate").first.wait_for(state="attached")
    seen.append(page.content())

    page.goto(f"{URL}/broker")
    page.get_by_text("pbx01").first.wait_for()
    seen.append(page.content())

    for content in seen:
        assert start not in content
        assert start.removeprefix("+") not in content
        assert not re.search(r"\+\d{8,}", content)


def test_only_flowers_monitoring_pages_need_no_password(stack: ComposeSite) -> None:
    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"{URL}{path}", timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert {status(path) for path in ("/", "/workers", "/tasks", "/broker")} == {401}
    assert {status(path) for path in ("/metrics", "/healthcheck")} == {200}
