"""Stable Diffusion 1.5 at full size, with random weights: slow, and 16 GiB."""

import resource

import pytest
import torch

from benchmarks.random_sd15 import write_sd15

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sd15_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd15")
    write_sd15(folder)
    return folder


def test_three_steps_at_full_size(sd15_folder):
    import numpy as np

    from adapt_sd import StableDiffusion
    from sjc_debiased.guidance.paas import PAAS
    from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize
    from sjc_debiased.schedules import ClipSchedule
    from tests.small_models import load_pipeline
    from voxnerf.cameras import sample_sjc_cameras
    from voxnerf.grid import GridConfig, VoxelGrid

    denoiser = StableDiffusion(load_pipeline(str(sd15_folder)), torch.device("cpu"), torch.bfloat16)
    assert (denoiser.size, denoiser.channels) == (64, 4)
    settings = Settings(n_steps=3, clip=ClipSchedule(2.0, 8.0))
    grid = VoxelGrid(GridConfig(), torch.Generator().manual_seed(0))
    before = grid.color.detach().clone()
    cameras = sample_sjc_cameras(3, 64, np.random.RandomState(0))
    text = [denoiser.condition(["front view a smiling cat"])] * 3
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, PAAS(), settings, seed=0)
    for step in optimize(scene, denoiser):
        assert torch.isfinite(step.direction).all()
    assert not torch.equal(grid.color, before)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory: {peak_gib:.1f} GiB")
    assert peak_gib < 16


def test_every_stage_of_the_training_runs_from_nothing(tmp_path, monkeypatch):
    """In miniature; the folder that it leaves is a model that loads and makes pictures."""
    from sjc_debiased.menagerie import dataset, report, train, train_judge

    monkeypatch.setattr(dataset, "SHARD", 12)
    monkeypatch.setattr(dataset, "_TWINS", 4)
    monkeypatch.setattr(train_judge, "_N_ODD", 8)
    monkeypatch.setattr(train_judge, "_N_HELD_OUT", 6)
    steps = {f"{name}_steps": 2 for name in ("autoencoder", "diffusion", "masked_lm", "clip", "judge")}
    stages = ("autoencoder", "diffusion", "masked_lm", "clip", "judge")
    train.main(
        train.TrainingOptions(tmp_path / "work", tmp_path / "out", tmp_path, stages, photos=60, **steps)
    )
    pictures = report.sample(report.load_denoiser(tmp_path / "out"), ["a cat"], seed=0, n_steps=2)
    assert pictures.shape == (1, 3, 256, 256)
    assert torch.isfinite(pictures).all()
    begun = train.TrainingOptions(
        tmp_path / "work", tmp_path / "out", tmp_path, ("diffusion",), tmp_path / "out", 60, diffusion_steps=3
    )
    train.main(begun)
    assert not [p for p in (tmp_path / "out").rglob("*.json") if "_name_or_path" in p.read_text()]
