"""The two HTML pages in a real browser, without a network."""

import time

import imageio.v3 as iio
import numpy as np
import pytest

from sjc_debiased.evaluation import results
from sjc_debiased.evaluation.study import QUESTIONS, count, find_pairs, make_study, read_answers
from tests.browser import asked_for, errors, needs_browser, open_browser, overflow, set_width

pytestmark = needs_browser
PROMPT = '<script>document.title="caught"</script> a cat'


@pytest.fixture
def browser(tmp_path):
    driver = open_browser(tmp_path / "downloads")
    yield driver
    driver.quit()


@pytest.fixture
def run_root(tmp_path):
    """Finished runs of two prompts under two presets, each with a short turntable."""
    from tests.measured_runs import made_up_run

    root, number = tmp_path / "runs", 0
    for prompt in (PROMPT, "a dog"):
        for preset in ("sjc", "dsds"):
            folder = made_up_run(root, number, prompt, preset, seed=0, success=preset == "dsds")
            shade = 40 if preset == "sjc" else 200
            frames = np.full((8, 64, 64, 3), shade, np.uint8)
            iio.imwrite(folder / "turntable.mp4", frames, fps=8, codec="libx264", plugin="FFMPEG")
            number += 1
    return root


def test_the_study_is_answered_by_keys_and_counted(browser, run_root, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page, key = make_study(find_pairs(run_root), seed=1)
    (tmp_path / "study.html").write_text(page, encoding="utf-8")
    browser.get(f"file://{tmp_path}/study.html")
    assert browser.title != "caught"
    body = browser.find_element(By.TAG_NAME, "body")
    assert not browser.find_element(By.ID, "next").is_enabled()
    for place in range(2):
        pair = browser.execute_script("return mine.order[arguments[0]]", place)
        ours_above = browser.execute_script("return mine.above[arguments[0]]", pair) == key["ours"][pair]
        for _ in QUESTIONS:
            body.send_keys(Keys.ARROW_UP if ours_above else Keys.ARROW_DOWN)
        if place == 0:
            body.send_keys(Keys.ARROW_RIGHT)
    browser.find_element(By.ID, "save").click()
    for _ in range(50):
        saved = list((tmp_path / "downloads").glob("answers-*.json"))
        if saved:
            break
        time.sleep(0.1)
    tally = count(key, [read_answers(saved[0])])
    shares = [tally.share(question) for question in QUESTIONS]
    assert [(share.n, share.value) for share in shares] == [(2, 1.0)] * len(QUESTIONS)
    assert errors(browser) == []
    browser.refresh()
    assert browser.find_element(By.ID, "save").is_displayed(), "answers outlive the page"


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_fits_and_shows_its_pictures(browser, run_root, tmp_path, width):
    pytest.importorskip("matplotlib")
    from selenium.webdriver.common.by import By

    results.main(run_root, tmp_path / "out")
    set_width(browser, width)
    browser.get(f"file://{tmp_path}/out/report.html")
    assert browser.title == "D-SDS on SJC: results"
    assert PROMPT in browser.find_element(By.TAG_NAME, "body").text
    pictures = browser.find_elements(By.TAG_NAME, "img")
    assert len(pictures) >= 3
    assert all(browser.execute_script("return arguments[0].naturalWidth", p) > 0 for p in pictures)
    assert overflow(browser) <= 0, "the page itself never scrolls sideways"
    assert errors(browser) == []
    assert all(place.startswith(("file:", "data:")) for place in asked_for(browser))
