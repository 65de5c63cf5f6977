"""Two objects side by side: what a visitor may ask for, and what becomes of it."""

import re
import threading

import numpy as np
import pytest

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.library import speaking_of_arguments
from sjc_debiased.watching.pair import PAIR, Growing, Made
from tests.browsers import TEXTS


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("a purple cat", 0, 9), "It does not know purple. It knows: a, an, back,"),
        ((TEXTS["a script"], 0, 9), "It does not know script,"),
        ((TEXTS["right to left"], 0, 9), "It does not know חתול,"),
        ((TEXTS["10,000 characters"], 0, 9), "at most 300 characters. This one has 10000."),
        (("a cat " * 49, 0, 9), "must fit the text encoder's 24 tokens"),
        (("", 0, 9), "prompt must have a word."),
        (("a cat", 0, 31), "steps must be between 1 and 30. Received 31."),
        (("a cat", 0, 0), "steps must be between 1 and 30. Received 0."),
        (("a cat", -1, 9), "seed must be between"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(strict, asked, says):
    with pytest.raises(ValueError, match=r"\.$|\. ") as refused, speaking_of_arguments():
        strict.plan(*asked)
    assert says in str(refused.value)
    assert "--" not in str(refused.value)
    assert not strict.run_root.exists()


def test_two_grow_together_and_are_runs_like_any_others(maker):
    news = [*maker.make(maker.plan("../../a <b>cat</b>; rm", 3, 12), threading.Event())]
    for preset in PAIR:
        mine = [new for new in news if new.preset == preset]
        assert isinstance(mine[0], Growing)
        assert mine[0].image_u8.dtype == np.uint8
        assert mine[0].image_u8.shape[1] == 2 * mine[0].image_u8.shape[0]
        assert mine[-1].problem == ""
        assert RunReader(mine[-1].folder).options["preset"] == preset
        assert RunReader(mine[-1].folder).options["n_steps"] == 12
    names = ["00000-sjc-a-b-cat-b-rm-seed3", "00001-dsds-a-b-cat-b-rm-seed3"]
    assert sorted(p.name for p in maker.run_root.iterdir() if p.is_dir()) == names


def ended(news):
    return [new for new in news if isinstance(new, Made)]


def test_stop_saves_both_and_the_same_prompt_goes_on(maker):
    stop = threading.Event()
    stop.set()
    one, other = ended(maker.make(maker.plan("a cat", 0, 30), stop))
    for made in (one, other):
        assert re.fullmatch(
            "stopped after step [12], saved; the same prompt goes on from there", made.problem
        )
    for _ in range(2):  # made to the end, and then found
        one, other = ended(maker.make(maker.plan("a cat", 0, 30), threading.Event()))
        assert (one.problem, other.problem) == ("", "")
        assert {one.folder.name, other.folder.name} == {"00000-sjc-a-cat-seed0", "00001-dsds-a-cat-seed0"}


def test_who_leaves_early_stops_both(maker):
    news = maker.make(maker.plan("a cat", 0, 30), threading.Event())
    next(news)
    news.close()
    checkpoints = [RunReader(folder).checkpoint for folder in maker.run_root.glob("0*")]
    assert [checkpoint.step < 30 for checkpoint in checkpoints] == [True, True]
