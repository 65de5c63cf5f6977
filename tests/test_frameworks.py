"""DreamFusion by its presets: what they resolve to, and a run of each on a tiny model."""

import json

import numpy as np
import pytest
import torch

from sjc_debiased.config import resolve
from sjc_debiased.evaluation.orbit import load_scene, pictures
from sjc_debiased.frameworks import FRAMEWORKS
from sjc_debiased.options import OptionError
from sjc_debiased.profiles import STABLE_DIFFUSION, Profile
from sjc_debiased.run_files import RunReader
from sjc_debiased.settings import Settings, Viewing
from tests.options import options
from tests.test_config import of
from voxnerf.cameras import orbit
from voxnerf.shaded_grid import ShadedGrid

NAMES = sorted(FRAMEWORKS)


def run_of(profile=STABLE_DIFFUSION, **given):
    (run,) = resolve(options(prompt=("a cat",), **given), profile, "sd", "0")
    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_dreamfusion(name):
    run = run_of(preset=name)
    highest = 45.0 if name.endswith("sd") else 90.0
    assert run.viewing == Viewing("dreamfusion", highest, "dreamfusion")
    s = run.settings
    assert (s.orientation_start, s.orientation_end, s.sparsity_weight) == (10.0, 1000.0, 1.0)
    assert (s.emptiness_weight, s.depth_weight, s.background_lr) == (0.0, 0.0, 1e-3)
    assert (run.field.start, run.field.color_scale) == ("dreamfusion", 0.0)
    assert run.preset == name
    assert (s.clip.start, run.prompting.views, run.prompting.masked_lm) == (None, "sjc", None)


@pytest.mark.parametrize("name", NAMES)
def test_debias_adds_the_bound_of_the_model_and_the_prompts(name):
    run = run_of(preset=name, debias=True)
    assert run == run_of(preset=f"{name}-dsds")
    assert (run.settings.clip.start, run.settings.clip.end) == (2.0, 8.0)
    assert (run.prompting.views, run.prompting.masked_lm) == ("dsds", STABLE_DIFFUSION.masked_lm)
    pixels = run_of(Profile(clip_start=0.5, clip_end=2.0), preset=name, score_debias=True)
    assert (pixels.settings.clip.start, pixels.settings.clip.end) == (0.5, 2.0)
    assert (pixels.prompting.views, pixels.preset) == ("sjc", "custom"), "the paper's own, App. A.4"
    with pytest.raises(OptionError, match="--debias means --preset dsds"):
        run_of(preset="static-low", debias=True)


def test_what_dreamfusion_does_not_set_is_the_models_and_options_win():
    profile = Profile(resolution=48, half_size=0.6, n_steps=1500, guidance=30.0, lr=0.15, start="blob")
    run = run_of(profile, preset="dreamfusion-sd")
    assert (run.field.resolution, run.field.half_size, run.settings.lr) == (48, 0.6, 0.15)
    assert (run.n_steps, run.guidance.scale, run.field.start) == (1500, 30.0, "dreamfusion")
    assert run_of(profile, preset="dreamfusion-sd", emptiness_weight=7.0).settings.emptiness_weight == 7.0
    assert run_of(profile).viewing == Viewing()


def test_sjc_has_none_of_it():
    run = of()
    assert (run.cameras, run.light, run.sparsity_weight, run.orientation_end) == ("sjc", None, 0.0, 0.0)
    assert Settings().orientation_weight_at(9) == 0


@pytest.mark.parametrize("light", ["dreamfusion", None])
def test_a_run_is_read_back_as_what_it_was(command, light):
    """Through the tiny model's encoder to its folder: RGB if it is lit, with its pictures and its mesh."""
    code, (folder,) = command(*(("--preset", "dreamfusion-sd", "--score_debias") if light else ()))
    assert code == 0
    resolved = json.loads((folder / "options.json").read_text())["resolved"]
    assert resolved["light"] == light
    _, grid, denoiser = load_scene(folder)
    assert (type(grid) is ShadedGrid) == bool(light)
    images, opacities = pictures(grid, denoiser, orbit(2, denoiser.size, 15.0))
    assert images.shape[1] == 3
    assert opacities.shape[1:] == ((32, 32) if light else (8, 8))
    if light:
        assert grid.config.density_shift == 0
        assert grid.density.std() > 0
        seen = grid.render_fine(orbit(1, 8, 15.0)[0]).latent
        assert seen.min() >= -1
    tensors = RunReader(folder).tensors()
    assert tensors["grid.color"].shape[1] == (3 if light else 4)


def test_a_lit_run_resumes_bit_for_bit(command, tmp_path):
    """60 steps at once, and 30 and then 30: the same scene."""
    preset = ("--preset", "dreamfusion-sd", "--schedule_steps", "60")
    _, (whole,) = command(*preset)
    other = tmp_path / "other"
    command(*preset, "--run_root", str(other), "--n_steps", "30")
    command(*preset, "--run_root", str(other))
    (parts,) = (p for p in other.iterdir() if p.is_dir())
    ours, theirs = (RunReader(folder).tensors() for folder in (whole, parts))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert np.isfinite(ours["grid.density"].numpy()).all()
