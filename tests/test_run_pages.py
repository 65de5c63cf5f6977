"""The page of a run and the gallery in a real browser, opened from the disk, without a network."""

import os
import shutil
import time

import pytest

from sjc_debiased.folder.runs import GALLERY, VIEW
from sjc_debiased.gallery import main, write_gallery
from sjc_debiased.pages.state import SILENT_AFTER_S
from sjc_debiased.pages.view import write_view
from tests.browser import asked_for, errors, needs_browser, open_browser, overflow, set_width
from tests.page_runs import page_run
from tests.test_view import RIGHT_TO_LEFT, SCRIPT

pytestmark = needs_browser
PLAYED = "(v => v.played.length && v.played.end(v.played.length - 1) > 0.2)"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = open_browser(tmp_path_factory.mktemp("downloads"))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver):
    driver.get("about:blank")
    set_width(driver, 1200)
    errors(driver), asked_for(driver)
    return driver


def until(browser, script, seconds=120):
    """Wait until a script returns something true; return it."""
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, f"{script} did not come true. {errors(browser)}"
        time.sleep(0.1)
    return found


def set_input(browser, selector, value):
    """Set a control to a value, as a person does."""
    script = "const c = document.querySelector(arguments[0]); c.value = arguments[1];"
    script += "c.dispatchEvent(new Event('input'))"
    browser.execute_script(script, selector, value)


def stands(browser, page):
    """Open a page; it must not complain, scroll sideways at any width, or ask for anything elsewhere."""
    browser.get(f"file://{page}")
    assert browser.title != "caught"
    for width in (1280, 390):
        set_width(browser, width)
        assert overflow(browser) <= 0, width
    assert errors(browser) == []
    for place in asked_for(browser):
        assert place.startswith((f"file://{page.parent.parent}", "data:", "blob:null/")), place


def test_a_finished_run_turns_as_video_and_as_mesh(browser, tmp_path):
    folder = page_run(tmp_path)
    write_view(folder)
    browser.get(f"file://{folder / VIEW}")
    until(browser, "return document.querySelector('model-viewer').loaded")
    until(browser, f"return {PLAYED}(document.querySelector('video'))")
    assert until(browser, "return document.querySelector('video').duration") == pytest.approx(3, abs=0.1)
    stands(browser, folder / VIEW)


def test_a_video_that_was_there_before_the_script_turns_too(browser, tmp_path):
    folder = page_run(tmp_path)
    (folder / "mesh.glb").unlink()
    write_view(folder)
    browser.get(f"file://{folder / VIEW}")
    video = "document.querySelector('video')"
    until(browser, f"return {video}.readyState > 0 && !{video}.paused")
    browser.execute_script(f"{video}.pause(); inStep(document.querySelector('[data-turn]'))")
    until(browser, f"return !{video}.paused", seconds=20)


def test_the_slider_goes_from_the_first_preview_to_the_last(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    folder = page_run(tmp_path)
    write_view(folder)
    browser.get(f"file://{folder / VIEW}")

    def shown():
        return browser.execute_script(
            "const at = id => document.getElementById(id);"
            "return [at('moment').textContent, at('preview').src.slice(-9), at('views').hidden,"
            " document.querySelector('.views img').src.slice(-9),"
            " Math.round(document.querySelector('.mark').getAttribute('x1')),"
            " document.querySelector('[data-value=\"1,0\"]').textContent]"
        )

    assert shown() == ["step 40 of 40", "00040.png", False, "00040.jpg", 1000, "0.99"]
    slider = browser.find_element("id", "time")
    slider.send_keys(Keys.ARROW_LEFT)
    assert shown() == ["step 30 of 40", "00030.png", False, "00020.jpg", 744, "0.89"]
    slider.send_keys(Keys.HOME)
    assert shown()[:3] == ["step 10 of 40", "00010.png", True], "no fixed views were taken before"
    browser.find_element("id", "watch").click()
    until(browser, "return document.getElementById('moment').textContent === 'step 40 of 40'")


def test_the_command_is_copied(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    folder = page_run(tmp_path)
    (folder / "mesh.glb").unlink()  # a page that is busy drawing it may still move under the pointer
    write_view(folder)
    browser.get(f"file://{folder / VIEW}")
    browser.find_element("id", "copy").click()
    until(browser, "return document.getElementById('copy').textContent === 'Copied'")
    pasted = "const box = document.body.appendChild(document.createElement('textarea')); box.id = 'pasted'"
    browser.execute_script(pasted)
    browser.find_element("id", "pasted").send_keys(Keys.CONTROL, "v")
    command = browser.find_element("id", "command").text
    assert browser.find_element("id", "pasted").get_property("value").strip() == command.strip() != ""


def comes_into_step(browser, pair):
    """Bring the second of two videos that play out of step, and wait until it is in step again."""
    apart = f"(([a, b]) => Math.abs(a.currentTime - b.currentTime))({pair})"
    put_out = f"const [a, b] = {pair}; b.currentTime = (a.currentTime + 1) % b.duration"
    # Read by the script that put it out: the page may bring it back before a second one could look.
    assert 0.5 < browser.execute_script(f"{put_out}; return {apart}") < 2.5
    until(browser, f"return {apart} < 0.3", seconds=20)


def test_turntables_side_by_side_are_in_step(browser, tmp_path):
    dsds, sjc = page_run(tmp_path, 0), page_run(tmp_path, 1, preset="sjc")
    (dsds / "mesh.glb").unlink()  # drawing it without a GPU leaves little for the videos
    write_view(dsds)
    browser.get(f"file://{dsds / VIEW}")
    pair = "[...document.querySelectorAll('.beside video')]"
    until(browser, f"return {pair}.length === 2 && {pair}.every({PLAYED})")
    comes_into_step(browser, pair)
    set_input(browser, ".beside [data-angle]", "180")
    places = browser.execute_script(f"return {pair}.map(v => v.currentTime)")
    assert places == pytest.approx([1.5, 1.5], abs=0.05)
    stands(browser, dsds / VIEW)
    assert sjc.name in browser.page_source


@pytest.mark.parametrize("prompt", [SCRIPT, RIGHT_TO_LEFT, "smiling cat " * 833, "c" * 10_000])
def test_odd_prompts(browser, tmp_path, prompt):
    folder = page_run(tmp_path, prompt=prompt.strip())
    main(tmp_path)
    stands(browser, folder / VIEW)
    assert browser.find_element("tag name", "h1").text.split()[0] in prompt
    stands(browser, tmp_path / GALLERY)
    assert len(browser.find_elements("css selector", ".card")) == 1


def test_a_run_that_is_being_written(browser, tmp_path):
    folder = page_run(tmp_path, done=15)
    with (folder / "stats.jsonl").open("a") as file:
        file.write('{"step": 15, "azimuth_d')
    write_view(folder)
    stands(browser, folder / VIEW)
    assert browser.find_element("id", "state").text == "running"
    assert "step 15 of 40" in browser.find_element("tag name", "header").text


def test_a_page_that_a_killed_run_left_says_that_it_is_silent(browser, tmp_path, monkeypatch):
    folder = page_run(tmp_path, done=15)
    before = time.time() - SILENT_AFTER_S - 60
    for path in folder.rglob("*"):
        os.utime(path, (before, before))
    monkeypatch.setattr("sjc_debiased.pages.state.time.time", lambda: before)
    write_view(folder)
    assert "running</span>" in (folder / VIEW).read_text()
    stands(browser, folder / VIEW)
    assert browser.find_element("id", "state").text == "stopped"
    assert "did not say how it ended" in browser.find_element("id", "why").text


def test_a_damaged_run_says_what_is_wrong(browser, tmp_path):
    folder = page_run(tmp_path)
    (folder / "options.json").write_text("{")
    shutil.rmtree(folder / "previews")
    (folder / "turntable.mp4").write_bytes(b"no video")
    main(tmp_path)
    browser.get(f"file://{folder / VIEW}")
    said = until(
        browser, "const c = document.querySelector('[data-turn] .cannot'); return c && c.textContent"
    )
    assert said == "This turntable cannot be shown: the file is missing or damaged."
    problems = browser.find_element("css selector", ".problems").text
    assert "options.json" in problems
    assert "there is no preview in this folder" in problems
    stands(browser, folder / VIEW)
    stands(browser, tmp_path / GALLERY)
    assert "unreadable" in browser.find_element("css selector", ".card").text


def test_five_hundred_runs_open_in_two_seconds_and_are_filtered(browser, tmp_path):
    for number in range(500):
        prompt = ("a smiling cat", "a winking dog")[number % 2]
        page_run(tmp_path, number, prompt=prompt, seed=number // 4, preset=("sjc", "dsds")[number // 2 % 2])
    write_gallery(tmp_path)
    browser.get(f"file://{tmp_path / GALLERY}")
    took = browser.execute_script(
        "const [n] = performance.getEntriesByType('navigation'); return n.loadEventEnd - n.startTime"
    )
    assert took < 2000
    until(browser, "return document.querySelector('.card img').naturalWidth > 0")
    places = asked_for(browser)
    assert 0 < len([p for p in places if p.endswith(".png")]) < 200, "pictures come as one scrolls"
    assert not [p for p in places if p.endswith(".mp4")], "videos come when they are asked for"

    def visible():
        return browser.execute_script("return document.querySelectorAll('.card:not([hidden])').length")

    assert visible() == 500
    browser.find_element("id", "prompt").send_keys("DOG  winking")
    assert visible() == 250
    set_input(browser, "#preset", "sjc")
    assert visible() == 125
    assert browser.find_element("id", "count").text == "125 of 500 runs"
    browser.find_element("id", "prompt").send_keys(" that is none")
    assert visible() == 0
    assert browser.find_element("id", "none").is_displayed()
    assert errors(browser) == []


def test_chosen_runs_turn_side_by_side(browser, tmp_path):
    for number in range(3):
        page_run(tmp_path, number, seed=number, done=10 if number == 2 else None)
    write_gallery(tmp_path)
    browser.get(f"file://{tmp_path / GALLERY}")
    assert not browser.find_element("id", "tray").is_displayed()
    for box in browser.find_elements("css selector", ".card input"):
        box.send_keys(" ")  # by key
    until(
        browser,
        f"return [...document.querySelectorAll('#tray video')].filter({PLAYED}).length === 2",
    )
    assert "No turntable." in browser.find_element("id", "tray").text
    comes_into_step(browser, "[...document.querySelectorAll('#tray video')]")
    stands(browser, tmp_path / GALLERY)
    browser.find_elements("css selector", ".card input")[0].send_keys(" ")
    until(browser, "return !document.getElementById('tray').hidden")
    browser.find_element("id", "clear").click()
    assert not browser.find_element("id", "tray").is_displayed()
