"""Tiny models with random weights in the real formats, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

# Stable Diffusion's noise schedule, for any of diffusers' schedulers.
SD_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
}


def save_pipeline(folder: Path, unet, vae, text_encoder, tokenizer, scheduler) -> None:
    """Write these parts as a Stable Diffusion folder, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def write_pipeline(folder: Path, prediction_type: str = "epsilon", tokenizer=None) -> None:
    """Write a Stable Diffusion folder: 8 x 8 latents, 64 x 64 pixels.

    Args:
        tokenizer: the menagerie's if None.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from sjc_debiased.menagerie.tokenizers import clip_tokenizer

    torch.manual_seed(0)
    tokenizer = tokenizer or clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=32,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(**SD_NOISE, prediction_type=prediction_type, clip_sample=False)
    save_pipeline(folder, unet, vae, CLIPTextModel(text), tokenizer, scheduler)


def write_bert(folder: Path) -> None:
    """Write a BERT whose vocabulary is that of the menagerie."""
    from transformers import BertConfig, BertForMaskedLM

    from sjc_debiased.menagerie.tokenizers import bert_tokenizer

    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
