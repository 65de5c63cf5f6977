"""A second diffusion model of the world, of pixels: T5 and a U-Net together, as a DeepFloyd IF folder.

No trained one ships: this is the code alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from sjc_debiased.menagerie.captions import caption, view_of
from sjc_debiased.menagerie.profile import PROFILE
from sjc_debiased.menagerie.tokenizers import t5_tokenizer
from sjc_debiased.menagerie.training import SEED, autocast, device, fit, step_generator
from sjc_debiased.models.deepfloyd import MAX_TOKENS, as_sent

_P_NO_CAPTION = 0.1
_STAGE = 8  # of the training's random numbers
_MAX_SNR = 5.0  # as in the latent one (arXiv:2303.09556)
_OF_THE_WORLD = ("half_size", "background", "start", "color_scale", "front_half_deg", "known_words")


@dataclass(frozen=True)
class Size:
    """Say how large the model is.

    Attributes:
        pixels: of a picture's side; IF has 64.
        widths: channels of the U-Net's levels, multiples of 32. text_width: numbers a token.
        batch: pictures a step.
    """

    pixels: int = 64
    widths: tuple[int, ...] = (64, 96, 128, 192)
    text_width: int = 128
    batch: int = 32


class TextToPixels(nn.Module):
    """The two networks that are trained together: token ids and noised pixels in, noise out."""

    def __init__(self, vocab_size: int, size: Size):
        super().__init__()
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=-(-vocab_size // 128) * 128,  # padded, as T5's is
                d_model=size.text_width,
                d_kv=size.text_width // 4,
                d_ff=2 * size.text_width,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )
        plain = len(size.widths) - 1
        self.unet = UNet2DConditionModel(
            sample_size=size.pixels,
            in_channels=3,
            out_channels=3,
            block_out_channels=size.widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
            attention_head_dim=4,
            cross_attention_dim=size.text_width,
        )

    def forward(self, noised, timesteps, ids, mask):
        """Return the noise of pixels [n, 3, h, w] under captions of ids [n, 77]; the mask is T5's alone."""
        text = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return self.unet(noised, timesteps, text).sample


def new_scheduler() -> DDPMScheduler:
    """Return IF's cosine table, with a fixed variance: the network gives noise alone."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        variance_type="fixed_small",
        clip_sample=False,
    )


def train(
    images: np.ndarray, truths: list[dict], work: Path, out: Path, n_steps: int, size: Size | None = None
) -> None:
    """Train on the album, made smaller, and write the pipeline folder `out`.

    Args:
        images: uint8 [n, h, w, 3], of a multiple of the model's pixels.
    """
    size = size or Size()
    tokenizer, scheduler = t5_tokenizer(), new_scheduler()
    torch.manual_seed(0)
    model = TextToPixels(len(tokenizer), size).to(device())
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = snr.clamp(max=_MAX_SNR) / snr  # of a loss on the noise
    views = [view_of(t["azimuth_deg"], t["elevation_deg"]) for t in truths]

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, _STAGE)
        rng = np.random.default_rng([SEED, _STAGE, step])
        picks = torch.randint(len(images), (size.batch,), generator=g)
        texts = [
            "" if rng.random() < _P_NO_CAPTION else caption(truths[i]["creature"], views[i], rng)
            for i in picks.tolist()
        ]
        tokens = _tokenize(tokenizer, texts).to(device())
        pixels = shrink(images[picks.numpy()], size.pixels)
        noise = torch.randn(pixels.shape, generator=g)
        timesteps = torch.randint(1000, (size.batch,), generator=g)
        noised = scheduler.add_noise(pixels, noise, timesteps).to(device())
        with autocast(noised.device):
            eps = model(noised, timesteps.to(device()), tokens.input_ids, tokens.attention_mask)
        errors = (eps.float() - noise.to(device())).square().mean(dim=(1, 2, 3))
        return (weights[timesteps].to(errors.device) * errors).mean()

    fit("pixels", work, model, loss_at, n_steps, lr=8e-4)
    save_pipeline(model, tokenizer, out)


def shrink(images_u8: np.ndarray, pixels: int) -> torch.Tensor:
    """Return images in [-1, 1], float32 [n, 3, pixels, pixels]: the means of squares of pixels."""
    images = torch.from_numpy(images_u8).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(images, images.shape[-1] // pixels)


def save_pipeline(model: TextToPixels, tokenizer: T5Tokenizer, out: Path) -> None:
    """Write the IF folder and its profile: what the world asks for; guidance and bounds stay IF's."""
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    pipeline.to("cpu", torch.float32).save_pretrained(out)
    profile = {name: getattr(PROFILE, name) for name in _OF_THE_WORLD}
    profile["why"] = {name: PROFILE.why[name] for name in _OF_THE_WORLD if name in PROFILE.why}
    (out / "profile.json").write_text(json.dumps(profile, indent=1) + "\n")


def _tokenize(tokenizer: T5Tokenizer, texts: list[str]):
    sent = [as_sent(text) for text in texts]
    return tokenizer(sent, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
