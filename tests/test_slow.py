"""Stable Diffusion 1.5 at full size, with random weights: slow, and 16 GiB."""

import resource

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sd15_folder(tmp_path_factory):
    """Write a pipeline with SD 1.5's real configuration and random bfloat16 weights."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from sjc_debiased.menagerie.tokenizers import clip_tokenizer

    torch.set_default_dtype(torch.bfloat16)
    try:
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                projection_dim=768,
            )
        )
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964, "SD 1.5's U-Net"
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    folder = tmp_path_factory.mktemp("sd15")
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def test_three_steps_at_full_size(sd15_folder):
    import numpy as np

    from adapt_sd import StableDiffusion, load_pipeline
    from sjc_debiased.clipping import ClipSchedule
    from sjc_debiased.optimize import Scene, Settings, draw_noise, make_optimizer, optimize_step
    from voxnerf.cameras import sample_sjc_cameras
    from voxnerf.grid import GridConfig, VoxelGrid

    denoiser = StableDiffusion(load_pipeline(str(sd15_folder)), torch.device("cpu"), torch.bfloat16)
    assert (denoiser.latent_size, denoiser.latent_channels) == (64, 4)
    settings = Settings(n_steps=3, clip=ClipSchedule(2.0, 8.0))
    grid = VoxelGrid(GridConfig(), torch.Generator().manual_seed(0))
    before = grid.color.detach().clone()
    cameras = sample_sjc_cameras(3, 64, np.random.RandomState(0))
    text = [denoiser.embed(["front view a smiling cat"])] * 3
    scene = Scene(grid, make_optimizer(grid, settings), cameras, text, settings, seed=0)
    for _ in range(3):
        (step,) = optimize_step([scene], [draw_noise(scene, denoiser)], denoiser.denoise)
        assert torch.isfinite(step.direction).all()
    assert not torch.equal(grid.color, before)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory: {peak_gib:.1f} GiB")
    assert peak_gib < 16
