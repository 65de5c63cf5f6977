"""What the page of the user study does with keys, drawn sides and early ends; its script runs in Node."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sjc_debiased.evaluation.study import QUESTIONS, Pair, count, make_study, read_answers

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
UP, DOWN, LEFT, RIGHT = ({"key": f"Arrow{where}"} for where in ("Up", "Down", "Left", "Right"))
RUNNER = Path(__file__).with_name("study_page.js")


@pytest.fixture
def study(tmp_path):
    """Page and key of seven pairs."""
    pairs = []
    for i in range(7):
        folders = [tmp_path / f"{name}{i}" for name in ("ours", "theirs")]
        for folder in folders:
            folder.mkdir()
            (folder / "turntable.mp4").write_bytes(folder.name.encode())
        pairs.append(Pair(f"prompt {i}", *folders))
    return make_study(pairs, seed=0)


@pytest.fixture
def use(study):
    def run(*events, storage=None):
        page = study[0]
        parts = [part.split("</script>")[0] for part in page.split("<script")[1:]]
        content, script = (part.split(">", 1)[1] for part in parts)
        given = {"script": script, "content": content, "storage": storage or {}, "events": events}
        said = subprocess.check_output(["node", str(RUNNER)], input=json.dumps(given), text=True, timeout=60)
        return json.loads(said) | {"content": json.loads(content)}

    return run


def choices_of(found):
    """Return the answers in the order of the questions, of the pair that was shown first."""
    first = found["mine"]["order"][0]
    return [found["mine"]["answers"].get(f"{first}:{name}") for name in QUESTIONS]


def test_sides_are_drawn_for_each_person_half_each_way(use):
    people = [use()["mine"] for _ in range(6)]
    assert all(sum(p["above"]) in (3, 4) for p in people)
    assert len({tuple(p["above"]) for p in people}) > 1
    assert len({tuple(p["order"]) for p in people}) > 1
    assert all(sorted(p["order"]) == [*range(7)] for p in people)


def test_what_is_saved_says_which_side_was_which(use, study, tmp_path):
    found = use(UP)
    first = found["mine"]["order"][0]
    (choice,) = json.loads(found["saved"])["choices"]
    above = found["mine"]["above"][first]
    assert choice == {"pair": first, "question": "form", "choice": "above", "above": above}
    videos = [f"data:video/mp4;base64,{video}" for video in found["content"]["pairs"][first]["videos"]]
    assert found["shown"] == (videos if above == 0 else videos[::-1])
    (tmp_path / "answers.json").write_text(found["saved"])
    share = count(study[1], [read_answers(tmp_path / "answers.json")]).share("form")
    assert share.value == (study[1]["ours"][first] == above)


@pytest.mark.parametrize(
    "pressed", [{"repeat": True}, {"ctrlKey": True}, {"altKey": True}, {"metaKey": True}]
)
def test_a_held_or_modified_key_is_no_answer(use, pressed):
    assert use(UP | pressed, DOWN | pressed)["mine"]["answers"] == {}
    assert use(UP, UP | pressed)["asked"] == 1
    done = use(UP, UP, UP, RIGHT | pressed)
    assert (done["at"], done["asked"]) == (0, 3)


def test_an_answer_can_be_changed_by_keys(use):
    assert choices_of(use(UP, UP, UP)) == ["above"] * 3
    assert choices_of(use(UP, UP, UP, LEFT, DOWN)) == ["above", "above", "below"]
    assert choices_of(use(UP, UP, UP, LEFT, LEFT, DOWN, RIGHT)) == ["above", "below", "above"]
    back = use(UP, UP, UP, RIGHT, LEFT, DOWN)  # from the next pair
    assert (back["at"], choices_of(back)) == (0, ["above", "above", "below"])
    assert use(UP, LEFT)["marked"] == [True, False, False]
    assert choices_of(use(UP, UP, UP, UP, DOWN)) == ["above"] * 3, (
        "beyond the last question keys change nothing"
    )


def test_no_question_is_passed_over(use):
    found = use(RIGHT, UP, RIGHT, RIGHT)
    assert (found["at"], found["asked"]) == (0, 1)


def test_a_person_who_stops_early_can_save(use):
    assert use()["save"]["hidden"]
    early = use(UP)
    assert early["save"] == {"hidden": False, "text": "Stop here and save my answers"}
    everything = [key for _ in range(7) for key in (UP, UP, UP, RIGHT)]
    assert use(*everything)["save"]["text"] == "Save my answers"


def test_a_person_goes_on_where_the_page_was_closed(use):
    before = use(UP, DOWN)
    after = use(UP, storage=before["kept"])
    assert after["mine"]["person"] == before["mine"]["person"]
    assert after["mine"]["above"] == before["mine"]["above"]
    assert choices_of(after) == ["above", "below", "above"]


ANOTHER, SAVE = {"click": "another"}, {"click": "save"}


def test_somebody_else_begins_anew_and_nobodys_answers_are_lost(use):
    """On one machine: offered where the page opens with answers, or once they are saved."""
    first = use(UP, DOWN)
    assert (first["another"], first["saves"]) == (False, [])
    assert use(storage=first["kept"])["another"]
    assert not use(UP, storage=first["kept"])["another"], "who answers goes on"
    second = use(ANOTHER, DOWN, storage=first["kept"])
    assert second["mine"]["person"] != first["mine"]["person"]
    assert choices_of(second) == ["below", None, None]
    assert [first["mine"]["person"] in name for name in second["saves"]] == [True]
    after = use(UP, SAVE, ANOTHER)
    assert len(after["saves"]) == 1, "saved once"
    assert (after["mine"]["answers"], after["another"]) == ({}, False)
