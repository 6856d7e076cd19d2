"""Debian's Chromium, headless, for tests of pages; skips by name where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@contextmanager
def chromium(
    downloads: Path, *, width: int = 1100, height: int = 900, gesture: bool = True, flags: tuple[str, ...] = ()
) -> Iterator[Any]:
    """A browser window; what is saved goes to ``downloads``. ``gesture``: sound needs no click before it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*_QUIET, *flags, f"--window-size={width},{height}"):
        options.add_argument(flag)
    if gesture:
        options.add_argument("--autoplay-policy=no-user-gesture-required")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    window = webdriver.Chrome(options=options, service=service.Service(driver))
    try:
        yield window
    finally:
        window.quit()


def complaints(window: Any) -> list[str]:
    """Errors that the page left in the console."""
    return [entry["message"] for entry in window.get_log("browser") if entry["level"] == "SEVERE"]
