"""Pages in a real browser: Debian's chromium and its driver, by selenium."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""As root and without a network."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator["object"]:
    """One browser for all tests; skipped by name where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    for program in (CHROMIUM, DRIVER):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def show(browser, page: Path, width: int = 1200) -> None:
    """Open a page `width` pixels wide."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.resolve().as_uri())


def column(browser, table, number: int, part: str = "tbody") -> list[str]:
    """What a column of a table shows, row by row."""
    rows = "[...arguments[0].querySelectorAll(arguments[2] + ' tr')]"
    script = f"return {rows}.map(row => row.cells[arguments[1]].innerText.trim())"
    return browser.execute_script(script, table, number, part)


def printed(browser) -> bytes:
    """The page as PDF."""
    return base64.b64decode(browser.print_page())
