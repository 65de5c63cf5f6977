"""A real browser without a network, for tests of pages."""

import json
import shutil

import pytest

needs_browser = pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="needs Chromium and its driver (Debian: chromium-driver)"
)


def open_browser(downloads):
    """Return a browser that finds no host; the caller quits it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--window-size=1200,900", "--hide-scrollbars"),
        *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # a mesh is drawn without a GPU
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def set_width(driver, width):
    """Make the page as wide as a screen, also narrower than a window can be."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def errors(driver):
    """Return what the page complained about since this was asked last."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def asked_for(driver):
    """Return what the pages asked for since this was asked last, by the start of its address."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"][:200])
    return found


def overflow(driver):
    """Return by how many pixels a page is wider than its window."""
    return driver.execute_script("return document.documentElement.scrollWidth - innerWidth")
