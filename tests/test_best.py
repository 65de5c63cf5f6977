"""`--best_of`: which run is set aside, who says so, and that none of them is counted."""

import json
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import run_sjc
from prompts.hub import MissingError
from sjc_debiased.evaluation import best, clip_similarity, measure
from sjc_debiased.evaluation.collect import collect
from sjc_debiased.evaluation.study import find_pairs
from sjc_debiased.evaluation.success import count_faces
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import GALLERY, RANKING, RANKING_SHEET, VIEW, write_json
from sjc_debiased.making import session
from sjc_debiased.menagerie import EMBEDDED
from sjc_debiased.models import stable_diffusion
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import Profile
from tests.measured_runs import made_up_run
from tests.options import options

AZIMUTHS = 5.0 * np.arange(72)


def face(middle, half_width, sure=0.9):
    """Return what `measure` says of an object with a face within some degrees of an azimuth."""
    off = np.abs((AZIMUTHS - middle + 180) % 360 - 180)
    seen = np.where(off <= half_width, sure, 0.1)
    found = count_faces(seen)
    about = {**vars(found), "one_face": found.one_face, "success": found.success, "seen": [*map(float, seen)]}
    return {"face": about, "judge": "1ad9e1ad9e1a"}


ALL_AROUND = face(0, 180)
FACES = {4: face(90, 60), 5: face(0, 60), 6: ALL_AROUND}


@pytest.fixture
def command(command):
    """Runs of a few steps: what they make is not looked at."""
    return partial(command, "--n_steps", "12")


@pytest.fixture
def judged(monkeypatch, eps_folder):
    """A judge that knows the tiny model, and finds `FACES` by seed, or what is put into the result."""
    found = dict(FACES)
    monkeypatch.setattr(best, "EMBEDDED", {str(eps_folder): eps_folder})
    monkeypatch.setattr(measure, "measure", lambda folder, *_: found[int(folder.name.rpartition("seed")[2])])
    return found


def rankings(folders):
    return [folder for folder in folders if folder.name.startswith("best-")]


def test_the_best_is_set_aside(command, judged, capsys):
    code, folders = command("--best_of", "3", "--seed", "4")
    assert code == 0
    (place,) = rankings(folders)
    runs = [folder for folder in folders if folder != place]
    assert place.name == "best-sjc-a-smiling-cat-seeds4-6"
    said = json.loads((place / RANKING).read_text())
    assert [row["seed"] for row in said["runs"]] == [5, 4, 6]
    assert [row["verdict"] for row in said["runs"]] == [
        "one face, in front",
        "one face, but not in front alone",
        "a face over 360 degrees",
    ]
    assert (said["best_of"], said["ranked_by"], said["a_guess"], said["not_finished"]) == (
        3,
        "judge",
        False,
        [],
    )
    for name in ("turntable.mp4", "contact_sheet.png"):
        assert (place / name).read_bytes() == (runs[1] / name).read_bytes()
    assert [RunReader(folder).best_of for folder in runs] == [3, 3, 3]
    with Image.open(place / RANKING_SHEET) as sheet, Image.open(runs[0] / "contact_sheet.png") as one:
        letters = (sheet.height - 3 * one.height // 2) / 4  # a title and three labels
        assert letters == 2 * max(12, one.width // 64)
    assert "1. seed 5: one face, in front" in capsys.readouterr().out
    sheet = f"{place.name}/{RANKING_SHEET}"
    for folder, rank in zip(runs, (2, 1, 3)):
        page = (folder / VIEW).read_text()
        assert f"Rank {rank} of 3, by the judge: {said['runs'][rank - 1]['verdict']}." in page
        assert f'href="../{sheet}"' in page
        assert "--best_of 3" in page
    gallery = (place.parent / GALLERY).read_text()
    assert [f">rank {rank} of 3</a>" in gallery for rank in (1, 2, 3, 4)] == [True, True, True, False]
    assert gallery.count(f'href="{sheet}"') == 3


def test_all_files_of_a_mesh_are_set_aside(command, judged, monkeypatch):
    files = {"mesh.obj", "mesh.mtl", "mesh_texture.png"}

    def with_mesh(folder, *_):
        for name in files:
            (folder / name).touch()
        return judged[int(folder.name.rpartition("seed")[2])]

    monkeypatch.setattr(measure, "measure", with_mesh)
    _, folders = command("--best_of", "2", "--seed", "4")
    (place,) = rankings(folders)
    assert files <= {path.name for path in place.iterdir()}


def test_the_same_ranking_is_not_repeated_and_another_has_its_own_folder(command, judged, capsys):
    _, folders = command("--best_of", "2", "--seed", "4")
    (place,) = rankings(folders)
    before = {path: path.read_bytes() for path in place.iterdir()}
    code, again = command("--best_of", "2", "--seed", "4")
    assert (code, again) == (0, folders)
    assert "ranked already" in capsys.readouterr().out
    judged[4], judged[5] = judged[5], judged[4]
    code, more = command("--best_of", "2", "--seed", "4")
    assert (code, [p.name for p in rankings(more)]) == (0, [place.name, f"{place.name}-2"])
    assert {path: path.read_bytes() for path in place.iterdir()} == before
    assert json.loads((rankings(more)[1] / RANKING).read_text())["runs"][0]["seed"] == 4


@pytest.mark.parametrize(
    ("given", "pack"),
    [
        ({"best_of": 3} | its, pack)
        for its, pack in (({}, 3), ({"pack": 2}, 2), ({"pack": 1}, 1), ({"viewer": True}, 1))
    ]
    + [({}, 1)],
)
def test_seeds_are_optimised_together_unless_another_pack_is_asked_for(given, pack):
    assert run_sjc._packed(options(prompt=("a cat",), **given)).machine.at_a_time == pack


def test_an_interrupted_one_goes_on_and_ranks_at_its_end(command, judged, monkeypatch):
    original = session.save_preview

    def interrupt(path, step, *rest):
        original(path, step, *rest)
        if step.step == 7 and "seed6" in str(path):  # the others are finished
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(session, "save_preview", interrupt)
    asked = "--best_of", "3", "--seed", "4", "--pack", "2"
    code, folders = command(*asked)
    assert (code, len(folders), rankings(folders)) == (130, 3, [])
    monkeypatch.setattr(session, "save_preview", original)
    code, after = command(*asked)
    assert (code, len(after), len(rankings(after))) == (0, 4, 1)


def test_what_failed_is_not_ranked(command, judged, monkeypatch):
    original = session.Session._check

    def check(self, pending):
        if "seed5" in self.folder.name:
            raise session.DivergedError("this one diverged")
        return original(self, pending)

    command("--seed", "4")
    monkeypatch.setattr(session.Session, "_check", check)
    code, folders = command("--best_of", "3", "--seed", "4")
    assert [RunReader(folder).best_of for folder in folders[:3]] == [None, 3, 3]  # an ordinary one stays so
    said = json.loads((rankings(folders)[0] / RANKING).read_text())
    assert (code, [row["seed"] for row in said["runs"]], said["not_finished"]) == (1, [4, 6], [5])
    code, folders = command("--best_of", "2", "--seed", "5")
    assert (code, len(rankings(folders))) == (1, 1)


def test_a_success_comes_before_one_face_elsewhere_and_among_equals_the_margin_decides(judged):
    (run,) = resolve(options(prompt=("a cat",)), Profile(), "toy", "revision")
    judged |= {
        1: face(0, 60, 0.6),
        2: face(0, 60, 0.8),
        3: face(180, 60),
        4: face(0, 180, 0.99),
        5: face(0, 0),
    }
    found = {seed: best.look_at(Path(f"x-seed{seed}"), run, "", "cpu") for seed in range(1, 6)}
    assert sorted(found, key=lambda seed: found[seed].order, reverse=True) == [2, 1, 3, 5, 4]
    assert found[2].order == (True, True, pytest.approx(0.7))
    assert [found[3].verdict, found[5].verdict] == ["one face, but not in front alone", "no face"]


def test_by_clip_it_is_called_a_guess(command, monkeypatch, capsys, tmp_path):
    """Seed 0 has a front everywhere, seed 1 on one side alone."""
    turned = np.cos(np.deg2rad(3.6 * np.arange(100)))

    def measured(folder, parts, clip, device):
        assert (parts, clip) == (("clip",), str(tmp_path))
        front = turned if "seed1" in folder.name else np.ones(100)
        similarity = {"front": front, "side": np.zeros(100), "back": -front}
        margin = dict.fromkeys(similarity, 0.9 if "seed0" in folder.name else 0.1)
        return {"clip": {"similarity": similarity, "margin": margin}, "clip_weights": "c11c"}

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(clip_similarity, "find_clip", lambda name, local: tmp_path)
    code, folders = command("--best_of", "2")
    said = json.loads((rankings(folders)[0] / RANKING).read_text())
    assert (code, said["ranked_by"], said["a_guess"]) == (0, "CLIP", True)
    assert [row["seed"] for row in said["runs"]] == [1, 0]
    assert all(row["verdict"].startswith("CLIP guesses") for row in said["runs"])
    assert "by CLIP, which is a guess" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--best_of", "1"], "--best_of must be 2 to 100. It is 1"),
        (["--best_of", "101"], "--best_of must be 2 to 100. It is 101"),
        (["--best_of", "3", "--seeds", "0,1"], "It came with --seeds"),
        (["--best_of", "3", "--resume", "there"], "It came with --resume"),
        (["--best_of", "2", "--seed", "2147483647"], "--seed must be between"),
        (["--best_of", "2"], "There is no CLIP: nothing there"),
    ],
)
def test_refusals_before_a_model_is_loaded(command, capsys, monkeypatch, arguments, message):
    def missing(*_):
        raise MissingError("nothing there.")

    monkeypatch.setattr(clip_similarity, "find_clip", missing)
    monkeypatch.setattr(stable_diffusion, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    code, folders = command(*arguments)
    assert (code, folders) == (2, [])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("count", [collect, find_pairs])
def test_runs_that_were_made_to_be_chosen_are_not_counted(tmp_path, count):
    folders = [made_up_run(tmp_path, n, "a cat", name, 0, True) for n, name in enumerate(("sjc", "dsds"))]
    assert count(tmp_path)
    written = json.loads((folders[1] / "options.json").read_text())
    write_json(folders[1] / "options.json", written | {"best_of": 4})
    with pytest.raises(ValueError, match="00001-dsds-x-seed0 was made by --best_of 4"):
        count(tmp_path)


@pytest.mark.parametrize(("model", "who"), [*((name, "judge") for name in EMBEDDED), ("sd15", "CLIP")])
def test_the_judge_ranks_what_it_knows(model, who):
    assert best.ranked_by(model) == who
