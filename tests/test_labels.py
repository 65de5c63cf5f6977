"""Faces counted by eye: reading labels, and comparing them with the judge."""

import pytest

from sjc_debiased.evaluation.labels import (
    LabelError,
    agreement,
    describe,
    read_labels,
    success_by_eye,
)
from sjc_debiased.runs import write_json


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


def test_labels_by_eye_and_the_judge_are_compared(tmp_path):
    labels = ["11000001", "11111111", "?1000000", "11000001"]
    judged = ["11000001", "11111110", "11000000", "11010001"]
    objects = read_labels(labelled_folder(tmp_path / "labels", labels, judged))
    assert agreement(objects).sum(0).tolist() == [[15, 1], [1, 14]]
    said = describe(objects)
    assert "Of 31 views labelled by eye the judge agrees on 93.5%" in said
    assert "verdicts on 3 objects it agrees on 66.7%" in said  # one could not be told
    assert "by eye 2 of them have one face, in front, by the judge 1" in said
    rate = success_by_eye(objects, "dsds")
    assert (rate.value, rate.n) == (1.0, 1)
    assert success_by_eye(objects, "sjc").value == 0.5


@pytest.mark.parametrize("labels", ['["1100000"]', '["1100000x"]', "[]", "{", "[3]", "null", '[["1"]]'])
def test_labels_that_are_none_are_refused(tmp_path, labels):
    folder = labelled_folder(tmp_path / "labels", [], ["11000001"])
    (folder / "labels.json").write_text(labels)
    with pytest.raises(LabelError, match=r"labels\.json must be a list"):
        read_labels(folder)
