"""The user study: blinded, and counted back."""

import json

import pytest

from sjc_debiased.evaluation.study import (
    QUESTIONS,
    Pair,
    StudyError,
    count,
    find_pairs,
    make_study,
    read_answers,
)


@pytest.fixture
def pairs(tmp_path):
    made = []
    for i in range(20):
        folders = [tmp_path / f"{name}{i}" for name in ("ours", "theirs")]
        for folder in folders:
            folder.mkdir()
            (folder / "turntable.mp4").write_bytes(folder.name.encode())
        made.append(Pair(f"prompt {i} </script><b>", *folders))
    return made


def content_of(page):
    body = page.split('<script id="content" type="application/json">')[1].split("</script>")[0]
    return json.loads(body)


def answers_that_prefer(page, wanted, person="one"):
    """Return the answers of a person who recognises and prefers one method."""
    import base64

    content = content_of(page)
    choices = []
    for i, pair in enumerate(content["pairs"]):
        above_is_ours = base64.b64decode(pair["videos"][0]).startswith(b"ours")
        choice = "above" if above_is_ours == (wanted == "ours") else "below"
        choices += [{"pair": i, "question": q, "choice": choice} for q in QUESTIONS]
    return {"study": content["study"], "person": person, "choices": choices}


def test_answers_are_counted_back_to_the_method(pairs):
    page, key = make_study(pairs, seed=3)
    wanted = {"one": "ours", "two": "ours", "three": "theirs"}
    tally = count(key, [answers_that_prefer(page, w, person) for person, w in wanted.items()])
    assert tally.people == 3
    assert tally.n == dict.fromkeys(QUESTIONS, 60)
    assert tally.preferred == dict.fromkeys(QUESTIONS, 40)


def test_the_page_is_blind_and_the_order_comes_from_the_seed(pairs):
    page, key = make_study(pairs, seed=3)
    assert "ours" not in page
    assert "baseline" not in page
    assert 3 < key["above"].count("ours") < 17
    assert make_study(pairs, seed=3) == (page, key)
    assert make_study(pairs, seed=4)[1]["above"] != key["above"]


def test_a_prompt_cannot_end_the_script(pairs):
    page, _ = make_study(pairs, seed=0)
    assert content_of(page)["pairs"][0]["prompt"].endswith("</script><b>")
    assert page.count("</script>") == 2


def test_no_pair_is_refused(tmp_path):
    with pytest.raises(StudyError, match="There are none"):
        make_study(find_pairs(tmp_path), seed=0)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"study": "x"}',
        '{"study": "x", "person": "y", "choices": [{"pair": -1, "question": "form", "choice": "above"}]}',
        '{"study": "x", "person": "y", "choices": [{"pair": 0, "question": "other", "choice": "above"}]}',
        '{"study": "x", "person": "y", "choices": [{"pair": 0, "question": "form", "choice": "left"}]}',
        '{"study": "x", "person": "y", "choices": [{"pair": true, "question": [], "choice": "above"}]}',
        '{"study": "x", "person": "y", "choices": 5}',
        '{"study": "x", "person": "y", "choices": ['
        + ",".join(['{"pair":0,"question":"form","choice":"above"}'] * 2)
        + "]}",
    ],
)
def test_a_file_that_is_no_answers_is_refused(tmp_path, text):
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(StudyError, match="must be what the page saved"):
        read_answers(path)


def test_answers_of_another_study_are_refused(pairs):
    page, key = make_study(pairs, seed=3)
    other = answers_that_prefer(page, "ours") | {"study": "0000"}
    with pytest.raises(StudyError, match="One is of 0000"):
        count(key, [other])


def test_a_person_counts_once_and_pairs_must_exist(pairs):
    page, key = make_study(pairs, seed=3)
    one = answers_that_prefer(page, "ours")
    with pytest.raises(StudyError, match="count once"):
        count(key, [one, one])
    with pytest.raises(StudyError, match="20 pairs. One is of pair 20"):
        count(key, [one | {"choices": [{"pair": 20, "question": "form", "choice": "above"}]}])
