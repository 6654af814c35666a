"""`make demo` shows its page: the pictures of the README are made here.

Run the test and copy tests/artifacts/readme-*.png to docs/pictures, if they changed.
"""

from __future__ import annotations

import io

from playwright.async_api import Browser
from rich.console import Console

from dialer.monitor.terminal import View, watch
from dialer.settings import load
from tests.integration.test_demo import StartDemo, start_demo  # noqa: F401  # a fixture
from tests.integration.test_page_in_a_browser import (
    PICTURES,
    Visitor,
    browser,  # noqa: F401  # a fixture
    visiting,
)

CELL = "ASR_TIM"


async def test_the_demo_moves_on_its_page(
    start_demo: StartDemo,  # noqa: F811
    browser: Browser,  # noqa: F811
) -> None:
    demo = await start_demo("--calls", "200", "--keep")
    url = (await demo.says("Web page, with a link that works once: http")).split()[-1]
    async with visiting(browser, url.partition("/login")[0], width=1100) as visitor:
        await visitor.page.goto(url)
        await visitor.press("Sign in as demo")
        await visitor.until(f"cell-calls-{CELL}", lambda text: text != "0", "calls on the page")
        await visitor.until(f"cell-answered-{CELL}", lambda text: len(text) > 2, "outcomes")  # 20%
        await visitor.page.set_viewport_size({"width": 1000, "height": 580})
        await visitor.picture("readme-overview")
        (config,) = demo.folder.glob("dialer-demo-*/dialer.toml")
        console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
        await watch(load(config), console, View(is_once=True))
        await picture_of(visitor, console)
        await visitor.page.goto(url)
        await visitor.sees("The link was used")
        visitor.said.clear()  # that page has the status 410


async def picture_of(visitor: Visitor, console: Console) -> None:
    """Keep what a terminal shows as a picture."""
    page = await visitor.page.context.new_page()
    await page.set_viewport_size({"width": 1000, "height": 300})
    await page.set_content(console.export_html(inline_styles=True))
    await page.locator("pre").screenshot(path=PICTURES / "readme-monitor.png")
    await page.close()
