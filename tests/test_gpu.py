"""On CUDA: the loop equals that on the CPU to rounding, waits for nothing, and the fused kernel is right."""

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion, load_pipeline
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.optimize import Scene, Settings, draw_noise, make_optimizer, optimize_step
from voxnerf.cameras import orbit_camera, sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.mark.parametrize("folder", ["eps_folder", "v_folder"])
def test_twenty_steps_on_both_devices(folder, request):
    folder = str(request.getfixturevalue(folder))
    settings = Settings(n_steps=20, guidance=2.0, emptiness_weight=1.0, clip=ClipSchedule(2.0, 8.0))
    grids = []
    for device in ("cpu", "cuda"):
        denoiser = StableDiffusion(load_pipeline(folder), torch.device(device), torch.float32)
        grid = VoxelGrid(GridConfig(resolution=12), torch.Generator().manual_seed(0)).to(device)
        cameras = sample_sjc_cameras(20, 8, np.random.RandomState(0))
        text = [denoiser.embed(["front view of a smiling cat"])] * 20
        scene = Scene(grid, make_optimizer(grid, settings), cameras, text, settings, seed=0)
        for _ in range(20):
            optimize_step([scene], [draw_noise(scene, denoiser)], denoiser.denoise)
        grids.append(grid.cpu())
    torch.testing.assert_close(grids[0].color, grids[1].color, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(grids[0].density, grids[1].density, atol=1e-3, rtol=1e-3)


def test_a_step_never_waits_for_the_device(eps_folder):
    denoiser = StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cuda"), torch.float16)
    settings = Settings(n_steps=20, guidance=2.0, emptiness_weight=1.0, clip=ClipSchedule(2.0, 8.0))
    grid = VoxelGrid(GridConfig(resolution=12), torch.Generator().manual_seed(0)).to("cuda")
    cameras = sample_sjc_cameras(20, 8, np.random.RandomState(0))
    text = [denoiser.embed(["front view of a smiling cat"])] * 20
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, settings, seed=0)

    def step():
        optimize_step([scene], [draw_noise(scene, denoiser)], denoiser.denoise)

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
        out = render(grid, camera, kernel=kernel)
        (out.latent.square().sum() + 1e4 * out.emptiness).backward()
        seen.append([out.latent, out.depth, *(p.grad for p in grid.parameters())])
    for ours, theirs in zip(*seen):
        error = (ours - theirs).abs() / theirs.abs().max()
        assert (error > 1e-4).float().mean() < 1e-3  # a sample on the color threshold may have it or not
        assert error.max() < 1e-2
