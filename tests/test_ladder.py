"""The ladder and the sheet of proposals: truths are fitted, found, spoiled and shown as they say."""

import json
import re
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import tyro

from sjc_debiased.denoiser import Conditioning, sigma_table
from sjc_debiased.menagerie import ladder
from sjc_debiased.menagerie.train_diffusion import new_scheduler, velocity_to
from sjc_debiased.menagerie.truth import blur, creature_of
from sjc_debiased.menagerie.unfinished import as_a_field_begins
from sjc_debiased.options.command import Basic, Options
from sjc_debiased.proposals import propose
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render
from voxnerf.snapshot import to_u8


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ("a smiling panda", {"kind": "panda", "color": "white", "face": "smiling"}),
        ("back view of a blue cat with big eyes", {"kind": "cat", "color": "blue", "face": "big eyes"}),
        ("a fox with a curly tail", {"kind": "fox", "color": "orange", "tail": "curly"}),
        ("a winking bear wearing a hat, side view", {"kind": "bear", "face": "winking", "prop": "hat"}),
    ],
)
def test_a_prompt_names_its_creature(prompt, fields):
    found = vars(creature_of(prompt))
    assert {name: found[name] for name in fields} == fields


def test_a_prompt_without_a_creature_is_refused(capsys, tmp_path):
    wanted = ladder.LadderOptions(Options(Basic(prompt=("an orange hat",))), out=tmp_path / "ladder")
    assert ladder.main(wanted) == 2
    assert "must name a creature of the world: cat, dog" in capsys.readouterr().err
    assert not (tmp_path / "ladder").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pack 2", "the ladder takes every option of a run but .* It was given --pack. Leave it out"),
        ("--n_steps 20 --mend_steps 21", "--mend_steps must be 0 to --n_steps, 20. It is 21"),
        ("--preset magic3d", "--preset magic3d is of RGB that is lit"),
        ("--lora nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_what_no_rung_can_do_is_refused_before_anything_is_loaded(
    words, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("sjc_debiased.making.prepare.load_denoiser", None)
    argv = ["--prompt", "a smiling cat", "--out", str(tmp_path / "ladder"), *words.split()]
    assert ladder.main(tyro.cli(ladder.LadderOptions, args=argv, use_underscores=True)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_truth_is_fitted_and_found(tmp_path):
    """Two rungs, one creature: its face is seen, in front, before the loop and after a few steps."""
    run = Options(Basic(prompt=("a smiling cat",), debias=True))
    o = ladder.LadderOptions(run, ("fit", "keep"), fit_steps=250, mend_steps=3, out=tmp_path / "ladder")
    found = list(ladder.climb(o))
    assert [f.rung for f in found] == ["fit", "keep"]
    for f in found:
        assert f.faces.success, f
        assert 0.08 < f.coverage < 0.35, f
    shown = iio.imread(tmp_path / "ladder" / "fit.png")
    assert shown.shape[0] * 4 == shown.shape[1]  # eight pictures, opacity below
    written = json.loads((tmp_path / "ladder" / "ladder.json").read_text())["found"]
    assert [row["faces"]["in_front"] for row in written] == [True, True]


def test_a_ladder_never_lands_in_another_ones_folder(tmp_path):
    first, second = ladder.new_folder(tmp_path / "ladder"), ladder.new_folder(tmp_path / "ladder")
    assert (first.name, second.name) == ("ladder", "ladder-2")


def test_blur_averages_cubes():
    grid = VoxelGrid(GridConfig(resolution=7))
    with torch.no_grad():
        grid.density[0, 0, 3, 3, 3] = 27.0
    blur(grid, 3)
    assert grid.density[0, 0, 2:5, 2:5, 2:5].allclose(torch.ones(3, 3, 3))
    assert grid.density.sum().item() == pytest.approx(27.0)


def test_an_unfinished_latent_is_blurred_or_faded_each_by_its_own_draw():
    latent = torch.zeros(64, 4, 32, 32)
    latent[..., 8:24, 8:24] = torch.randn((64, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    shown = as_a_field_begins(latent, torch.Generator().manual_seed(1))
    contrast = shown.flatten(1).std(dim=1) / latent.flatten(1).std(dim=1)
    assert contrast.max() < 1.001
    assert contrast.min() < 0.15 and contrast.max() > 0.8
    assert torch.equal(shown, as_a_field_begins(latent, torch.Generator().manual_seed(1)))


def test_the_velocity_leads_to_the_latent_from_whatever_is_shown():
    scheduler, g = new_scheduler(), torch.Generator().manual_seed(0)
    latent, shown, noise = torch.randn((3, 5, 4, 8, 8), generator=g)
    timesteps = torch.tensor([0, 100, 400, 700, 999])
    noised = scheduler.add_noise(shown, noise, timesteps)
    levels = scheduler.alphas_cumprod[timesteps]
    v = velocity_to(latent, noised, levels)
    alpha, sigma = levels.sqrt()[:, None, None, None], (1 - levels).sqrt()[:, None, None, None]
    torch.testing.assert_close(alpha * noised - sigma * v, latent, atol=1e-5, rtol=1e-5)
    plain = velocity_to(latent, scheduler.add_noise(latent, noise, timesteps), levels)
    torch.testing.assert_close(plain, scheduler.get_velocity(latent, noise, timesteps), atol=3e-5, rtol=1e-4)


def gaussian(mean, spread):
    """Return a 2D model whose pictures are N(mean, spread^2): D(x) = (spread^2 x + sigma^2 mean) / sum."""

    def denoise(noised, sigma, cond, scale):
        sigma = sigma[:, None, None, None]
        wanted = (spread**2 * noised + sigma**2 * mean) / (spread**2 + sigma**2)
        return wanted * scale[:, None, None, None]

    return SimpleNamespace(
        size=8,
        sigmas=sigma_table(new_scheduler().alphas_cumprod),
        denoise=denoise,
        decode=lambda latent: latent.clamp(-1, 1),
        condition=lambda prompts: Conditioning((torch.zeros(len(prompts), 1, 1),)),
    )


def test_proposals_are_what_the_model_makes_of_the_rendering():
    grid = VoxelGrid(GridConfig(resolution=8, channels=3, color_scale=0.2), torch.Generator().manual_seed(0))
    model = gaussian(mean=0.5, spread=1e-4)
    block = propose(grid, model, model.condition([""]), 30.0, timesteps=(100, 900), guidances=(1.0, 2.0))
    assert block.shape == (2 * 8, 3 * 8, 3)
    latent = render(grid, orbit_camera(30.0, 15.0, 8, 8)).latent.detach()
    np.testing.assert_array_equal(block[:8, :8], to_u8(latent)[0])
    assert np.abs(block[:8, 8:].astype(int) - 191).max() <= 1  # 0.5, as a byte
    assert (block[8:, 8:] == 255).all()  # the second row's guidance doubles it
