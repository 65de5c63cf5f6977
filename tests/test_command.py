"""The command as a person uses it: refusals, a run, its files, interruption and resuming."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from safetensors.torch import load_file

import run_sjc
from adapt_sd import StableDiffusion
from sjc_debiased.denoiser import Conditioning
from sjc_debiased.folder.runs import FINISHED
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.making import prepare, session
from sjc_debiased.models import stable_diffusion
from sjc_debiased.optimize import Scene, Settings, one_step
from tests.run_files import stats_of
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render

ROOT = Path(__file__).parents[1]
N_STEPS = 60  # of `command` in conftest.py
STILL = ("--lr", "1e-6", "--n_steps", "4")  # a scene stays what it was at its start


def test_a_run_leaves_everything(command, bert_folder, capsys):
    code, folders = command("--debias", "--masked_lm", str(bert_folder), "--mesh", "glb", "ply", "obj")
    out = capsys.readouterr().out
    assert code == 0
    (folder,) = folders
    assert folder.name == "00000-dsds-a-smiling-cat-seed0"
    assert out.startswith("model: ")
    assert "PMI" in out
    options = json.loads((folder / "options.json").read_text())
    assert options["resolved"]["clip_end"] == 8.0
    assert options["view_prompts"]["sent"]["front"].startswith("front view")
    assert {"command", "versions", "git_commit", "model_identity", "device"} <= options.keys()
    rows = stats_of(folder)
    assert [row["step"] for row in rows] == list(range(N_STEPS))
    assert rows[0]["clip_value"] == 2.0
    assert rows[30]["clip_value"] == pytest.approx(5.0)
    assert all(0 <= row["clipped_fraction"] <= 1 for row in rows)
    assert {"azimuth_deg", "elevation_deg", "direction_rms", "opacity_mean", "view"} <= rows[0].keys()
    for name in ("contact_sheet.png", "score_magnitude.png"):
        assert iio.imread(folder / name).ndim == 3
    frames = iio.imread(folder / "turntable.mp4", plugin="FFMPEG")
    assert len(frames) == 72
    assert len(list((folder / "previews").glob("*.png"))) == N_STEPS
    assert "mesh" in json.loads((folder / FINISHED).read_text())
    assert not list(folder.rglob(".*-*"))


def test_an_opaque_scene_leaves_its_meshes(command, solid_scenes):
    code, (folder,) = command("--mesh", "glb", "ply", "obj", *STILL)
    assert code == 0
    result = json.loads((folder / FINISHED).read_text())
    assert result["mesh"]["faces"] > 50
    assert all((folder / f"mesh.{e}").stat().st_size > 1000 for e in ("glb", "ply", "obj"))


def test_the_noise_is_a_function_of_seed_and_step(eps_folder):
    class Denoiser:
        @staticmethod
        def draw_sigma(rng):
            return torch.tensor(float(rng.integers(10, 970)))

    grid, cameras, told = VoxelGrid(GridConfig(resolution=2)), [orbit_camera(0, 0, 8, 8)], Conditioning(())

    def draw(seed, step):
        scene = Scene(grid, None, cameras * 501, [told] * 501, PAAS(n_noise=2), Settings(), seed, done=step)
        query = next(one_step(scene, Denoiser))
        picture = render(grid, *cameras).latent.detach()
        return query.sigma.item(), (query.noised - picture) / query.sigma

    draws = {(seed, step): draw(seed, step) for seed in (0, 1, 77) for step in (0, 1, 500)}
    assert len({sigma for sigma, _ in draws.values()}) > 5
    noises = [noise for _, noise in draws.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
    assert torch.equal(draw(77, 500)[1], draws[77, 500][1])
    assert noises[0].shape == (2, 4, 8, 8)
    assert torch.cat(noises).std() == pytest.approx(1.0, abs=0.05)


def test_other_weights_are_another_run(command, make_pipeline):
    folder = make_pipeline("epsilon")
    command("--n_steps", "2", model=folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(bytes(data))
    _, folders = command("--n_steps", "2", model=folder)
    assert len(folders) == 2


@pytest.mark.parametrize(
    "text",
    [
        *("{", '{"n_steps": "x"}', '{"nonsense": 1}', "[]", "{}" + 2**20 * " ", '{"noise_table": "sine"}'),
        *('{"lit": {"n_steps": 3}}', '{"lit": {"background_lr": "x"}}', '{"n_steps": 0}'),
    ],
)
def test_a_bad_profile_is_refused(command, make_pipeline, capsys, text):
    folder = make_pipeline("epsilon")
    (folder / "profile.json").write_text(text)
    assert command(model=folder)[0] == 2
    assert "profile.json must hold" in capsys.readouterr().err


def test_more_noise_and_the_depth_loss(command):
    depth = ("--depth_weight", "3", "--depth_loss", "corrected")
    code, (folder,) = command("--n_noise", "2", *depth, "--n_steps", "12")
    assert code == 0
    assert [row["depth_loss"] is not None for row in stats_of(folder)] == [True] * 12


def test_a_finished_run_does_nothing(command, copied_run, capsys, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in command()[1][0].rglob("*")}
    capsys.readouterr()
    full = shutil._ntuple_diskusage(10, 9, 1)  # which is nothing to a run that is there
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    code, folders = command()
    assert code == 0
    assert len(folders) == 1
    assert "finished already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in folders[0].rglob("*")} == before


def test_a_finished_run_gets_the_formats_that_it_lacks(command, solid_scenes, capsys):
    _, (folder,) = command(*STILL)
    before = (folder / "mesh.glb").read_bytes()
    code, folders = command(*STILL, "--mesh", "glb", "obj")
    assert (code, folders) == (0, [folder])
    assert "finished already" in capsys.readouterr().out
    assert (folder / "mesh.obj").stat().st_size > 1000
    assert (folder / "mesh.glb").read_bytes() == before
    assert command(*STILL, "--mesh", "glb", "obj", "--mesh.faces", "150")[0] == 0
    smaller = {folder / f"mesh-faces150.{ending}" for ending in ("glb", "obj", "mtl", "json")}
    assert smaller <= {*folder.glob("mesh-faces150*")}, "every format of what is asked for, under its name"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert command(*STILL, "--mesh", "glb", "obj", "--mesh.faces", "150")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before, "and that once"


@pytest.mark.parametrize("stop_at", [7, 24, 30])
def test_interrupted_and_resumed_equals_uninterrupted(command, whole_run, monkeypatch, capsys, stop_at):
    original = session.save_preview

    def interrupt(path, step, *rest):
        original(path, step, *rest)
        if step.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(session, "save_preview", interrupt)
    code, (folder,) = command()
    assert code == 130
    assert "The same command goes on from there" in capsys.readouterr().out
    assert stop_at < len(stats_of(folder)) <= stop_at + 3
    assert (folder / f"checkpoints/step_{len(stats_of(folder)):06d}.safetensors").exists()
    monkeypatch.setattr(session, "save_preview", original)
    assert command()[0] == 0
    assert "resuming at step" in capsys.readouterr().out
    last = f"checkpoints/step_{N_STEPS:06d}.safetensors"
    ours, theirs = load_file(folder / last), load_file(whole_run / last)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert stats_of(folder) == stats_of(whole_run)
    for name in ("contact_sheet.png", "score_magnitude.png", "previews/step_000060.png"):
        assert (folder / name).read_bytes() == (whole_run / name).read_bytes(), name


def test_seeds_differ_and_repeat(command, tmp_path):
    roots = [tmp_path / name for name in ("a", "b", "c")]
    for root, seed in zip(roots, ("0", "0", "1")):
        assert command("--run_root", str(root), "--seed", seed, "--n_steps", "12")[0] == 0
    rows = [stats_of(next(root.glob("0*"))) for root in roots]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_a_direction_that_is_not_finite_stops_the_run(command, monkeypatch, capsys):
    original = StableDiffusion.denoise

    def overflow(self, noised, sigma, text, guidance):
        overflow.calls += 1
        return original(self, noised, sigma, text, guidance) * (float("inf") if overflow.calls > 13 else 1)

    overflow.calls = 0
    monkeypatch.setattr(StableDiffusion, "denoise", overflow)
    code, (folder,) = command()
    assert code == 1
    message = capsys.readouterr().err
    assert "At step 13 (sigma" in message
    assert "azimuth" in message
    kept = sorted((folder / "checkpoints").glob("*.safetensors"))
    assert kept
    assert int(kept[-1].stem[5:]) <= 13
    assert all(torch.isfinite(t).all() for t in load_file(kept[-1]).values())


def test_dry_run_makes_nothing(command, bert_folder, capsys):
    code, folders = command("--dry_run", "--debias", "--masked_lm", str(bert_folder))
    assert code == 0
    assert folders == []
    out = capsys.readouterr().out
    assert "clip_start = 2.0" in out
    assert "front view" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", " "], "--prompt must have a word"),
        (["--prompt", "a cat " * 30], "it would lose"),
        (["--n_steps", "0"], "--n_steps must be at least 1"),
        (["--preset", "dsds", "--clip.start", "9"], "It would fall from 9 to 8"),
        (["--guidance", "nan"], "--guidance must be finite"),
        (["--guidance", "-3"], "--guidance must be finite and not negative"),
        (["--denoised_range", "0", "1", "2"], "--denoised_range must be least values, and as many larger"),
        (
            ["--denoised_range", "0", "1", "2", "1"],
            "--denoised_range must be least values, and as many larger",
        ),
        (["--textureless", "0"], "--textureless belongs to a scene that is lit"),
        (["--shaken", "0"], "--shaken belongs to a scene that is lit"),
        (["--preset", "magic3d", "--textureless", "0.8"], "--textureless must be a share in [0, 0.75]"),
        (["--preset", "magic3d", "--least_ambient", "2"], "--least_ambient must be a share in [0, 1]"),
        (["--model", "nonsense"], "--model must be auto"),
        (["--model", str(ROOT)], "readable model_index.json"),
        (["--device", "tpu"], "--device must be auto, cpu, cuda"),
        (["--run_root", "/proc/nowhere"], "must be writable"),
        (["--score_thres", "x"], "--score_thres takes a number"),
        (["--keep", "cat"], "Nothing is removed here. Add --prompt_debias, or leave --keep out"),
        (["--masked_lm", "mine"], "--masked_lm belongs to prompt debiasing's removal of words"),
        (["--preset", "score-only", "--pmi_normalized", "probabilities"], "or leave --pmi_normalized out"),
        (
            ["--debias", "--keep", "Cat", "big eyes"],
            "No prompt has 'big eyes' as a word. Take some of a, cat, smiling.",
        ),
    ],
)
def test_refusals(command, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(stable_diffusion, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(prepare, "Bert", lambda *_: pytest.fail("a language model was loaded"))
    code, folders = command(*arguments)
    assert code == 2
    assert message in capsys.readouterr().err
    assert folders == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "color_mean",
            "color_mean must have a number for each of the 4 channels. It has 2. Give 4 numbers, or leave it "
            "out.",
        ),
        (
            "denoised_range",
            "denoised_range must have the least and then the largest value of each of the 4 channels. It has "
            "2 numbers. Give 8, or leave it out.",
        ),
    ],
)
def test_numbers_of_other_channels_are_refused_by_their_own_name(command, capsys, option, message):
    code, folders = command(f"--{option}", "1", "2")
    assert (code, folders) == (2, [])
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "must have" in line]
    assert said == f"run_sjc.py: {message}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_without_cuda_is_refused(command, capsys):
    code, _ = command("--device", "cuda")
    assert code == 2
    assert "PyTorch" in capsys.readouterr().err


def test_resume_with_other_options_is_refused(command, copied_run, capsys):
    code, _ = command("--resume", str(copied_run), "--seed", "5")
    assert code == 2
    assert "seed: 0 in the folder, 5 now" in capsys.readouterr().err


def test_a_truncated_checkpoint_is_refused(command, copied_run, capsys, monkeypatch):
    (copied_run / FINISHED).unlink()
    newest = max((copied_run / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-10])
    monkeypatch.setattr(stable_diffusion, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    code, _ = command()
    assert code == 2
    assert "it was truncated or changed" in capsys.readouterr().err


def test_a_prompt_outside_a_models_words_is_refused(command, make_pipeline, capsys):
    folder = make_pipeline("epsilon")
    (folder / "profile.json").write_text(json.dumps({"known_words": ["a", "cat"]}))
    code, _ = command(model=folder, prompt="a purple unicorn")
    assert code == 2
    message = capsys.readouterr().err
    assert "It does not know purple, unicorn" in message
    assert "--model sd15" in message


def test_a_dead_model_name_is_mapped_with_a_word_about_it():
    from sjc_debiased.models.choose import SD15, choose_model

    choice = choose_model("runwayml/stable-diffusion-v1-5", "cuda")
    assert choice.location == SD15
    assert "gone from the hub" in choice.why


def test_auto_is_stable_diffusion_with_cuda_and_the_menagerie_without():
    from sjc_debiased.models.choose import SD15, choose_model

    assert choose_model("auto", "cuda").location == SD15
    assert choose_model("auto", "cpu").name == "menagerie"


def test_no_weights_in_reach_is_an_error_with_two_ways_out(command, capsys):
    code, folders = command("--local_files_only", model="stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert code == 2
    assert folders == []
    message = capsys.readouterr().err
    assert "--model FOLDER" in message
    assert "--model menagerie" in message


def test_help_is_light():
    code = (
        "import sys, run_sjc; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mistyped_flag_suggests_the_right_one(capsys):
    with pytest.raises(SystemExit) as stop:
        run_sjc.main(["--prompt", "a cat", "--debais"])
    assert stop.value.code == 2
    assert "--debias" in "".join(capsys.readouterr())


def test_a_turntable_that_is_not_whole_is_refused(whole_run, tmp_path):
    from sjc_debiased.making.pictures import check_turntable

    check_turntable(whole_run / "turntable.mp4", 72)
    data = (whole_run / "turntable.mp4").read_bytes()
    for kept in (0, 100, len(data) // 2):
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(data[:kept])
        with pytest.raises(OSError, match="the turntable could not be written"):
            check_turntable(cut, 72)


def test_a_shorter_turntable_is_the_same_turn_and_makes_the_same_mesh(command, whole_run):
    import imageio.v3 as iio

    code, (folder,) = command("--turntable", "24")
    assert code == 0
    short, usual = folder / "turntable.mp4", whole_run / "turntable.mp4"
    assert {iio.immeta(video, plugin="FFMPEG")["duration"] for video in (short, usual)} == {3}
    every_third = iio.imread(usual, plugin="FFMPEG")[::3].astype(int)
    assert abs(iio.imread(short, plugin="FFMPEG") - every_third).mean() < 3
    for name in ("contact_sheet.png", "mesh.glb"):
        assert (folder / name).read_bytes() == (whole_run / name).read_bytes()


def test_a_run_folder_is_no_run_root(command, copied_run, capsys):
    before = sorted(copied_run.rglob("*"))
    code, _ = command("--run_root", str(copied_run), prompt="a dog")
    assert code == 2
    assert "is a run folder itself" in capsys.readouterr().err
    assert sorted(copied_run.rglob("*")) == before
