"""Write Stable Diffusion 1.5 at full size with random weights, for what needs its size and not its pictures.

    python benchmarks/random_sd15.py FOLDER

2.1 GB in bfloat16; `bench_step.py --model FOLDER` takes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import tyro

from tests.small_models import SD_NOISE, save_pipeline


def write_sd15(folder: Path) -> None:
    """Write a pipeline with SD 1.5's configuration, random bfloat16 weights and CLIP's tokenizer."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from sjc_debiased.models.single_file import clip_tokenizer
    from sjc_debiased.models.tensor_files import SD1

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
    scheduler = PNDMScheduler(**SD_NOISE, skip_prk_steps=True, steps_offset=1)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964, "SD 1.5's U-Net"
    save_pipeline(folder, unet, vae, text, clip_tokenizer(SD1), scheduler)


def main(folder: tyro.conf.Positional[Path]) -> None:
    """Write the pipeline to a new folder."""
    if folder.exists():
        raise SystemExit(f"The model is written to a new folder. {folder} is there. Name another one.")
    write_sd15(folder)


if __name__ == "__main__":
    tyro.cli(main)
