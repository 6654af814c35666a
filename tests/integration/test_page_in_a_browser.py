"""`dialer web` in a real headless Chromium, on the real programs with simulated PBXs.

The CSP is active, and whatever the browser's console says fails the test. axe looks at every page,
light and dark. Pictures are kept in tests/artifacts, which git ignores.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.async_api import Browser, Dialog, Locator, Page, async_playwright

from dialer.web.texts import Texts, language_for, texts
from tests.conftest import require_service
from tests.integration.stack import BIN, CELL, Program, Stack
from tests.integration.test_flower import free_port
from tests.processes import ROOT
from tests.waiting import wait_until

PICTURES: Final = ROOT / "tests" / "artifacts"
PASSWORD: Final = "correct horse battery"
WITHIN_MS: Final = 30_000
QUIET: Final = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
OTHER: Final = "COBRANCA"

#: Calls that last, so that there is something to see.
LONG: Final[dict[str, Any]] = {"ring_time": (0.3, 0.6), "talk_time": (60.0, 90.0)}


@dataclass(slots=True)
class Visitor:
    """A browser with one page. What its console says is kept.

    Texts of the page are given in English, and sought in the language of the visitor.
    """

    page: Page
    url: str
    texts: Texts
    said: list[str] = field(default_factory=list)

    async def to(self, path: str) -> None:
        await self.page.goto(self.url + path)

    def say(self, text: str) -> str:
        return self.texts.translate(text)

    async def sees(self, text: str) -> None:
        await self.page.get_by_text(self.say(text)).first.wait_for()

    async def press(self, name: str, of: str = "") -> None:
        """Press a button; `of` is the cell or PBX that it names."""
        found = f"{self.say(name)} {of}".strip()
        await self.page.get_by_role("button", name=found, exact=True).first.click()

    async def sees_like(self, text: str) -> None:
        """See a text whose variables may be anything."""
        parts = re.split(r"%\(\w+\)s", self.say(text))
        await self.page.get_by_text(re.compile(".*".join(map(re.escape, parts)))).first.wait_for()

    def labeled(self, label: str) -> Locator:
        return self.page.get_by_label(self.say(label), exact=True)

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(exist_ok=True)
        suffix = "" if self.texts.lang == "en" else f"-{self.texts.lang}-360"
        await self.page.screenshot(path=PICTURES / f"{name}{suffix}.png", full_page=True)

    async def text(self, part: str) -> str:
        """Return the text of a part of the live page."""
        return await self.page.locator(f'[data-part="{part}"]').first.inner_text()

    async def until(self, part: str, is_right: Callable[[str], bool], what: str) -> None:
        """Wait until a part of the live page shows something, without a reload."""

        async def is_shown() -> bool:
            return is_right(await self.text(part))

        await wait_until(is_shown, what)

    async def violations(self) -> list[str]:
        """Return what axe finds on the page, light and dark: dark differs only in its colours."""
        found = []
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            await self.page.emulate_media(color_scheme=scheme)
            # In a world of its own: the CSP forbids scripts in the page.
            await self.page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
            options: dict[str, list[str]] = {"resultTypes": ["violations"]}
            if scheme == "dark":
                options["runOnly"] = ["color-contrast"]
            report = await self.page.evaluate("options => axe.run(options)", options)
            found += [
                f"{scheme} {one['id']}: {node['target']} {node['failureSummary']}"
                for one in report["violations"]
                for node in one["nodes"]
            ]
        await self.page.emulate_media(color_scheme="light")
        return found


async def web_of(stack: Stack, port: int) -> Program:
    program = await stack.run("web", [str(BIN / "dialer"), "web", "--port", str(port)])
    await wait_until(lambda: "Web page ready" in program.log, "the page is served")
    return program


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium of the machine: no download of its own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    require_service("Chromium", None if path else "on Debian: apt-get install chromium")
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=path, args=QUIET)
        yield found
        await found.close()


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, width: int = 1400, locale: str = "en-US"
) -> AsyncIterator[Visitor]:
    """A visitor; at the end the console must have been silent."""
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, locale=locale, timezone_id="America/Sao_Paulo"
    )
    context.set_default_timeout(WITHIN_MS)
    visitor = Visitor(await context.new_page(), url, texts(language_for("", locale)))
    visitor.page.on("console", lambda message: visitor.said.append(message.text))
    visitor.page.on("pageerror", lambda error: visitor.said.append(str(error)))

    async def accept(dialog: Dialog) -> None:
        await dialog.accept()

    visitor.page.on("dialog", accept)
    yield visitor
    await context.close()
    assert visitor.said == []


def link_in(program: Program) -> str:
    found = re.search(r"link=\S*(/login\?link=[\w-]+)", program.log)
    assert found is not None, program.log
    return found[1]


async def make_first_user(visitor: Visitor, path: str) -> None:
    await visitor.to(path)
    await visitor.labeled("Name").fill("ana")
    for one in await visitor.page.locator("input[type=password]").all():
        await one.fill(PASSWORD)
    await visitor.press("Set the password and sign in")
    await visitor.sees("Overview")


async def sign_in(visitor: Visitor) -> None:
    await visitor.to("/login")
    await visitor.labeled("Name").fill("ana")
    await visitor.page.locator("input[type=password]").fill(PASSWORD)
    await visitor.press("Sign in")


async def in_force(stack: Stack, change: str) -> None:
    """Wait until the bridge uses a change: before that it may start calls as it was."""
    await wait_until(lambda: change in stack.bridges[0].log, f"in force: {change}")


@pytest.mark.parametrize(("locale", "width"), [("en-US", 1400), ("pt-BR", 360)])
async def test_a_supervisor_watches_and_steers(
    tmp_path: Path, browser: Browser, locale: str, width: int
) -> None:
    async with Stack(tmp_path, cell={"threads": 6}) as stack:
        for name in ("pbx01", "pbx02"):
            stack.add_pbx(name, **LONG)
        await stack.start()
        port = free_port()
        web = await web_of(stack, port)
        url = f"http://127.0.0.1:{port}"
        async with visiting(browser, url, width=width, locale=locale) as visitor:
            await make_first_user(visitor, link_in(web))
            await _numbers_change(visitor, stack)
            await _a_pause_stops_dialing(visitor, stack)
            await _three_at_once(visitor, stack)
            await _a_drained_pbx_gets_no_calls(visitor, stack)
            await _a_call_is_read_and_hung_up(visitor, stack)
            await _a_dead_request_is_corrected(visitor, stack)
            await _why_in_the_past(visitor)


async def _numbers_change(visitor: Visitor, stack: Stack) -> None:
    await visitor.sees("no requests")
    await stack.push(20)
    await visitor.until(f"cell-calls-{CELL}", lambda text: text == "6", "six calls on the page")
    full = visitor.say("threads full")
    await visitor.until(f"cell-state-{CELL}", lambda text: text == full, "the limit")
    assert await visitor.text(f"cell-waiting-{CELL}") == "14"
    await visitor.picture("page-overview")


async def _a_pause_stops_dialing(visitor: Visitor, stack: Stack) -> None:
    await visitor.press("Pause", CELL)
    began, paused = time.monotonic(), visitor.say("paused")
    await visitor.until(f"cell-state-{CELL}", lambda text: text.startswith(paused), "paused")
    said = await visitor.text(f"cell-state-{CELL}")
    assert re.search(r"ana, (\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}) \d\d:\d\d:\d\d", said), said
    await asyncio.sleep(max(0.0, began + 1.0 - time.monotonic()))
    rung = stack.rings.total()
    stack.end_calls()
    await visitor.until(f"cell-calls-{CELL}", lambda text: text == "0", "the calls ended")
    assert stack.rings.total() == rung == 6
    await visitor.press("Resume", CELL)
    await visitor.until(f"cell-calls-{CELL}", lambda text: text == "6", "six calls again")


async def _three_at_once(visitor: Visitor, stack: Stack) -> None:
    await visitor.to(f"/cells/{CELL}")
    await visitor.picture("page-cell")
    await visitor.labeled("most calls at once").fill("3")
    await visitor.page.locator("#set-why").fill("few operators")
    await visitor.press("Set")
    await visitor.sees_like("Change %(number)s is in force everywhere within a second.")
    await in_force(stack, f"threads of cell {CELL} = 3")
    stack.end_calls()
    await visitor.until("calls", lambda text: text == "3 / 3", "three calls at once")
    await visitor.to("/changes")
    await visitor.sees("few operators")
    undo = re.compile(rf"^{visitor.say('Undo')} \d+$")
    await visitor.page.get_by_role("button", name=undo).first.click()
    await visitor.sees("undoes")
    await visitor.to(f"/cells/{CELL}")
    await visitor.until("calls", lambda text: text == "6 / 6", "six calls after the undo")


async def _a_drained_pbx_gets_no_calls(visitor: Visitor, stack: Stack) -> None:
    await visitor.to("/")
    await visitor.press("Drain", "pbx02")
    drained, takes = visitor.say("drained"), visitor.say("takes calls")
    await visitor.until("pbx-state-pbx02", lambda text: text.startswith(drained), "drained")
    await in_force(stack, "drained of PBX pbx02 = true")
    stack.end_calls("pbx02")
    await visitor.until("pbx-calls-pbx02", lambda text: text == "0", "its calls ended")
    await visitor.press("Resume", "pbx02")
    await visitor.until("pbx-state-pbx02", lambda text: text == takes, "it takes calls")


async def _a_call_is_read_and_hung_up(visitor: Visitor, stack: Stack) -> None:
    await visitor.to("/calls")
    await visitor.picture("page-calls")
    answered, done = visitor.say("answered"), visitor.say("done")
    row = visitor.page.locator('tbody[data-part="calls"] tr', has_text=answered).first
    name = (await row.get_by_role("link").first.inner_text()).strip()
    await visitor.labeled("Request id").fill(name.rpartition(":")[2].strip())
    await visitor.press("Search")
    await visitor.sees("What it went through")
    await visitor.until("steps", lambda text: answered in text, "the story has the answer")
    await visitor.picture("page-call")
    await visitor.press("Hang up")
    await visitor.until("now", lambda text: done in text, "the call is over")
    assert answered in await visitor.text("now")
    await visitor.to("/calls")
    await visitor.until("ended", lambda text: name in text, "it is among the ended ones")


async def _a_dead_request_is_corrected(visitor: Visitor, stack: Stack) -> None:
    element = {"IdRequisicao": "wrong-1", "Telefone": "abc"}
    await stack.redis.rpush(f"ZancURA2.0-Request-{CELL}", json.dumps(element))
    await visitor.to("/")
    await visitor.until(f"cell-dead-{CELL}", lambda text: text == "1", "a dead element")
    await visitor.page.locator(f'[data-part="cell-dead-{CELL}"] a').click()
    await visitor.picture("page-dead")
    await visitor.page.locator('a[href^="/dead/entry"]').first.click()
    box = visitor.labeled("Element")
    fixed = json.loads(await box.input_value()) | {"Telefone": "11988887777"}
    await box.fill(json.dumps(fixed))
    await visitor.page.locator("#why").fill("typed wrong")
    await visitor.press("Send again")
    await visitor.sees("wrong-1-c1")
    await visitor.to(f"/cells/{CELL}")
    stack.end_calls()
    await wait_until(lambda: stack.rings["11988887777"] == 1, "it is dialed")
    await visitor.to(f"/calls/{CELL}/wrong-1-c1")
    await visitor.sees("Replaces")


async def _why_in_the_past(visitor: Visitor) -> None:
    await visitor.to(f"/cells/{CELL}")
    moment = datetime.now(UTC) - timedelta(seconds=3)
    time_field = visitor.page.get_by_label(visitor.say("Time, as 10:42 or 2026-11-27T10:42"))
    await time_field.fill(moment.isoformat())  # the label ends with the time zone
    await visitor.press("Show")
    await visitor.sees("since")


async def test_every_page_has_no_violation(tmp_path: Path, browser: Browser) -> None:
    async with Stack(tmp_path, cell={"threads": 9}) as stack:
        stack.add_pbx("pbx01", **LONG)
        stack.add_cell(OTHER, threads=2)
        await stack.start()
        port = free_port()
        web = await web_of(stack, port)
        await stack.push(5)
        await stack.redis.rpush(f"ZancURA2.0-Request-{CELL}", "{}", '{"IdRequisicao": "d1"}')
        await stack.until_live(5)
        url = f"http://127.0.0.1:{port}"
        async with visiting(browser, url) as visitor:
            wrong = [f"/login {one}" for one in await _axe_of(visitor, ["/login", link_in(web)])]
            await make_first_user(visitor, link_in(web))
            await visitor.to("/calls")
            call = await visitor.page.locator("tbody a").first.get_attribute("href")
            await visitor.to(f"/dead?cell={CELL}")
            entry = await visitor.page.locator('a[href^="/dead/entry"]').first.get_attribute("href")
            paths = [
                *("/", f"/cells/{CELL}", "/pbxs/pbx01", "/queues", "/calls", str(call)),
                *(f"/dead?cell={CELL}", str(entry), "/changes", "/users", "/password", "/nothing"),
            ]
            # A page that is not there is an error in the console too, by the browser itself.
            wrong += await _axe_of(visitor, paths)
            visitor.said = [one for one in visitor.said if "404" not in one]
            assert wrong == []
        async with visiting(browser, url, width=360, locale="pt-BR") as visitor:
            await _in_portuguese(visitor, [path for path in paths if path != "/nothing"])


async def _axe_of(visitor: Visitor, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        await visitor.to(path)
        found += [f"{path} {one}" for one in await visitor.violations()]
    return found


async def _in_portuguese(visitor: Visitor, paths: list[str]) -> None:
    """Sign in and look at every page at 360 px: nothing is wider than the screen."""
    await sign_in(visitor)
    await visitor.sees("Overview")
    for path in paths:
        await visitor.to(path)
        assert await visitor.page.locator("html").get_attribute("lang") == "pt-BR"
        width = await visitor.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} px wide"
    assert await _axe_of(visitor, paths) == []


# --- a page that stays open ------------------------------------------------------------------


@dataclass(slots=True)
class BadGateway:
    """A reverse proxy whose server is away: it answers 502. `asked` are the paths."""

    asked: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split()[1].decode())
        gone = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(gone)
        await writer.drain()
        writer.close()

    @property
    def streams(self) -> int:
        return sum(path.startswith("/events") for path in self.asked)


@asynccontextmanager
async def bad_gateway(port: int) -> AsyncIterator[BadGateway]:
    gateway = BadGateway()
    async with await asyncio.start_server(gateway.answer, "127.0.0.1", port):
        yield gateway


async def test_an_open_page_outlives_a_restart(tmp_path: Path, browser: Browser) -> None:
    async with Stack(tmp_path) as stack:
        stack.add_pbx()
        await stack.start(bridges=0, workers=False)
        port = free_port()
        web = await web_of(stack, port)
        async with visiting(browser, f"http://127.0.0.1:{port}") as visitor:
            await make_first_user(visitor, link_in(web))
            await stack.push(3)
            await visitor.until(f"cell-waiting-{CELL}", lambda text: text == "3", "three")
            await visitor.page.evaluate("document.body.dataset.mark = 'not loaded again'")
            await web.stop()
            async with bad_gateway(port) as gateway:
                await visitor.sees("No news from the server")
                await wait_until(lambda: gateway.streams >= 2, "the page tried twice")
                await visitor.sees("No news from the server")
            web = await web_of(stack, port)
            await stack.push(2)
            await visitor.until(f"cell-waiting-{CELL}", lambda text: text == "5", "five")
            await visitor.page.locator("p.lost").wait_for(state="hidden")
            assert await visitor.page.locator("body[data-mark]").count() == 1

            await web.stop()
            async with bad_gateway(port) as gateway:
                await wait_until(lambda: gateway.streams >= 1, "the page tried")
            await stack.redis.delete(*await stack.redis.keys("dialer:session:*"))
            await web_of(stack, port)
            await visitor.page.get_by_role("button", name="Sign in").wait_for()
            assert visitor.page.url.endswith("/login?next=/")
            # The browser itself says each failed request.
            expected = ("502", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY")
            visitor.said = [x for x in visitor.said if not any(one in x for one in expected)]
