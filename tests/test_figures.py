"""Figures and report: rows that say what they are, and prompts that are shown by a rule."""

import imageio.v3 as iio
import numpy as np
import pytest

from sjc_debiased.evaluation import results
from sjc_debiased.evaluation.collect import collect
from sjc_debiased.evaluation.examples import examples
from sjc_debiased.evaluation.figures import course, magnitudes, strip, write_figures
from sjc_debiased.making.pictures import labelled
from tests.measured_runs import made_up_run

SUITE = ["a smiling cat", "a fox with a bushy tail", "a winking dog", "a frog", "a bear with big eyes"]
"""The first prompts of the suite `menagerie`, which are in no order of the alphabet."""


@pytest.fixture
def runs(tmp_path):
    """Runs of a suite's prompts, made from its end to its start, and of a prompt of no suite."""
    number = 0
    for prompt in ("a bat", *reversed(SUITE)):
        for preset in ("sjc", "dsds"):
            for seed in (3, 1):
                made_up_run(tmp_path / "runs", number, prompt, preset, seed, success=number % 3 == 0)
                number += 1
    return collect(tmp_path / "runs")


def test_prompts_are_spread_over_the_suite_in_its_order(runs):
    shown, rule = examples(runs, ("sjc", "dsds"), 3)
    assert shown == [(SUITE[0], 1), (SUITE[2], 1), ("a bat", 1)]
    assert rule.startswith(
        "3, evenly spaced in the order of the suite menagerie, prompts of no suite behind it"
    )
    assert examples(runs, ("dsds",), 1)[0] == [(SUITE[0], 1)]
    assert [prompt for prompt, _ in examples(runs, ("sjc",), 99)[0]] == [*SUITE, "a bat"]


def test_only_what_every_preset_has_is_shown(runs):
    fewer = [r for r in runs if r.prompt == "a frog" and (r.preset, r.seed) != ("sjc", 1)]
    assert examples(fewer, ("sjc", "dsds"), 4)[0] == [("a frog", 3)]
    assert examples(fewer, ("sjc", "static-low"), 4) == ([], None)


def test_prompts_of_no_suite_are_shown_as_they_were_made(tmp_path):
    for number, prompt in enumerate(("a yak", "a bat")):
        made_up_run(tmp_path, number, prompt, "dsds", 0, success=True)
    shown, rule = examples(collect(tmp_path), ("dsds",), 2)
    assert [prompt for prompt, _ in shown] == ["a yak", "a bat"]
    assert "in the order of their runs" in rule


def test_outcomes_choose_nothing(runs):
    before = examples(runs, ("sjc", "dsds"), 2)
    for i, run in enumerate(runs):
        face, share = run.metrics["face"], i * 0.618 % 1
        face.update(arcs=3 - face["arcs"], in_front=share > 0.5, at_back=not face["at_back"], share=share)
        run.metrics["a_lpips_vgg"] = 1 - share
    assert examples(runs, ("sjc", "dsds"), 2) == before


def test_a_label_stands_above_the_picture_and_fits_into_its_width():
    picture = np.full((10, 300, 3), 90, np.uint8)
    for text in ("a cat", "a long prompt " * 20):
        image = labelled(picture, text)
        line = image[:-10]
        assert np.array_equal(image[-10:], picture)
        assert line.min() < 90  # letters
        assert (line[:, -4:] == 255).all()
    assert not np.array_equal(labelled(picture, "seed 0"), labelled(picture, "seed 1"))


def test_every_row_is_labelled(runs, monkeypatch):
    said = []

    def note(image, text):
        said.append(text)
        return labelled(image, text)

    monkeypatch.setattr("sjc_debiased.evaluation.figures.labelled", note)
    image, _ = strip(runs, ("sjc", "dsds"))
    prompts = (SUITE[0], SUITE[1], SUITE[3], "a bat")
    assert said == [f"{preset}, seed 1: {prompt}" for prompt in prompts for preset in ("sjc", "dsds")]
    assert image.shape == (8 * (24 + 24) + 3 * 6, 256, 3)  # a line and half of a contact sheet's half; gaps
    said.clear()
    assert magnitudes(runs[0]).shape == (96 + 3 * 24, 512, 3)
    assert said == ["render", "magnitude of its score", "the same after clipping"]
    course(runs[0])
    assert said[3].startswith(f"{runs[0].preset}, seed {runs[0].seed}, steps 1 to 1: {runs[0].prompt}")


def test_each_figure_has_one_title_and_says_how_its_prompts_were_chosen(runs, tmp_path):
    made = write_figures(runs, tmp_path, "made by a test")
    assert [figure.name for figure in made] == ["fig_6.jpg", "fig_5.png", "fig_3.png", "fig_15.jpg"]
    assert len({figure.title for figure in made}) == 4
    readme = (tmp_path / "README.md").read_text()
    for figure in made:
        assert f"## {figure.title}\n" in readme
        assert figure.name == "fig_5.png" or "no outcome was looked at" in figure.caption
        assert iio.imread(tmp_path / figure.name).ndim == 3


def test_the_report_begins_with_the_turntables_in_pairs(runs, tmp_path):
    results.main(runs[0].folder.parent, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert 0 < page.index("<video") < page.index("<table") < page.index("<img")
    pairs = page.split('<div class="pair">')[1:]
    assert [pair.split("</figure>")[0].count("<video") for pair in pairs] == [2] * 4
    assert "no outcome was looked at" in page.split("<table")[0]
