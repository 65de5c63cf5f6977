"""A step never reads from the device: no host value is made of a tensor, which would wait for a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adapt_sd import StableDiffusion
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.losses import center_depth_loss
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize_step
from sjc_debiased.schedules import ClipSchedule
from tests.kernels import needs_interpreter, on
from tests.small_models import load_pipeline
from voxnerf.cameras import orbit_camera, sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.lights import Light
from voxnerf.render import render
from voxnerf.shaded_grid import ShadedGrid

READING = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2"}


class NoReading(TorchDispatchMode):
    """Raise where an operation needs values on the host, or a size that depends on them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().removeprefix("aten::").partition(".")[0]
        masks = [t for t in args[1] if t is not None and t.dtype == torch.bool] if name == "index" else []
        if name in READING or masks:
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


def test_what_reads_is_found():
    grid = VoxelGrid(GridConfig(resolution=4))
    camera = orbit_camera(10, 10, 4, 4)
    with NoReading(), pytest.raises(AssertionError, match="waits for the device"):
        render(on("torch", grid), camera)
    with NoReading(), pytest.raises(AssertionError, match="waits for the device"):
        torch.ones(3)[torch.tensor([True, False, True])]


@pytest.mark.parametrize("form", ["published", "corrected"])
def test_the_depth_loss_reads_nothing(form):
    depth = torch.rand(16, 16, requires_grad=True)
    with NoReading():
        center_depth_loss(depth, form).backward()
    assert depth.grad is not None


@needs_interpreter
@pytest.mark.parametrize("form", ["published", "corrected"])
def test_a_step_reads_nothing(eps_folder, form):
    """All but the optimiser, whose count of steps lies on the host."""
    denoiser = StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cpu"), torch.float32)
    clip = ClipSchedule(2.0, 8.0)
    settings = Settings(n_steps=2, clip=clip, depth_weight=1.0, depth_loss=form)
    grid = on("triton", VoxelGrid(GridConfig(resolution=3), torch.Generator().manual_seed(0)))
    cameras = sample_sjc_cameras(2, 8, np.random.RandomState(0))
    text = [denoiser.condition(["front view of a smiling cat"])] * 2
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, PAAS(scale=2.0), settings, seed=0)
    scene.optimizer.step = lambda: None
    with NoReading():
        optimize_step([scene], denoiser)
    assert scene.done == 1
    assert all(p.grad is not None for p in grid.parameters())


@needs_interpreter
def test_a_lit_scene_reads_nothing():
    grid = ShadedGrid(GridConfig(resolution=3, channels=3), torch.Generator().manual_seed(0))
    camera = replace(orbit_camera(10, 10, 4, 4), light=Light(np.array([-1.0, 1.0, 0.5])))
    with NoReading():
        seen = on("triton", grid).render(camera)
        (seen.latent.sum() + seen.orientation).backward()
    assert all(p.grad is not None for p in grid.parameters())
