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


def load_pipeline(location: str, local_files_only: bool = False, loras=()):
    """Load a Stable Diffusion as the product does, before the adapter takes it over."""
    from sjc_debiased.models.loading import find_whole
    from sjc_debiased.models.stable_diffusion import load_pipeline

    return load_pipeline(find_whole(location, local_files_only), loras, local_files_only)


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


def write_if(folder: Path, size: int = 16, out_channels: int = 6) -> None:
    """Write a DeepFloyd IF folder with random weights: the first stage, 16 x 16 pixels, a T5 of width 32.

    Args:
        size: pixels of a side.
        out_channels: 6 of noise and variance, or 3 of noise alone.
    """
    from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    from sjc_debiased.menagerie.tokenizers import t5_tokenizer

    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    text = T5Config(
        vocab_size=-(-len(tokenizer) // 128) * 128,
        d_model=32,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=3,
        out_channels=out_channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range" if out_channels == 6 else "fixed_small",
        prediction_type="epsilon",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(text),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


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
