"""Parity with the published SJC code: values and gradients to 1e-4, loops to 1e-3."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sjc_debiased.denoiser import Conditioning
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize
from sjc_debiased.schedules import ClipSchedule
from tests.kernels import KERNELS, on
from voxnerf.cameras import Camera, sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render

PARAMETERS = ("density", "color", "background", "log_density_scale")


def relative(ours, reference):
    reference = np.asarray(reference)
    ours = ours.detach().cpu().numpy() if torch.is_tensor(ours) else np.asarray(ours)
    return np.abs(ours - reference).max() / np.abs(reference).max()


def grid_of(resolution, arrays):
    grid = VoxelGrid(GridConfig(resolution=resolution))
    with torch.no_grad():
        for name, values in arrays.items():
            getattr(grid, name).copy_(torch.from_numpy(values))
    return grid


def compare_with_published(g, i, kernel, device="cpu"):
    grid = grid_of(g["density"].shape[-1], {p: g[p] for p in PARAMETERS}).to(device)
    out = render(on(kernel, grid), Camera(g["c2w"][i], g["intrinsics"][i], 8, 8, 0.0, 0.0))
    emptiness = 1e4 * out.emptiness
    ((out.latent * torch.from_numpy(g[f"cotangent_{i}"]).to(device)).sum() + emptiness).backward()
    assert relative(out.latent, g[f"latent_{i}"]) < 1e-4
    assert relative(out.depth, g[f"depth_{i}"]) < 1e-4
    assert relative(out.opacity, g[f"weight_sum_{i}"]) < 1e-4
    assert relative(emptiness, g[f"emptiness_{i}"]) < 1e-4
    for parameter in PARAMETERS:
        assert relative(getattr(grid, parameter).grad, g[f"grad_{parameter}_{i}"]) < 1e-4, parameter


@pytest.mark.parametrize("name", ["fog", "blob"])
@pytest.mark.parametrize("i", range(3))
@KERNELS
def test_render_and_its_gradients(golden, name, i, kernel):
    if kernel == "triton" and (i or name == "fog"):
        pytest.skip("one view is enough for an interpreter")
    compare_with_published(golden(f"render_{name}"), i, kernel)


@pytest.mark.parametrize("name", ["none", "static", "dynamic", "no_var_red"])
def test_loop(golden, name):
    g = golden(f"loop_{name}")
    grid = grid_of(10, {p: g[f"{p}0"] for p in PARAMETERS[:3]})
    end = float(g["clip_end"])
    clip = {"static": ClipSchedule(end, end), "dynamic": ClipSchedule(end / 4, end)}
    settings = Settings(n_steps=12, clip=clip.get(name, ClipSchedule(None, None)))
    cameras = [Camera(pose, k, 8, 8, 0.0, 0.0) for pose, k in zip(g["c2w"], g["intrinsics"])]
    text = [Conditioning((torch.zeros(1, 1, 1),))] * 12
    mu, variance = torch.from_numpy(g["mu"]), float(g["data_variance"])

    class Drawn(PAAS):
        """What the published code drew."""

        def ask(self, picture, cond, step, rng, denoiser):
            noise = SimpleNamespace(standard_normal=lambda shape, dtype: g["noise"][step : step + 1])
            return super().ask(picture, cond, step, noise, denoiser)

    class Gaussian:
        def draw_sigma(self, rng):
            return torch.tensor(g["sigma"][scene.done], dtype=torch.float32)

        def denoise(self, noised, sigma, cond, scale):
            s2 = sigma.view(-1, 1, 1, 1) ** 2
            return (mu * s2 + noised * variance) / (variance + s2)

    guidance = Drawn(var_red=name != "no_var_red")
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, guidance, settings, seed=0)
    for i, step in enumerate(optimize(scene, Gaussian())):
        latent = step.rendering.latent
        emptiness = step.rendering.emptiness * settings.emptiness_weight_at(i)
        ours = np.array([latent.mean(), latent.std(), emptiness])
        np.testing.assert_allclose(ours, g["latent_mean_std_emptiness"][i], rtol=1e-3)
    assert scene.done == 12
    for parameter in PARAMETERS:
        assert relative(getattr(grid, parameter), g[parameter]) < 1e-3, parameter


def test_training_cameras_repeat_the_published_stream(golden):
    cameras = sample_sjc_cameras(2000, 64, np.random.RandomState(5))
    np.testing.assert_allclose([c.c2w[:3, 3] for c in cameras], golden("cameras")["eye"], atol=1e-9)


def test_view_prefixes_of_the_training_cameras(golden):
    from prompts.views import SJC_VIEWS

    cameras = sample_sjc_cameras(2000, 64, np.random.RandomState(5))
    prefixes = [SJC_VIEWS.prefixes[SJC_VIEWS.view(c.azimuth_deg, c.elevation_deg)] for c in cameras]
    assert prefixes == golden("cameras")["prefix"].tolist()
