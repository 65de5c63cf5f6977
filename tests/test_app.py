"""The app in a real browser: what is typed is text, nobody else is asked, and nothing else can be read."""

import os
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import psutil
import pytest

from sjc_debiased.making.session import Session
from tests.browsers import SIZES, TEXTS, a_browser, errors, hosts, needs_browser, this_machine_alone
from tests.page_runs import mesh
from tests.test_viewer_page import wait_for

pytest.importorskip("gradio")


@pytest.fixture
def serve():
    """Return a function that serves the page of what makes pairs, and returns its address."""
    from sjc_debiased.watching.app_page import build_page
    from sjc_debiased.watching.app_page import serve as serve_page

    pages = []

    def start(maker):
        pages.append(build_page(maker))
        return serve_page(pages[-1], "127.0.0.1", wait=False)

    with this_machine_alone() as refused:
        yield start
        for page in pages:
            page.close(verbose=False)
    assert refused == []


def texts(driver):
    return [e.get_property("value") for e in driver.find_elements("css selector", "textarea")]


def press(driver, name):
    button = driver.find_element("xpath", f"//button[contains(., '{name}')]")
    driver.execute_script("arguments[0].click()", button)


def type_prompt(driver, text):
    wait_for(lambda: driver.find_elements("xpath", "//button[contains(., 'make both')]"))
    driver.execute_script(
        "const e = document.querySelector('textarea'); e.value = arguments[0];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        text,
    )


@needs_browser
@pytest.mark.parametrize("size", SIZES)
def test_what_is_typed_is_text(serve, strict, size):
    address = serve(strict)
    with a_browser(size) as driver:
        driver.get(address)
        for text in TEXTS.values():
            type_prompt(driver, text)
            before = texts(driver)[-1]
            press(driver, "make both")
            wait_for(lambda before=before: texts(driver)[-1] not in ("", before))
            assert texts(driver)[0] == text
            assert "does not know" in texts(driver)[-1] or "at most 300 characters" in texts(driver)[-1]
            assert len(texts(driver)[-1]) <= 900
        assert driver.title == "D-SDS on SJC"
        assert errors(driver) == []
        assert hosts(driver) == {"127.0.0.1"}
        assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert not strict.run_root.exists()


@needs_browser
def test_a_pair_is_made_and_shown(serve, maker):
    address = serve(maker)
    with a_browser() as driver:
        driver.get(address)
        type_prompt(driver, "a cat")
        press(driver, "make both")
        wait_for(
            lambda: texts(driver)[-1].count("done:") == 2 and "no mesh: nothing there" in texts(driver)[-1]
        )
        assert hosts(driver) == {"127.0.0.1"}
        assert driver.find_elements("css selector", "img[src*='/file=']")
    assert len([*maker.run_root.glob("0*/stats.jsonl")]) == 2


@needs_browser
def test_both_meshes_can_be_turned(serve, maker, monkeypatch):
    def finish(self, quiet=False):
        (self.folder / "mesh.glb").write_bytes(mesh())
        (self.folder / "result.json").write_text('{"mesh": {}}')

    monkeypatch.setattr(Session, "finish", finish)
    loaded = "return [...document.querySelectorAll('model-viewer')].filter(m => m.loaded).length"
    address = serve(maker)
    with a_browser() as driver:
        driver.get(address)
        type_prompt(driver, "a cat")
        press(driver, "make both")
        wait_for(lambda: driver.execute_script(loaded) == 2)
        assert errors(driver) == []
        assert hosts(driver) == {"127.0.0.1"}


def test_nothing_but_what_was_made_for_a_visitor_can_be_read(serve, maker, tmp_path):
    from sjc_debiased.watching.app_page import _grow

    *_, last = _grow(maker, "a cat", 2, 0, threading.Event())
    (folder, _) = sorted(maker.run_root.glob("0*"))
    copies = [path for files in (last[4], last[8]) for path in files]
    assert len(copies) == 2
    assert not any(str(maker.run_root) in path for path in copies)
    address = serve(maker)
    for path in (folder / "options.json", os.path.abspath("README.md"), "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}gradio_api/file={path}", timeout=20)
        assert refused.value.code in (403, 404)


def test_it_listens_on_this_machine_alone_and_measures_nobody(serve, strict):
    import gradio.analytics

    port = int(serve(strict).rstrip("/").rpartition(":")[2])
    places = {c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.laddr.port == port}
    assert places == {"127.0.0.1"}
    assert not gradio.analytics.analytics_enabled()


def test_a_model_of_any_words_has_no_list(serve, strict):
    profile = replace(strict.choice.profile, known_words=())
    strict.choice = replace(strict.choice, profile=profile)
    config = urllib.request.urlopen(f"{serve(strict)}config", timeout=20).read().decode()
    assert "words that this model knows" not in config
