"""The page in a real browser: every figure is drawn, nothing is fetched, and it fits a phone."""

import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from device_sims.comparison.page import render
from device_sims.comparison.summary import Target, summarise
from tests.device_sims.comparison.outcomes import case, panel

DEADLINE_S = 60.0
chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    chromium is None or chromedriver is None,
    reason="chromium and chromedriver are not installed (Debian: chromium, chromium-driver)",
)


@pytest.fixture(scope="module")
def page() -> str:
    cases = (case("async <b>", 0.1), case("sync", 0.05, exposure=0.2))
    return render(summarise([panel(*cases, centralised=True)], Target(share=0.95)), title="2 & 2")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", profile):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Driver(str(chromedriver))) as driver:
        yield driver


class Tags(HTMLParser):
    """Counts tags, and refuses what is opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.sources = list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_parses_and_asks_for_nothing(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.sources == []
    assert "<b>" not in page.partition("</script></head>")[2].replace("\\u003cb\\u003e", "")


@in_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_figures_are_drawn_at_every_width(
    page: str, driver: webdriver.Chrome, tmp_path: Path, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.get(file.as_uri())
    WebDriverWait(driver, DEADLINE_S).until(
        lambda _: len(driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .main-svg .xy")) > 0
    )
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].map("
        "d => d.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length)"
    )
    # Both scenarios everywhere; with a band of each where quality runs along something.
    assert drawn == [4, 4, 4, 4, 2, 2, 2]
    assert _log(driver) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert "95 %" in driver.find_element(By.TAG_NAME, "body").text


@in_browser
def test_it_is_readable_in_the_dark(page: str, driver: webdriver.Chrome, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page)
    shades = {}
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get(file.as_uri())
        shades[scheme] = driver.execute_script(
            "return [getComputedStyle(document.body).backgroundColor,"
            "getComputedStyle(document.querySelector('.xtick text')).fill]"
        )
    assert _brightness(shades["light"][0]) - _brightness(shades["light"][1]) > 150
    assert _brightness(shades["dark"][1]) - _brightness(shades["dark"][0]) > 150


def _brightness(colour: str) -> float:
    numbers = colour.partition("(")[2].rstrip(")").split(",")[:3]
    return sum(map(float, numbers)) / 3.0


def _log(driver: webdriver.Chrome) -> list[Any]:
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]
