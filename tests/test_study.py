"""The user study: blinded, and counted back."""

import json

import pytest

from sjc_debiased.evaluation import study
from sjc_debiased.evaluation.intervals import percent
from sjc_debiased.evaluation.study import (
    QUESTIONS,
    Pair,
    StudyError,
    count,
    find_pairs,
    make_study,
    read_answers,
)
from sjc_debiased.evaluation.tables import table_2
from sjc_debiased.folder.runs import write_json
from tests.measured_runs import made_up_run


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
        above = (len(person) + i) % 2
        above_is_ours = base64.b64decode(pair["videos"][above]).startswith(b"ours")
        choice = "above" if above_is_ours == (wanted == "ours") else "below"
        choices += [{"pair": i, "question": q, "choice": choice, "above": above} for q in QUESTIONS]
    return {"study": content["study"], "person": person, "choices": choices}


def test_answers_are_counted_back_to_the_method(pairs):
    page, key = make_study(pairs, seed=3)
    wanted = {"one": "ours", "two": "ours", "three": "theirs"}
    tally = count(key, [answers_that_prefer(page, w, person) for person, w in wanted.items()])
    assert tally.people == 3
    for question in QUESTIONS:
        share = tally.share(question)
        assert (share.n, share.value) == (60, pytest.approx(2 / 3))


def test_the_page_is_blind_and_the_order_comes_from_the_seed(pairs):
    page, key = make_study(pairs, seed=3)
    assert "ours" not in page
    assert "baseline" not in page
    assert 3 < sum(key["ours"]) < 17
    assert make_study(pairs, seed=3) == (page, key)
    assert make_study(pairs, seed=4)[1]["ours"] != key["ours"]


def test_a_prompt_cannot_end_the_script(pairs):
    page, _ = make_study(pairs, seed=0)
    assert content_of(page)["pairs"][0]["prompt"].endswith("</script><b>")
    assert page.count("</script>") == 2


def test_the_presets_of_a_study_stand_in_its_key_and_above_its_column(pairs):
    page, key = make_study(pairs, 3, ("score-only", "sjc"))
    tally = count(json.loads(json.dumps(key)), [answers_that_prefer(page, "ours")])
    assert table_2(tally).head[1] == "prefer score-only to sjc"
    assert table_2(None).head[1] == "prefer dsds to sjc"


def test_runs_that_were_not_made_alike_are_not_compared(tmp_path):
    for number, preset in enumerate(("sjc", "dsds", "dsds")):
        folder = made_up_run(tmp_path, number, "a cat", preset, number // 2, success=True)
        (folder / "turntable.mp4").touch()
    assert len(find_pairs(tmp_path)) == 1
    options = json.loads((folder / "options.json").read_text())
    options["resolved"]["n_steps"] += 1
    write_json(folder / "options.json", options)
    with pytest.raises(ValueError, match="differ in n_steps"):
        find_pairs(tmp_path)
    assert find_pairs(tmp_path, ours="score-only") == []


def test_no_pair_is_refused(tmp_path):
    with pytest.raises(StudyError, match="There are none"):
        make_study(find_pairs(tmp_path), seed=0)


def one_answer(**changed):
    """Return the text of a file with one choice."""
    choice = {"pair": 0, "question": "form", "choice": "above", "above": 0} | changed
    choices = [{k: v for k, v in choice.items() if v is not None}]
    return json.dumps({"study": "x", "person": "y", "choices": choices})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"study": "x"}',
        '{"study": "x", "person": "y", "choices": 5}',
        one_answer(pair=-1),
        one_answer(question="other"),
        one_answer(choice="left"),
        one_answer(pair=True, question=[]),
        one_answer(above=2),
        one_answer(above=None),
        one_answer().replace("[", "[{},".format(one_answer()[one_answer().index("[") + 1 : -2])),
    ],
)
def test_a_file_that_is_no_answers_is_refused(tmp_path, text):
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(StudyError, match="must be what the page saved"):
        read_answers(path)


def test_what_the_page_saved_is_read(tmp_path):
    (tmp_path / "answers.json").write_text(one_answer())
    assert read_answers(tmp_path / "answers.json")["choices"][0]["above"] == 0


def test_answers_of_another_study_are_refused(pairs):
    page, key = make_study(pairs, seed=3)
    other = answers_that_prefer(page, "ours") | {"study": "0000"}
    with pytest.raises(StudyError, match="One is of 0000"):
        count(key, [other])


def test_a_person_who_always_takes_the_one_above_prefers_nothing(pairs):
    """Half of the pairs had ours above, so the share of ours is a half, and the habit is reported."""
    page, key = make_study(pairs, seed=3)
    sides = [{"pair": i, "above": (key["ours"][i] + i) % 2, "choice": "above"} for i in range(20)]
    answer = {"study": key["study"], "person": "one"}
    tally = count(key, [answer | {"choices": [s | {"question": "form"} for s in sides]}])
    assert tally.above().value == 1
    assert tally.share("form").value == 0.5
    assert tally.share("prompt") is None
    note = table_2(tally).note
    assert "1 people, 20 pairs" in note
    assert "the one above was chosen in 100 % [" in note
    assert table_2(tally).rows[0][1:3] == (percent(tally.share("form")), "20")


def test_few_people_who_agree_with_themselves_make_a_wide_interval(pairs):
    """Two of three prefer ours on all 20 pairs: 60 answers, of three people."""
    page, key = make_study(pairs, seed=3)
    wanted = {"one": "ours", "two": "ours", "three": "theirs"}
    share = count(key, [answers_that_prefer(page, w, p) for p, w in wanted.items()]).share("form")
    assert (share.low, share.high) == (0, 1)
    everyone = count(key, [answers_that_prefer(page, "ours", p) for p in wanted]).share("form")
    assert (everyone.value, everyone.high) == (1, 1)
    assert everyone.low == pytest.approx(0.025 ** (1 / 3))


def test_a_key_is_never_written_over(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "find_pairs", lambda *_: pairs)
    study.make(tmp_path, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(StudyError, match="never written over"):
        study.make(tmp_path, tmp_path / "out", seed=1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_a_person_counts_once_and_pairs_must_exist(pairs):
    page, key = make_study(pairs, seed=3)
    one = answers_that_prefer(page, "ours")
    with pytest.raises(StudyError, match="count once"):
        count(key, [one, one])
    with pytest.raises(StudyError, match="20 pairs. One is of pair 20"):
        count(key, [one | {"choices": [{"pair": 20, "question": "form", "choice": "above", "above": 0}]}])
