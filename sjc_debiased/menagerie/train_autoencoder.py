"""Stage 1: the autoencoder, 256x256 RGB <-> 32x32 latents of 4 channels with unit variance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F

from sjc_debiased.menagerie.dataset import pictures_of
from sjc_debiased.menagerie.training import autocast, device, fit, step_generator

_WIDTH = 48
_BATCH = 8
_LATENT_NOISE = 0.08  # in units of the latents' own spread: rendered latents are never exact


def new_autoencoder() -> AutoencoderTiny:
    """Return the untrained autoencoder."""
    return AutoencoderTiny(
        encoder_block_out_channels=(_WIDTH,) * 4,
        decoder_block_out_channels=(_WIDTH,) * 4,
        num_encoder_blocks=(0, 0, 1, 2),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=4,
        scaling_factor=1.0,
    )


def train(images: np.ndarray, work: Path, out: Path, n_steps: int) -> None:
    """Train on the album, set the scaling factor to 1 / spread of the latents, save to `out`."""
    torch.manual_seed(0)
    vae = new_autoencoder().to(device(), memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, stage=1)
        picks = torch.randint(len(images), (_BATCH,), generator=g).tolist()
        batch = pictures_of(images, picks).to(device()).float() / 127.5 - 1
        with autocast(batch.device):
            latent = vae.encode(batch).latents
            noise = torch.randn(latent.shape, generator=g).to(latent)
            decoded = vae.decode(latent + _LATENT_NOISE * latent.detach().std() * noise).sample
        return _picture_loss(decoded.float(), batch) + 1e-3 * _spread_loss(latent.float())

    fit("autoencoder", work, vae, loss_at, n_steps, lr=1.5e-3)
    sample = pictures_of(images, range(0, len(images), max(1, len(images) // 512)))
    vae.to(memory_format=torch.contiguous_format)
    vae.register_to_config(scaling_factor=float(1 / encode(vae, sample).std()))
    vae.to("cpu", torch.float16).save_pretrained(out)


@torch.no_grad()
def encode(vae: AutoencoderTiny, images_u8: torch.Tensor) -> torch.Tensor:
    """Return the latents [n, 4, 32, 32] of uint8 images [n, 3, 256, 256], times the scaling factor."""
    batches = []
    for batch in images_u8.split(16):
        image = batch.to(vae.device, torch.float32) / 127.5 - 1
        with autocast(vae.device):
            latent = vae.encode(image).latents
        batches.append(latent.float().cpu() * vae.config.scaling_factor)
    return torch.cat(batches)


def _picture_loss(decoded: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + L1 of the gradients, which keeps edges sharp."""
    loss = F.l1_loss(decoded, image) + F.mse_loss(decoded, image)
    for dim in (2, 3):
        loss = loss + 0.5 * F.l1_loss(decoded.diff(dim=dim), image.diff(dim=dim))
    return loss


def _spread_loss(latent: torch.Tensor) -> torch.Tensor:
    """Keep every channel near zero mean and unit spread, inside the decoder's soft clamp at 3."""
    mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    return (mean**2 + (std - 1) ** 2).sum()
