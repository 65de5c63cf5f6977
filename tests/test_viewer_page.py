"""The viewer in a real browser: whatever the prompt is, whoever asks, and however the browser ends."""

import os
import signal
import time

import psutil
import pytest

from sjc_debiased.folder.reader import RunReader
from tests.browsers import SIZES, TEXTS, a_browser, errors, hosts, needs_browser, this_machine_alone
from tests.watched_runs import N_STEPS, Guided, make_run, same_bits

viser = pytest.importorskip("viser")
pytestmark = needs_browser


def wait_for(holds):
    """Wait until something holds."""
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


class Visitor:
    """A watcher that lets a browser come after one step, and does something after another."""

    def __init__(self, viewer, driver, at, act):
        self.viewer, self.driver, self.at, self.act = viewer, driver, at, act

    def between_steps(self, session, step):
        if step.step == 2:
            self.driver.get(self.viewer.page.address)
            wait_for(lambda: self.viewer.page.watched)
        if step.step == self.at:
            self.act(self.driver)
        return "go on"


def visit(folder, driver, act, at=N_STEPS - 2, prompt="a cat"):
    from sjc_debiased.viewer import Viewer

    viewer = Viewer(Guided())
    ended = make_run(folder, viewer, Visitor(viewer, driver, at, act), prompt=prompt)
    viewer.page.close()
    return ended


def fields(driver):
    """Return what the page's fields of text say."""
    return [e.get_property("value") for e in driver.find_elements("css selector", "input, textarea")]


@pytest.mark.parametrize(("text", "size"), [*((text, SIZES[0]) for text in TEXTS), ("a script", SIZES[1])])
def test_a_prompt_is_text_and_the_page_asks_nobody_else(tmp_path, text, size):
    prompt, found = TEXTS[text], {}

    def read(driver):
        wait_for(lambda: prompt in fields(driver))
        time.sleep(1)
        found.update(texts=fields(driver), title=driver.title, hosts=hosts(driver), errors=errors(driver))
        found["sideways"] = driver.execute_script("return document.documentElement.scrollWidth - innerWidth")

    with a_browser(size) as driver, this_machine_alone() as refused:
        visit(tmp_path / "run", driver, read, prompt=prompt)
    assert refused == []
    assert prompt in found["texts"]
    assert f"front: front view {prompt}" in found["texts"]
    assert found["title"] != "caught"
    assert found["errors"] == []
    assert found["hosts"] == {"127.0.0.1"}
    assert found["sideways"] <= 0


def test_a_browser_that_is_killed_leaves_the_run_as_it_is(tmp_path):
    def kill(driver):
        for process in psutil.Process(driver.service.process.pid).children(recursive=True):
            os.kill(process.pid, signal.SIGKILL)

    with a_browser() as driver:
        ended = visit(tmp_path / "run", driver, kill, at=8)
    make_run(tmp_path / "plain")
    assert not ended.stopped
    assert same_bits(tmp_path / "run", tmp_path / "plain")


def test_the_buttons_do_what_they_say(tmp_path):
    def press(driver):
        (button,) = driver.find_elements("xpath", "//button[contains(., 'stop and save')]")
        button.click()
        time.sleep(2)

    with a_browser() as driver:
        ended = visit(tmp_path / "run", driver, press, at=9)
    assert ended.stopped
    assert RunReader(tmp_path / "run").checkpoint.step in (11, 12)
