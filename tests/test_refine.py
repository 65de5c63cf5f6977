"""The refine stage as a command: what it leaves, what it leaves alone, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from sjc_debiased import proposals, refine
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FINISHED, write_json
from sjc_debiased.making import made
from sjc_debiased.making.made import load_scene
from sjc_debiased.settings import Viewing
from tests.run_files import stats_of
from voxnerf.tetra_field import TetraField

SMALL = ("--steps", "4", "--resolution", "8", "--faces", "200", "--texture", "64", "--device", "cpu")


def bytes_in(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_refined_into_folders_of_its_own(command, solid_scenes, capsys):
    _, (run,) = command("--emptiness_weight", "0", "--lr", "0.01", "--n_steps", "4")
    before = bytes_in(run)
    assert refine.main([str(run), *SMALL]) == 0
    made = run / "refined"
    assert f"refined into: {made}" in capsys.readouterr().out
    after = bytes_in(run)
    assert {p: data for p, data in after.items() if made not in p.parents} == before
    about = json.loads((made / "refine.json").read_text())
    assert (about["n_steps"], about["resolution"], about["roughness_weight"]) == (4, 8, 10_000)
    assert about["seed"] == 2**31
    assert [row["step"] for row in stats_of(made)] == [0, 1, 2, 3]
    assert len(RunReader(made).previews) == 4
    assert RunReader(made).turntable.stat().st_size > 0
    result = RunReader(made).result
    assert result["mesh"]["iou"] > 0.8
    assert (made / "mesh.glb").exists()

    assert refine.main([str(run), *SMALL, "--roughness_weight", "5"]) == 0
    assert json.loads((run / "refined-2" / "refine.json").read_text())["roughness_weight"] == 5
    assert {p: data for p, data in bytes_in(run).items() if p in after} == after, "nothing is overwritten"


def test_a_lit_run_is_refined_in_its_light_and_in_larger_pictures(command, solid_scenes, monkeypatch):
    seen = []

    def render(self, camera, *scale):
        seen.append(camera)
        return original(self, camera, *scale)

    original = TetraField.render
    monkeypatch.setattr(TetraField, "render", render)
    _, (run,) = command("--preset", "magic3d-score-only", "--lr", "0.01", "--n_steps", "4")
    assert refine.main([str(run), *SMALL]) == 0
    made = run / "refined"
    assert len(seen) == 4
    assert {camera.height for camera in seen} == {4 * 8}, "the 2D model sees 8 x 8"
    assert any(camera.light for camera in seen)
    rows = stats_of(made)
    assert all(row["roughness_loss"] > 0 for row in rows)
    assert not any("sparsity_loss" in row or "orientation_loss" in row for row in rows)
    assert RunReader(made).result["mesh"]["iou"] > 0.8
    assert RunReader(made).turntable.stat().st_size > 0


def test_a_run_without_an_object_is_refused_and_left_alone(command, capsys):
    _, (run,) = command("--n_steps", "2", "--background", "published")
    before = bytes_in(run)
    assert refine.main([str(run), *SMALL]) == 2
    assert "refine: a mesh needs" in capsys.readouterr().err
    assert bytes_in(run) == before


@pytest.fixture
def finished(tmp_path):
    """A run folder that says that it is finished, without a checkpoint."""
    options = {"n_steps": 60, "resolution": 12, "emptiness_weight": 1.0, "keep": [], "seed": 0}
    told = dict.fromkeys(("prompt", "sent", "removed", "pmi", "normalized_pmi", "kept"))
    write_json(tmp_path / "options.json", {"resolved": options, "view_prompts": told})
    write_json(tmp_path / FINISHED, {})
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps must be at least 1"),
        (("--resolution", "500"), "--resolution must be between 8 and 128"),
        (("--roughness_weight", "nan"), "--roughness_weight must be finite"),
        (("--level", "x"), "--level must be auto or a positive number"),
    ],
)
def test_bad_options_are_refused_before_any_work(finished, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(made, "load_scene", Mock(side_effect=AssertionError("a scene is loaded")))
    assert refine.main([str(finished), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("its", "then"),
    [
        ({}, ("20", "501")),
        ({"timesteps": ["30", "0:900,9:41"]}, ("30", "41")),  # where its 60 steps ended
        ({"resolution": 160}, ("20", "501")),
        ({"timesteps": ["20", "981"]}, ("20", "981")),
        ({"timesteps": ["20", "981"], "light": "magic3d"}, ("20", "501")),
        ({"timesteps": ["50", "700"], "light": "magic3d"}, ("50", "700")),
    ],
)
def test_the_timesteps_are_threestudios_or_the_runs_own(finished, its, then):
    written = json.loads((finished / "options.json").read_text())
    written["resolved"] |= {"prompt": "a cat", "preset": "sjc", "model": "m", "fingerprint": "f"} | its
    write_json(finished / "options.json", written)
    run, _ = refine._plan(refine.RefineOptions(finished), RunReader(finished))
    assert run.guidance.timesteps == then
    light = its.get("light")
    assert run.viewing == (Viewing(light=light, albedo_share=0.0) if light else Viewing())
    assert run.guidance.guidance_form == "paas"


def test_folders_that_are_no_finished_run_are_refused(finished, tmp_path, capsys):
    assert refine.main([str(tmp_path / "nowhere")]) == 2
    assert "readable options.json" in capsys.readouterr().err
    (finished / FINISHED).unlink()
    assert refine.main([str(finished)]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_a_run_with_a_lora_is_refused(command, capsys):
    """Its model is loaded without it, and would pull elsewhere. Its pictures are what they were."""
    _, (run,) = command("--n_steps", "2")
    options = json.loads((run / "options.json").read_text())
    options["resolved"]["fingerprint"] += " + lora 0123456789abcdef x 1"
    write_json(run / "options.json", options)
    assert refine.main([str(run), *SMALL]) == 2
    assert "was made with a LoRA" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="was made with a LoRA"):
        proposals.main(proposals.ProposalOptions(run))
    for given, message in (
        ({"out": run / "sheets" / "x.png"}, "--out must be in a folder that is there"),
        ({"timesteps": ()}, "--timesteps must be one or more"),
        ({"device": "tpu"}, "--device must be auto, cpu"),
    ):
        with pytest.raises(SystemExit, match=message):
            proposals.main(proposals.ProposalOptions(run, **given))
    assert load_scene(run)[0]["n_steps"] == 2


def test_the_model_is_as_precise_as_in_its_run_but_on_a_cpu(copied_run, monkeypatch):
    def model_of(location, device, precision):
        loaded.append(precision)
        raise OSError

    loaded = []
    monkeypatch.setattr(made, "model_of", model_of)
    options = json.loads((copied_run / "options.json").read_text())
    for device, precision, asked in (
        ("cuda", "bfloat16", True),
        ("cuda", "bfloat16", False),
        ("cpu", "bfloat16", True),
    ):
        options["machine"]["precision"] = precision
        write_json(copied_run / "options.json", options)
        with pytest.raises(OSError):  # noqa: PT011
            load_scene(copied_run, device, asked=asked)
    assert loaded == ["bfloat16", "float16", "float32"]


def test_the_command_is_light_until_it_works(tmp_path):
    code = "import sys; from sjc_debiased import refine; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode
        == 0
    )
