"""A real browser for tests of pages that a server makes: what it says on its console, and whom it asks."""

import ipaddress
import json
import shutil
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

needs_browser = pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="needs Chromium and its driver (Debian: chromium-driver)"
)
SIZES = ((1280, 900), (390, 844))
TEXTS = {
    "a script": '<script>document.title="caught"</script><img src=x onerror=document.title="caught"> a cat',
    "Markdown and MDX": "[a](javascript:document.title='caught') {document.title='caught'} ![x](http://192.0.2.1/x)",
    "right to left": "חתול מחייך \u202egpj.exe قطة مبتسمة",
    "10,000 characters": "a cat " * 1666 + "cats",
}
"""What a person may type, or another may have typed for them."""


@contextmanager
def a_browser(size=SIZES[0]):
    """Open Chromium with a window of this size."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    graphics = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    nobody_else = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # who is asked is not found
    for argument in ("--headless=new", "--no-sandbox", nobody_else, *graphics):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:  # a window of its own is never narrower than 500 pixels
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield driver
    finally:
        driver.quit()


def errors(driver):
    """Return what the console calls an error."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def hosts(driver):
    """Return every host that the page asked for anything, by HTTP or by WebSocket."""
    found = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(urlsplit(message["params"]["request"]["url"]).hostname)
        elif message["method"] == "Network.webSocketCreated":
            found.add(urlsplit(message["params"]["url"]).hostname)
    return found - {None}


@contextmanager
def this_machine_alone():
    """Refuse every connection of this process that leaves the machine; yield what was refused."""
    refused, connect, look_up = [], socket.socket.connect, socket.getaddrinfo

    def refuse(host):
        refused.append(str(host))
        raise OSError(f"a test lets nobody call {host}")

    def only_here(self, address):
        if self.family != socket.AF_UNIX and not ipaddress.ip_address(address[0]).is_loopback:
            refuse(address[0])
        return connect(self, address)

    def known(host, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
            refuse(name)
        return look_up(host, *rest, **more)

    socket.socket.connect, socket.getaddrinfo = only_here, known
    try:
        yield refused
    finally:
        socket.socket.connect, socket.getaddrinfo = connect, look_up
