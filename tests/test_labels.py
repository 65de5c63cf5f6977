"""Faces counted by eye: reading labels, and comparing them with the judge."""

from operator import attrgetter

import numpy as np
import pytest

from sjc_debiased.evaluation.agreement import Answer, kappa, kappa_of, rates, sentence
from sjc_debiased.evaluation.labels import LabelError, Labelled, describe, rate_by_eye, read_labels
from sjc_debiased.folder.runs import write_json


def labelled_folder(folder, labels, judged):
    """Write sheets' key and labels, one object for each."""
    folder.mkdir()
    presets = ["sjc" if i % 2 else "dsds" for i in range(len(judged))]
    rows = [
        {
            "run": str(i),
            "preset": p,
            "judged": [c == "1" for c in text],
            "judged_success": i == 0,
        }
        for i, (p, text) in enumerate(zip(presets, judged))
    ]
    write_json(folder / "key.json", {"seed": 0, "views": 8, "rows": rows})
    write_json(folder / "labels.json", labels)
    return folder


def seen_as(text):
    """Return an object with these labels."""
    return Labelled("0", "dsds", [{"0": False, "1": True, "?": None}[c] for c in text], None, None)


def answers(yes_yes, yes_no, no_yes, no_no):
    """Return answers by eye and by judge, each a cluster of its own."""
    counts = {(True, True): yes_yes, (True, False): yes_no, (False, True): no_yes, (False, False): no_no}
    pairs = [pair for pair, n in counts.items() for _ in range(n)]
    return [Answer(eye, judge, i) for i, (eye, judge) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("label", "success"),
    [
        ("11000001", True),
        ("1?000001", True),  # the arc in front is one face, wide or narrow
        ("?1000000", None),  # in front or beside it?
        ("1100?001", None),  # a second face at the back?
        ("?0111??0", False),  # a face at the back, whatever else
        ("0?000000", False),  # not in front
        ("????????", None),
    ],
)
def test_a_view_that_could_not_be_told_counts_where_it_does_not_matter(label, success):
    assert seen_as(label).success is success


def test_labels_by_eye_and_the_judge_are_compared(tmp_path):
    labels = ["11000001", "11111111", "?1000000", "1?000001"]
    judged = ["11000001", "11111110", "11000000", "11010001"]
    objects = read_labels(labelled_folder(tmp_path / "labels", labels, judged))
    said = describe(objects)
    assert "On 30 views labelled by eye the judge agrees on 93 % [" in said
    assert "(13 of 14), specificity 94 % [" in said
    assert "of 3 of 4 objects (the others could not be told) it agrees on 67 %" in said
    assert '(always "no" would reach 33%)' in said
    rate = rate_by_eye(objects, "dsds", attrgetter("success"))
    assert (rate.value, rate.n) == (1.0, 1)
    assert rate_by_eye(objects, "sjc", attrgetter("success")).value == 0.5
    assert rate_by_eye(objects, "sjc", attrgetter("one_face")).value == 0.5


def test_a_judge_that_always_says_no_has_no_kappa():
    """It agrees on 92 %, and is worth nothing."""
    same, sensitivity, specificity = rates(answers(0, 6, 0, 70))
    assert same.value == pytest.approx(0.921, abs=1e-3)
    assert (sensitivity.value, specificity.value) == (0, 1)
    found = kappa(answers(0, 6, 0, 70))
    assert found.value == 0
    assert found.low <= 0 < found.high
    assert kappa(answers(0, 0, 0, 5)) is None
    assert "kappa –, sensitivity – (0 of 0)" in sentence(answers(0, 0, 0, 5))


def test_kappa_is_cohens():
    """The textbook's grants: 20 and 15 of 50 alike, 70 % against 50 % by chance."""
    assert kappa_of(np.array([[15.0, 10.0], [5.0, 20.0]])) == pytest.approx(0.4)
    found = kappa(answers(20, 5, 10, 15))
    assert found.value == pytest.approx(0.4)
    # normal approximation, Fleiss, Cohen and Everitt (1969): 0.126
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.126, rel=0.1)


def test_kappa_without_a_disagreement_still_has_an_interval():
    few, many = kappa(answers(3, 0, 0, 7)), kappa(answers(30, 0, 0, 70))
    assert few.value == many.value == few.high == many.high == 1
    assert few.low < many.low < 1


def test_objects_of_one_prompt_count_as_one():
    alone = answers(20, 5, 10, 15)
    together = [Answer(a.eye, a.judge, a.cluster // 5) for a in alone]
    assert kappa(together).high - kappa(together).low > kappa(alone).high - kappa(alone).low
    assert rates(together)[0].clusters == 10


@pytest.mark.parametrize("labels", ['["1100000"]', '["1100000x"]', "[]", "{", "[3]", "null", '[["1"]]'])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    folder = labelled_folder(tmp_path / "labels", [], ["11000001"])
    (folder / "labels.json").write_text(labels)
    with pytest.raises(LabelError, match=r"labels\.json must be a list"):
        read_labels(folder)
