"""DeepFloyd IF's first stage, a diffusion model of pixels, as a Karras denoiser D(x; sigma)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sjc_debiased.denoiser import (
    TIMESTEPS,
    Conditioning,
    ask_guided,
    denoised_by,
    drawn_sigma,
    nearest_timestep,
    sigma_table,
)
from sjc_debiased.models.compiled import Compiled

CHANNELS = 3


class DeepFloydIF:
    """Wrap the U-Net of an IF pipeline's first stage; its pictures are RGB in [-1, 1], its own 64 x 64.

    With sigma^2 = (1 - abar) / abar the network sees x / sqrt(1 + sigma^2), and

        eps = the first 3 of its 6 channels; the others are a variance, which is for sampling alone
        D(x; sigma) = x - sigma * eps

    (EDM, arXiv:2206.00364, Sec. 5.) Where the scheduler says so the network gives v (`denoised_by`).
    The variance is dropped before guidance. IF's table of noise is a cosine one (Nichol and Dhariwal,
    arXiv:2102.09672, Eq. 17): 0.0064 at timestep 0, 1.0155 at 500, 33.76 at 980. A sigma is first snapped to
    the nearest one of it. Dynamic thresholding is for sampling, and not used.

    Attributes:
        sigmas: float32 [981], ascending; `sigmas[timestep]` is the noise level of a timestep.
    """

    def __init__(
        self,
        unet: Any,  # of diffusers
        scheduler: Any,
        read: Callable[[list[str]], Tensor],
        device: torch.device,
        dtype: torch.dtype,
        last_timestep: int,
    ):
        """Take over a loaded `UNet2DConditionModel` and the scheduler of its folder.

        Args:
            read: returns the embeddings of prompts, [n, tokens, width], on any device and in any dtype.
            dtype: of the U-Net; all results are float32.
            last_timestep: that is used of the scheduler's table.
        """
        config = unet.config
        if config.in_channels != CHANNELS or config.out_channels not in (CHANNELS, 2 * CHANNELS):
            raise ValueError(
                "the U-Net of IF's first stage takes 3 channels and gives 6, of which 3 are the noise; or 3. "
                f"It takes {config.in_channels} and gives {config.out_channels}. Choose a first stage."
            )
        prediction = scheduler.config.prediction_type
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"IF's first stage must predict epsilon or v. Its scheduler says {prediction!r}. Choose one."
            )
        self.v_prediction = prediction == "v_prediction"
        self.device, self.dtype = device, dtype
        self.unet = torch.nn.Module.to(unet, device, dtype).eval().requires_grad_(False)
        self.unet.to(memory_format=torch.channels_last)
        self.sigmas = _sigmas(scheduler.betas, last_timestep).to(device)
        self.channels, self.size = CHANNELS, config.sample_size
        self._read, self._run = read, self.unet

    @torch.no_grad()
    def condition(self, prompts: list[str]) -> Conditioning:
        """Return the text embeddings of prompts, [n, tokens, width], in the U-Net's dtype."""
        return Conditioning((self._read(prompts).to(self.device, self.dtype),))

    def draw_sigma(self, rng: np.random.Generator, timesteps: tuple[int, int] = TIMESTEPS) -> Tensor:
        """Draw the noise level of a timestep (`drawn_sigma`); by default as SJC does."""
        return drawn_sigma(self.sigmas, rng, timesteps)

    @torch.no_grad()
    def denoise(self, noised: Tensor, sigma: Tensor, cond: Conditioning, scale: Tensor) -> Tensor:
        """Return D(noised; sigma) in float32, guided by the prompts against the empty one.

        Args:
            noised: float32 [n, 3, height, width]. sigma: float32 [n]. cond: of n pictures.
            scale: of `guided`, float32 [n], on the CPU. threestudio's 20 for IF counts from the
                conditional side: 21.
        """
        (text,) = cond.parts
        timestep = nearest_timestep(self.sigmas, sigma)
        sigma = self.sigmas[timestep][:, None, None, None]
        scaled = noised / (1 + sigma**2).sqrt()
        output = ask_guided(self._network, scaled, timestep, text, self._unconditional, scale)
        return denoised_by(output, noised, sigma, self.v_prediction)

    def encode(self, image: Tensor) -> Tensor:
        """Return RGB images in [-1, 1] at the model's size, in float32: there is no autoencoder.

        Args:
            image: [n, 3, height, width], square. Larger ones are averaged (bilinear, antialiased).
        """
        size = (self.size, self.size)
        if image.shape[2:] == size:
            return image.float()
        return F.interpolate(image.float(), size, mode="bilinear", antialias=True)

    @torch.no_grad()
    def decode(self, picture: Tensor) -> Tensor:
        """Return pictures as RGB images, float32 [n, 3, height, width]: clamped to [-1, 1]."""
        return picture.float().clamp(-1, 1)

    def compile(self) -> None:
        """Compile the U-Net at its first call; where that fails or changes its answer, go on without."""
        self._run = Compiled(self.unet, self.device)

    @cached_property
    def _unconditional(self) -> Tensor:
        """What stands for no prompt. Whoever only shows an object needs no text encoder for it."""
        (text,) = self.condition([""]).parts
        return text

    def _network(self, scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        output = self._run(scaled.to(self.dtype), timestep, text, return_dict=False)[0]
        return output[:, :CHANNELS].float()


def _sigmas(betas: Tensor, last: int) -> Tensor:
    """Return the sigma of the timesteps that are used; in float64, since 1 - abar begins at 4.1e-5."""
    return sigma_table((1 - betas.double()).cumprod(0))[: last + 1]
