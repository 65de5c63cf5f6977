"""DreamFusion and Magic3D by their presets: what they resolve to, and a run of each on a tiny model."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from sjc_debiased.denoiser import guided
from sjc_debiased.evaluation.orbit import pictures
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.making.fields import make_field
from sjc_debiased.making.made import load_scene
from sjc_debiased.making.viewing import draw_views
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import resolve
from sjc_debiased.options.forms import clip_bounds, clip_rule
from sjc_debiased.options.presets import FrameworkName
from sjc_debiased.options.profiles import DEEPFLOYD_IF, STABLE_DIFFUSION, Profile, load_profile
from sjc_debiased.settings import Settings, Viewing
from tests.options import options
from tests.test_config import of
from voxnerf.cameras import orbit
from voxnerf.settings import GridConfig
from voxnerf.shaded_grid import ShadedGrid

NAMES = sorted(get_args(FrameworkName))


def run_of(profile=STABLE_DIFFUSION, **given):
    (run,) = resolve(options(prompt=("a cat",), **given), profile, "sd", "0")
    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_framework(name):
    run = run_of(preset=name)
    highest = 90.0 if name.endswith("if") else 45.0
    light, weighting = ("magic3d", "uniform") if name == "magic3d" else ("dreamfusion", "sds")
    assert run.viewing == Viewing("dreamfusion", highest, light)
    told = run.guidance
    assert (told.guidance_form, told.weighting, told.timesteps) == ("sds", weighting, ("20", "981"))
    assert (told.scale, told.vsd_model) == (101.0, None)
    s = run.settings
    assert (s.orientation_start, s.orientation_end, s.sparsity_weight) == (10.0, 1000.0, 1.0)
    assert (s.emptiness_weight, s.depth_weight, s.background_lr) == (0.0, 0.0, 1e-3)
    assert (run.field.start, run.field.color_scale) == ("dreamfusion", 0.0)
    assert run.preset == name
    assert (s.clip.start, run.prompting.views, run.prompting.masked_lm) == (None, "sjc", None)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_finishes_one_start_gets_its_own(name):
    own = Profile(start="balls", timesteps=("30", "400"), color_mean=(0.1, 0.2, 0.3, 0.4), background_lr=0.5)
    run = run_of(own, preset=name)
    assert (run.field.start, run.guidance.timesteps) == ("balls", ("30", "400"))
    assert run.field.color_mean == (0.1, 0.2, 0.3, 0.4)
    assert run.settings.background_lr == 1e-3, "the framework's, of which the model's training knew nothing"
    asked = run_of(own, preset=name, start="blob", timesteps=("20", "981"))
    assert (asked.field.start, asked.guidance.timesteps) == ("blob", ("20", "981"))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_knows_no_hard_light_gets_a_soft_one(name):
    soft = Profile(textureless=0.0, least_ambient=0.7)
    viewing = run_of(soft, preset=name).viewing
    assert (viewing.textureless, viewing.least_ambient) == (0.0, 0.7)
    asked = run_of(soft, preset=name, textureless=0.3, least_ambient=0.2)
    lit = [c.light for c in draw_views(asked.viewing, 200, 200, 8, 0) if c.light]
    assert min(light.ambient for light in lit) == pytest.approx(0.2)
    assert 0 < np.mean([light.textureless for light in lit]) < 0.6
    assert run_of(soft, preset="sjc").viewing == Viewing(), (
        "a scene without a light is the same run as before"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_knows_whole_creatures_alone_gets_steady_cameras(name):
    steady = Profile(shaken=0.0)
    assert run_of(steady, preset=name).viewing.shaken == 0
    assert run_of(preset=name).viewing.shaken == 1
    assert run_of(steady, preset="sjc").viewing == Viewing()
    for asked, shaken in ((run_of(steady, preset=name), 0), (run_of(steady, preset=name, shaken=0.5), 0.5)):
        cameras = draw_views(asked.viewing, 200, 200, 8, 0)
        radii = np.array([np.linalg.norm(camera.c2w[:3, 3]) for camera in cameras])
        aside = [np.linalg.norm(np.cross(c.c2w[:3, 3], c.c2w[:3, 2])) for c in cameras]  # of the origin
        assert (radii.min() >= 1.5 - 1e-6) == (shaken == 0)
        assert (max(aside) < 1e-6) == (shaken == 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_says_of_lit_scenes_holds_in_place_of_the_frameworks(name):
    own = Profile(lit={"highest_deg": 30.0, "background_lr": 0.03})
    run = run_of(own, preset=name)
    assert (run.viewing.highest_deg, run.settings.background_lr) == (30.0, 0.03)
    assert run_of(own, preset=name, background_lr=0.5).settings.background_lr == 0.5
    assert run_of(own, preset="sjc") == run_of(Profile(), preset="sjc")


@pytest.mark.parametrize("name", NAMES)
def test_debias_adds_the_bound_of_the_model_and_the_prompts(name):
    run = run_of(preset=name, debias=True)
    assert run == run_of(preset=f"{name}-dsds")
    assert (run.settings.clip.start, run.settings.clip.end) == (2.0, 8.0)
    assert (run.prompting.views, run.prompting.masked_lm) == ("dsds", STABLE_DIFFUSION.masked_lm)
    pixels = run_of(DEEPFLOYD_IF, preset=name, score_debias=True)
    assert (pixels.settings.clip.start, pixels.settings.clip.end) == (0.5, 2.0)
    assert (pixels.prompting.views, pixels.preset) == ("sjc", f"{name}-score-only"), "the paper's, App. A.4"
    with pytest.raises(OptionError, match="--debias means --preset dsds"):
        run_of(preset="static-low", debias=True)


def test_what_dreamfusion_does_not_set_is_the_models_and_options_win():
    profile = Profile(resolution=48, half_size=0.6, n_steps=1500, guidance=30.0, lr=0.15, start="blob")
    run = run_of(profile, preset="dreamfusion-sd")
    assert (run.field.resolution, run.field.half_size, run.settings.lr) == (48, 0.6, 0.15)
    assert (run.n_steps, run.guidance.scale, run.field.start) == (1500, 30.0, "blob")
    assert run_of(profile, preset="dreamfusion-sd", emptiness_weight=7.0).settings.emptiness_weight == 7.0
    assert run_of(profile).viewing == Viewing()
    asked = run_of(preset="magic3d", weighting="fantasia3d", timesteps=("30", "40")).guidance
    assert (asked.guidance_form, asked.weighting, asked.timesteps) == ("sds", "fantasia3d", ("30", "40"))


def test_another_form_of_guidance_takes_the_place_of_a_frameworks():
    paas = run_of(preset="magic3d", guidance_form="paas").guidance
    assert (paas.guidance_form, paas.weighting, paas.timesteps) == ("paas", None, ("20", "981"))
    vsd = run_of(preset="magic3d", guidance_form="vsd", vsd_model="copy").guidance
    assert (vsd.weighting, vsd.vsd_model, vsd.scale) == ("uniform", "copy", 7.5)
    with pytest.raises(OptionError, match="It came with paas"):
        run_of(preset="magic3d", guidance_form="paas", weighting="sds")


def test_dreamfusions_guidance_counts_from_the_conditional_side():
    """(1 + w) eps_c - w eps_u with eps_u = 1, eps_c = 2 and w = 100 is 102; SJC's form gets there at 101."""
    scale = run_of(preset="dreamfusion-sd").guidance.scale
    one = torch.ones(1, 1, 1, 1)
    assert guided(one, 2 * one, scale).item() == 102 == (1 + 100) * 2 - 100 * 1
    assert run_of(DEEPFLOYD_IF, preset="dreamfusion-if").guidance.scale == 20 + 1
    assert run_of(guidance_form="sds").guidance.scale == 101
    assert run_of().guidance.scale == run_of(preset="magic3d", guidance_form="paas").guidance.scale == 100
    assert run_of(preset="magic3d", guidance=7.0).guidance.scale == 7


def test_a_model_with_guidance_of_its_own_keeps_it(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps({"guidance": 30.0, "clip_end": 2.0, "clip_start": 0.5}))
    profile = load_profile(str(tmp_path), STABLE_DIFFUSION)
    assert (profile.guidance, profile.guidance_sds, profile.clip_published) == (30, 0, False)
    assert run_of(profile, preset="dreamfusion-sd").guidance.scale == 30
    (tmp_path / "profile.json").write_text(json.dumps({"resolution": 48}))
    profile = load_profile(str(tmp_path), STABLE_DIFFUSION)
    assert (profile.guidance, profile.guidance_sds, profile.clip_published) == (100, 101, True)


OWN = Profile(guidance=30.0, clip_start=0.5, clip_end=2.0)


@pytest.mark.parametrize(
    ("profile", "form", "weighting", "bounds"),
    [
        (STABLE_DIFFUSION, "paas", None, (2, 8)),
        (STABLE_DIFFUSION, "sds", "sds", (2, 8)),
        (STABLE_DIFFUSION, "vsd", "sds", (2, 8)),
        (DEEPFLOYD_IF, "sds", "uniform", (0.5, 2)),
        (OWN, "paas", None, (0.5, 2)),
        (OWN, "sds", "sds", (0.316, 1.26)),
        (OWN, "sds", "uniform", (0.5, 2)),
        (OWN, "vsd", "sds", (0.316, 1.26)),
        (OWN, "vsd", "uniform", (0.5, 2)),
        (OWN, "vsd", "fantasia3d", (0.12, 0.482)),
        (replace(OWN, noise_table="cosine"), "sds", "sds", (0.253, 1.01)),
    ],
)
def test_bounds_in_the_units_of_what_is_clipped(profile, form, weighting, bounds):
    """The paper's hold for all; a model's own are of PAAS's direction: times the mean of w(t)."""
    assert clip_bounds(profile, form, weighting) == bounds


@pytest.mark.parametrize(
    ("profile", "given", "rule"),
    [
        (OWN, {}, "not clipped"),
        (OWN, {"score_debias": True}, "the model's, on the direction"),
        (OWN, {"preset": "static-low"}, "the model's, on the direction"),
        (
            STABLE_DIFFUSION,
            {"preset": "magic3d-dsds"},
            "the model's, on w(t) times the direction: the paper's for every framework (App. C.2)",
        ),
        (
            OWN,
            {"preset": "score-only", "guidance_form": "vsd", "vsd_model": "copy"},
            "the model's, which are of PAAS's direction, times 0.632, the mean of w(t); on w(t) times "
            "the direction",
        ),
        (
            OWN,
            {"preset": "score-only", "guidance_form": "sds", "clip_start": 0.25},
            "as given, on w(t) times the direction",
        ),
    ],
)
def test_a_run_says_where_its_bounds_come_from(profile, given, rule):
    run = run_of(profile, **given)
    assert clip_rule(profile, run.guidance, run.settings.clip) == rule


def test_sjc_has_none_of_it():
    run = of()
    assert (run.guidance_form, run.weighting, run.timesteps) == ("paas", None, None)
    assert (run.cameras, run.light, run.sparsity_weight, run.orientation_end) == ("sjc", None, 0.0, 0.0)
    assert Settings().orientation_weight_at(9) == 0


def test_a_lit_run_is_read_back_as_what_it_was(command):
    """Through the tiny model's encoder to its folder: a scene of RGB, with its pictures and its mesh."""
    code, (folder,) = command("--preset", "dreamfusion-sd", "--score_debias", "--n_steps", "20")
    assert code == 0
    resolved = json.loads((folder / "options.json").read_text())["resolved"]
    assert (resolved["light"], resolved["cameras"]) == ("dreamfusion", "dreamfusion")
    rule = json.loads((folder / "options.json").read_text())["clip_rule"]
    assert rule == "the model's, on w(t) times the direction: the paper's for every framework (App. C.2)"
    _, grid, denoiser = load_scene(folder)
    assert isinstance(grid, ShadedGrid)
    assert grid.config.density_shift == 0
    assert torch.equal(grid.color, RunReader(folder).tensors()["grid.color"])
    images, opacities = pictures(grid, denoiser, orbit(2, denoiser.size, 15.0))
    assert images.shape == (2, 3, 32, 32)
    assert opacities.shape == (2, 32, 32)
    with torch.no_grad():
        alone = grid.render(orbit(1, 32, 15.0)[0]).latent
    torch.testing.assert_close(images[:1], alone.clamp(-1, 1))


def test_first_colors_of_a_lit_scene_are_what_the_models_picture_shows():
    """A model whose picture is RGB with red and blue swapped, and half as bright."""
    model = SimpleNamespace(
        channels=3, size=8, device=torch.device("cpu"), decode=lambda picture: 0.5 * picture.flip(1)
    )
    config = GridConfig(4, color_mean=(0.8, 0.2, -0.6), background_mean=(0.0, 0.0, 1.0), color_scale=0.0)
    grid = make_field(config, Viewing(light="magic3d"), model)
    np.testing.assert_allclose(grid.color.sigmoid()[0, :, 0, 0, 0].detach(), [0.35, 0.55, 0.7], atol=1e-6)
    np.testing.assert_allclose(grid.background.sigmoid()[0, :, 0, 0].detach(), [0.75, 0.5, 0.5], atol=1e-6)
    with pytest.raises(ValueError, match="background_mean must have a number for each of the 3 .* It has 4"):
        make_field(replace(config, background_mean=(0.0,) * 4), Viewing(light="magic3d"), model)


def test_a_lit_run_resumes_bit_for_bit(command, tmp_path):
    """20 steps at once, and 10 and then 10: the same scene, lit in the second half."""
    preset, other = ("--preset", "dreamfusion-sd", "--schedule_steps", "20"), str(tmp_path / "other")
    _, (whole,) = command(*preset, "--n_steps", "20")
    command(*preset, "--run_root", other, "--n_steps", "10")
    command(*preset, "--run_root", other, "--n_steps", "20")
    (parts,) = (p for p in (tmp_path / "other").iterdir() if p.is_dir())
    ours, theirs = (RunReader(folder).tensors() for folder in (whole, parts))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert RunReader(parts).checkpoint.step == 20
