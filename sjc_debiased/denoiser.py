"""The contract between a 2D diffusion model and the method: noised latent and sigma in, denoised out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

TIMESTEPS = (10, 970)  # SJC draws timesteps uniformly from [10, 970), without annealing


class Denoiser(Protocol):
    """A conditional Karras denoiser D(x; sigma) in the latent space of its autoencoder.

    Attributes:
        sigmas: float32 [n_timesteps], ascending; `sigmas[timestep]` is the noise level of a timestep.
        latent_channels, latent_size: of one picture; 4 and 64 for Stable Diffusion 1.5.
    """

    sigmas: Tensor
    latent_channels: int
    latent_size: int

    def embed(self, prompts: list[str]) -> Tensor:
        """Return the text embeddings [n, tokens, width] of prompts."""

    def denoise(self, noised: Tensor, sigma: Tensor, text: Tensor, guidance: Tensor) -> Tensor:
        """Return D(noised; sigma) under `text`: [n, c, h, w] from [n, c, h, w], [n], [n, t, w], [n]."""

    def decode(self, latent: Tensor) -> Tensor:
        """Return the RGB image in [-1, 1] of latents [n, c, h, w], float32 [n, 3, H, W]."""


def sigma_table(alphas_cumprod: Tensor) -> Tensor:
    """Return sigma of every timestep, sqrt((1 - abar) / abar), ascending.

    0.0291672 at timestep 0 and 14.614641 at 999 for Stable Diffusion's schedule.
    """
    abar = alphas_cumprod.double()
    return ((1 - abar) / abar).sqrt().float()


def nearest_timestep(sigmas: Tensor, sigma: Tensor) -> Tensor:
    """Return the timestep whose sigma is nearest, int64, of the shape of `sigma`; no device sync."""
    above = torch.searchsorted(sigmas, sigma.contiguous()).clamp(1, len(sigmas) - 1)
    closer_below = (sigma - sigmas[above - 1]) <= (sigmas[above] - sigma)
    return above - closer_below.long()


def guided(unconditional: Tensor, conditional: Tensor, scale: Tensor | float) -> Tensor:
    """Return unconditional + scale * (conditional - unconditional): classifier-free guidance.

    This is SJC's form. D-SDS Eq. 3 writes conditional + s * (conditional - unconditional), which is the
    same with scale = s + 1.
    """
    return unconditional + scale * (conditional - unconditional)
