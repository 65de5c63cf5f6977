"""The loop on CUDA equals the loop on the CPU, to rounding."""

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion, load_pipeline
from sjc_debiased.clipping import ClipSchedule
from sjc_debiased.optimize import Scene, Settings, draw_noise, make_optimizer, optimize_step
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid

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
