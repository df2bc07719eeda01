"""The report in a real browser: headless Chromium, driven by selenium; skipped where it is not installed.

Screenshots (light, dark, phone) and the printed page are kept in the folder that PLURALIGN_SCREENSHOTS names.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pluralign.reports.page import build_sections, render

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver on the PATH: apt-get install chromium chromium-driver",
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Of every drawing: whether it is shown, and how many elements in it have a size.
DRAWN = """
const shown = [...document.querySelectorAll("svg[role=img]")].filter((svg) => svg.getBoundingClientRect().width > 0);
return shown.map((svg) => [
  svg.closest("figure").id,
  [...svg.querySelectorAll("path:not(.grid):not(.axis), rect:not(.box), image")].filter((mark) => {
    const box = mark.getBBox({ stroke: true }); return box.width > 0 || box.height > 0; }).length,
]);
"""


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("PLURALIGN_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, make_results, hostile_results, whole_runs) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, results in (
        ("full", make_results(90)),
        ("unsure", make_results(90, answer="cannot tell yet")),
        ("hostile", hostile_results),
        ("large", make_results(5000)),
    ):
        (folder / f"{name}.html").write_text(render(results, build_sections(results)), encoding="utf-8")
        found[name] = (folder / f"{name}.html").as_uri()
    return found


@pytest.fixture
def show(browser, pages) -> Iterator[Callable[..., Any]]:
    """Open a page at a width, in light or dark; no page may write to the console, whatever a test does to it."""

    def opened(name: str, *, width: int = 1280, dark: bool = False) -> Any:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(pages[name])
        return browser

    browser.get_log("browser")
    yield opened
    assert browser.get_log("browser") == []


def wait_for_frames(browser: Any) -> None:
    """Until what was asked for is drawn."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def scroll_to(browser: Any, element: Any) -> None:
    """Bring the middle of an element to the middle of the window (scrollIntoView minds a drawing, not its parts)."""
    browser.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "scrollBy({ top: box.top + box.height / 2 - innerHeight / 2, behavior: 'instant' });",
        element,
    )
    wait_for_frames(browser)


def keep(browser: Any, folder: Path, name: str) -> None:
    """The whole page as pictures, each of a height that a browser can draw at once."""
    width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
    for number, top in enumerate(range(0, height, 6000), start=1):
        clip = {"x": 0, "y": top, "width": width, "height": min(6000, height - top), "scale": 1}
        found = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (folder / f"{name}-{number}.png").write_bytes(base64.b64decode(found["data"]))


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("full", 1280, False),
        ("full", 1280, True),
        ("full", 390, False),
        ("hostile", 1280, False),
        ("hostile", 390, False),
    ],
)
def test_every_plot_is_drawn(show, shots, name, width, dark):
    page = show(name, width=width, dark=dark)
    drawn = page.execute_script(DRAWN)
    figures = page.execute_script('return [...document.querySelectorAll("figure[id]")].map((each) => each.id)')
    assert len(figures) >= 18
    assert {each for each, _ in drawn} == set(figures)  # one of its two drawings is shown
    assert all(marks > 0 for _, marks in drawn)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    look = "phone" if width < 600 else "dark" if dark else "light"
    keep(page, shots, f"report-{name}-{look}")


def test_dark_is_dark_and_the_button_turns_it_light(show):
    page = show("full", dark=True)

    def brightness() -> int:
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.strip("rgb()").split(",")[:3])

    assert brightness() < 120
    page.find_element("id", "theme").click()
    assert brightness() > 700
    page.find_element("id", "theme").click()
    assert brightness() < 120


@pytest.mark.parametrize("width", [1280, 390])
def test_the_cloud_turns(show, width):
    from selenium.webdriver import ActionChains

    page = show("full", width=width)
    cloud = page.find_element("css selector", "svg[data-cloud]")
    scroll_to(page, cloud)
    angles = [(cloud.get_attribute("data-yaw"), cloud.get_attribute("data-pitch"))]
    marks = [cloud.find_element("css selector", "path.s0").get_attribute("d")]
    for act in (
        lambda: ActionChains(page).drag_and_drop_by_offset(cloud, 60, 25).perform(),
        lambda: cloud.send_keys("\ue014"),  # the right arrow
        lambda: page.find_element("css selector", "button[data-turn='0.3']").click(),
    ):
        act()
        wait_for_frames(page)
        angles.append((cloud.get_attribute("data-yaw"), cloud.get_attribute("data-pitch")))
        marks.append(cloud.find_element("css selector", "path.s0").get_attribute("d"))
    assert len(set(angles)) == len(angles)
    assert len(set(marks)) == len(marks)
    assert angles[1][1] != angles[0][1]  # a slanting drag tilts as well


def test_pointing_at_a_mark_says_what_it_is(show):
    from selenium.webdriver import ActionChains

    page = show("full")
    tip = page.find_element("id", "tip")
    for where, said in (("#figure-ladder .wide g.mark", "points"), ("#figure-components .wide g.mark", "%")):
        mark = page.find_element("css selector", where)
        scroll_to(page, mark)
        ActionChains(page).move_to_element(mark).perform()
        assert said in tip.text
    plot = page.find_element("css selector", "#figure-similarity svg[data-heatmap]")
    scroll_to(page, plot)
    ActionChains(page).move_to_element_with_offset(plot, 20, 30).perform()
    assert tip.text.startswith("user ")


def test_links_lead_somewhere(show):
    page = show("full")
    for link in page.find_elements("css selector", "nav a"):
        link.click()
        name = link.get_attribute("href").partition("#")[2]
        found = page.execute_script("return [location.hash, !!document.getElementById(arguments[0])]", name)
        assert found == [f"#{name}", True]


def test_texts_do_nothing(show):
    page = show("hostile")
    assert page.execute_script("return window.hurt === undefined")
    assert page.execute_script("return document.scripts.length") == 2
    said = page.execute_script("return document.body.textContent")
    assert "<script>window.hurt = 1</script>" in said
    assert "\u05d0\u05d1\u05d2" in said
    from selenium.webdriver import ActionChains

    plot = page.find_element("css selector", "#figure-user-gains svg.wide")
    scroll_to(page, plot)
    for x in range(-300, 301, 100):
        ActionChains(page).move_to_element_with_offset(plot, x, x // 5).perform()
    assert page.execute_script("return document.getElementById('tip').children.length") == 0
    assert page.execute_script("return window.hurt === undefined")


def test_nothing_is_fetched(show):
    page = show("full")
    assert (
        page.execute_script(
            "return performance.getEntriesByType('resource').filter((r) => !r.name.startsWith('data:')).length"
        )
        == 0
    )
    blocked = page.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective), { once: true });"
        "fetch('https://example.invalid/').catch(() => 0);"
    )
    assert blocked == "connect-src"
    assert {entry["source"] for entry in page.get_log("browser")} <= {"security", "network", "javascript", "other"}


def test_five_thousand_users_open_in_two_seconds(show):
    took = []
    for _ in range(3):  # the best of three: other processes share this machine
        page = show("large")
        assert page.execute_script("return document.documentElement.dataset.drawn") == "true"
        took.append(page.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
        begun = time.perf_counter()
        wait_for_frames(page)
        took[-1] += time.perf_counter() - begun
    assert min(took) < 2


@pytest.mark.parametrize("name", ["full", "unsure"])
def test_it_prints(show, shots, name):
    page = show(name, dark=True)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 688, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )
    too_wide = """
    return [...document.querySelectorAll("figure, table, svg, article")].filter((each) =>
      each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.id || each.className || each.tagName)"""
    assert page.execute_script(too_wide) == []
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    printed = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert printed.startswith(b"%PDF")
    (shots / f"report-{name}.pdf").write_bytes(printed)
