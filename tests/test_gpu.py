"""On CUDA: the loop equals that on the CPU to rounding, waits for nothing, and the fused kernel is right."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize_step
from sjc_debiased.schedules import ClipSchedule
from tests.kernels import on
from tests.small_models import load_pipeline
from tests.test_golden import compare_with_published
from tests.test_render import LOSSES, compare_tiny_gradients
from voxnerf.cameras import orbit_camera, sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render
from voxnerf.trial import usable_kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.mark.parametrize("folder", ["eps_folder", "v_folder"])
def test_twenty_steps_on_both_devices(folder, request):
    folder = str(request.getfixturevalue(folder))
    settings = Settings(n_steps=20, emptiness_weight=1.0, clip=ClipSchedule(2.0, 8.0))
    grids = []
    for device in ("cpu", "cuda"):
        denoiser = StableDiffusion(load_pipeline(folder), torch.device(device), torch.float32)
        grid = VoxelGrid(GridConfig(resolution=12), torch.Generator().manual_seed(0)).to(device)
        cameras = sample_sjc_cameras(20, 8, np.random.RandomState(0))
        text = [denoiser.condition(["front view of a smiling cat"])] * 20
        scene = Scene(grid, make_optimizer(grid, settings), cameras, text, PAAS(scale=2.0), settings, seed=0)
        for _ in range(20):
            optimize_step([scene], denoiser)
        grids.append(grid.cpu())
    torch.testing.assert_close(grids[0].color, grids[1].color, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(grids[0].density, grids[1].density, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("depth_loss", ["published", "corrected"])
def test_a_step_never_waits_for_the_device(eps_folder, depth_loss):
    denoiser = StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cuda"), torch.float16)
    settings = Settings(
        n_steps=20,
        emptiness_weight=1.0,
        clip=ClipSchedule(2.0, 8.0),
        depth_weight=1.0,
        depth_loss=depth_loss,
    )
    grid = VoxelGrid(GridConfig(resolution=12), torch.Generator().manual_seed(0)).to("cuda")
    grid.kernel, _ = usable_kernel(grid, "triton")
    cameras = sample_sjc_cameras(20, 8, np.random.RandomState(0))
    text = [denoiser.condition(["front view of a smiling cat"])] * 20
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, PAAS(scale=2.0), settings, seed=0)

    def step():
        optimize_step([scene], denoiser)

    for _ in range(3):  # kernels are compiled, constants are cached
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("thickness", [0.0, 8.0])
def test_the_fused_kernel_at_full_size(thickness):
    camera, seen = orbit_camera(40, 20, 64, 64), []
    for kernel in ("torch", "triton"):
        grid = VoxelGrid(GridConfig(), torch.Generator().manual_seed(0))
        with torch.no_grad():
            grid.density.copy_(
                thickness * torch.randn(grid.density.shape, generator=torch.Generator().manual_seed(1))
            )
        grid.to("cuda")
        out = render(on(kernel, grid), camera)
        (out.latent.square().sum() + 1e4 * out.emptiness).backward()
        seen.append([out.latent, out.depth, *(p.grad for p in grid.parameters())])
    for ours, theirs in zip(*seen):
        error = (ours - theirs).abs() / theirs.abs().max().clamp(min=1e-12)
        assert (error > 1e-4).float().mean() < 1e-3  # a sample on the color threshold may have it or not
        assert error.max() < 1e-2


@pytest.mark.parametrize("name", ["fog", "blob"])
@pytest.mark.parametrize("i", range(3))
@pytest.mark.parametrize("kernel", ["torch", "triton"])
def test_the_published_numbers(golden, name, i, kernel):
    compare_with_published(golden(f"render_{name}"), i, kernel, "cuda")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("resolution", [12, 40])
def test_gradients_behind_something_opaque(loss, resolution):
    compare_tiny_gradients("triton", loss, resolution, "cuda")


@pytest.mark.parametrize("channels", [3, 4])
def test_auto_is_triton_on_a_grid_of_full_size_which_stays_as_it_is(channels):
    grid = VoxelGrid(GridConfig(channels=channels), torch.Generator().manual_seed(0))
    before = [p.detach().clone() for p in grid.parameters()]
    grid.to("cuda")
    assert usable_kernel(grid) == ("triton", "triton, the fused GPU kernel")
    assert grid.kernel == "auto"
    assert all(p.grad is None and torch.equal(p.cpu(), old) for p, old in zip(grid.parameters(), before))


def test_the_cpu_s_kernel_is_refused():
    with pytest.raises(ValueError, match="runs on the CPU. Received a grid on cuda:0"):
        usable_kernel(VoxelGrid(GridConfig(resolution=12)).to("cuda"), "numba")


def test_without_a_c_compiler_auto_says_so_and_takes_torch(tmp_path):
    """In a fresh process, where Triton has compiled nothing yet."""
    program = """if True:
        from voxnerf.grid import GridConfig, VoxelGrid
        from voxnerf.trial import usable_kernel

        print(*usable_kernel(VoxelGrid(GridConfig(resolution=12)).to("cuda")), sep="|")
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CC": "false", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    kernel, reason = done.stdout.strip().split("|")
    assert kernel == "torch"
    assert "because triton cannot" in reason and "C compiler and Python's headers" in reason
