"""The page as a reader sees it, in a real browser. Screenshots go to the directory in EVENKEEL_SCREENSHOTS, if set."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from status.model import TradingMode
from status.web.snapshot import Snapshot
from tests.status.web import scenes

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
if TYPE_CHECKING:
    from tests.browser.conftest import Site

Start = Callable[..., "Site"]
SCREENSHOTS = os.environ.get("EVENKEEL_SCREENSHOTS")
HEADLINES = {
    "operational": "Everything works",
    "history": "Everything works",
    "incident": "The exchange has a major outage",
    "maintenance": "Maintenance is under way",
    "empty": "Not measured yet",
    "stale": "We cannot see the exchange at present",
}
WIDTHS = (1280, 390)


def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def complaints(page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in {"serious", "critical", "moderate"}
    ]


def watched(page: Any) -> list[str]:
    """What the browser complains of, and requests to others."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith("http://127.0.0.1:") else wrong.append(r.url))
    return wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scene", list(scenes.SCENES))
def test_each_scene_reads_well_and_is_accessible(
    site: Start, browser: Any, now_ns: int, scene: str, width: int, scheme: str
) -> None:
    running = site(scenes.SCENES[scene](now_ns))
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        wrong = watched(page)
        page.goto(running.url + "/")
        assert page.locator("h1").inner_text() == HEADLINES[scene]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        shoot(page, f"{scene}-{width}-{scheme}")
        assert complaints(page) == []
        assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("scene", "path"),
    [
        ("incident", "/incidents/inc-1"),
        ("incident", "/incidents/inc-old"),
        ("incident", "/components/trading-btc-usdt"),
        ("maintenance", "/maintenance/mnt-2"),
        ("maintenance", "/history"),
    ],
)
def test_the_other_pages_are_accessible_too(
    site: Start, browser: Any, now_ns: int, scene: str, path: str, scheme: str
) -> None:
    running = site(scenes.SCENES[scene](now_ns))
    with browser.new_context(viewport={"width": 390, "height": 900}, color_scheme=scheme, bypass_csp=True) as context:
        page = context.new_page()
        wrong = watched(page)
        page.goto(running.url + path)
        shoot(page, f"{path[1:].replace('/', '-')}-{scheme}")
        assert complaints(page) == []
        assert wrong == []


def test_the_page_follows_the_exchange_by_itself(site: Start, browser: Any, now_ns: int) -> None:
    running = site(scenes.operational(now_ns))
    page = browser.new_page()
    wrong = watched(page)
    page.goto(running.url + "/")
    assert page.locator("#headline").inner_text() == "Everything works"
    with_incident = scenes.incident(now_ns)
    running.publish(with_incident)
    playwright.expect(page.locator("#headline")).to_have_text("The exchange has a major outage", timeout=30_000)
    playwright.expect(page.locator("#live")).to_have_text("The exchange has a major outage")
    market = page.locator('.market[data-component="trading-btc-usdt"]')
    playwright.expect(market).to_contain_text("Cancel only")
    further = scenes.incident(now_ns, TradingMode.POST_ONLY)
    running.publish(scenes.changed(further, now_ns, notices=()))
    playwright.expect(market).to_contain_text("Post only", timeout=30_000)
    assert wrong == []
    page.close()


def test_without_javascript_everything_is_there(site: Start, browser: Any, now_ns: int) -> None:
    running = site(scenes.incident(now_ns))
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(running.url + "/")
        assert page.locator("h1").inner_text() == HEADLINES["incident"]
        assert page.locator(".market").count() == len(scenes.MARKETS)
        assert page.locator("svg.bars").count() == 9
        page.locator(".incident h3 a").first.click()
        assert page.locator("h1").inner_text() == "BTC-USDT and ETH-USDT recover from a restart"
        assert "First told as: Two machines restarted." in page.locator("main").inner_text()
        shoot(page, "no-javascript")


def test_a_day_of_trouble_is_reached_by_keyboard_and_leads_to_its_incident(
    site: Start, browser: Any, now_ns: int
) -> None:
    running = site(scenes.operational(now_ns))
    page = browser.new_page()
    page.goto(running.url + "/")
    day = page.locator('svg.bars a[aria-label*="down 12 min"]').first
    day.focus()
    playwright.expect(page.locator("#tip")).to_contain_text("down 12 min")
    page.keyboard.press("Enter")
    page.wait_for_url("**/components/trading-btc-usdt#d*")
    page.locator(".day a").first.click()
    assert page.locator("h1").inner_text() == "BTC-USDT was down"
    page.close()


def test_times_can_be_read_in_local_time(site: Start, browser: Any) -> None:
    running = site(scenes.operational())
    with browser.new_context(timezone_id="Asia/Tokyo", locale="en-GB") as context:
        page = context.new_page()
        page.goto(running.url + "/incidents/inc-old")
        page.get_by_role("button", name="Times: UTC").click()
        assert "19:20:30" in page.locator("time").first.inner_text()
        page.get_by_role("button", name="Times: local").click()
        assert "10:20:30 UTC" in page.locator("time").first.inner_text()


def test_the_page_says_so_when_the_service_is_gone_and_comes_back_by_itself(
    site: Start, browser: Any, now_ns: int
) -> None:
    running = site(scenes.operational(now_ns))
    page = browser.new_page()
    page.goto(running.url + "/")
    playwright.expect(page.locator("#offline")).to_be_hidden()
    page.context.set_offline(True)
    page.evaluate("window.stop()")
    page.route("**/api/events", lambda route: route.abort())
    page.context.set_offline(False)
    page.reload()
    playwright.expect(page.locator("#offline")).to_contain_text("lost its connection", timeout=40_000)
    page.unroute("**/api/events")
    page.reload()
    playwright.expect(page.locator("#offline")).to_be_hidden()
    page.close()


def test_an_open_page_finds_the_service_again_that_was_restarted(site: Start, browser: Any, now_ns: int) -> None:
    before = site(scenes.operational(now_ns))
    page = browser.new_page()
    page.goto(before.url + "/")
    page.evaluate("window.isTheSame = true")
    before.stop()
    site(scenes.incident(now_ns), before.port)
    expect_headline = playwright.expect(page.locator("h1"))
    expect_headline.to_have_text(HEADLINES["incident"], timeout=60_000)
    assert page.evaluate("window.isTheSame"), "the page was not loaded anew"
    playwright.expect(page.locator("#offline")).to_be_hidden()
    shoot(page, "restarted")
    page.close()


def test_a_snapshot_is_served_by_any_web_server(browser: Any, now_ns: int, tmp_path: Path) -> None:
    Snapshot(tmp_path).write(scenes.incident(now_ns))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "current"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        thread = threading.Thread(target=plain.serve_forever)
        thread.start()
        page = browser.new_page()
        wrong = watched(page)
        page.goto(f"http://127.0.0.1:{plain.server_address[1]}/")
        assert page.locator("h1").inner_text() == HEADLINES["incident"]
        page.locator(".incident h3 a").first.click()
        page.locator(".affected a").first.click()
        assert page.locator("h1").inner_text() == "BTC-USDT trading"
        page.get_by_role("link", name="History").click()
        page.get_by_role("link", name="Now").click()
        assert page.locator("h1").inner_text() == HEADLINES["incident"]
        assert wrong == []
        page.close()
        plain.shutdown()
        thread.join(20)
