"""The contract between a 2D diffusion model and the method: noised picture and sigma in, denoised out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

TIMESTEPS = (10, 970)  # SJC draws timesteps uniformly from [10, 970), without annealing


@dataclass(frozen=True)
class Conditioning:
    """What a 2D model is told about each of n pictures; the model that made it alone reads it.

    Attributes:
        parts: tensors [n, ...], such as text embeddings [n, tokens, width].
    """

    parts: tuple[Shaped[Tensor, "n ..."], ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def split(self) -> list[Conditioning]:
        """Return the conditioning of each picture by itself."""
        return [Conditioning(rows) for rows in zip(*(part.split(1) for part in self.parts))]

    def repeated(self, n: int) -> Conditioning:
        """Return that of n copies of each picture, the copies of one beside each other."""
        return Conditioning(tuple(part.repeat_interleave(n, dim=0) for part in self.parts))

    @staticmethod
    def cat(several: Sequence[Conditioning]) -> Conditioning:
        """Return that of the pictures of all, in order; all are of one model."""
        return Conditioning(tuple(map(torch.cat, zip(*(one.parts for one in several)))))


class Denoiser(Protocol):
    """A conditional Karras denoiser D(x; sigma) of pictures: latents, or images if it has no autoencoder.

    Attributes:
        channels, size: of a picture, which is square; 4 and 64 for Stable Diffusion 1.5.
        device, dtype: where it computes, and in what; pictures and answers are float32 on that device.
    """

    channels: int
    size: int
    device: torch.device
    dtype: torch.dtype

    def condition(self, prompts: list[str]) -> Conditioning:
        """Return what the model is told of n pictures by their prompts.

        Raises:
            ValueError: a prompt is longer than the model can read.
        """
        ...

    def draw_sigma(
        self, rng: np.random.Generator, timesteps: tuple[int, int] = TIMESTEPS
    ) -> Float[Tensor, ""]:
        """Draw a noise level as the model's training drew them, a scalar on its device.

        Args:
            timesteps: [low, high) of its table; asked for only where a run bounds them, so a model without a
                table does without this argument.
        """
        ...

    def denoise(
        self,
        noised: Float[Tensor, "n c h w"],
        sigma: Float[Tensor, "n"],
        cond: Conditioning,
        scale: Float[Tensor, "n"],
    ) -> Float[Tensor, "n c h w"]:
        """Return D(noised; sigma), guided and without gradient: [n, c, h, w].

        Args:
            noised: [n, c, h, w]. sigma: [n]. cond: of n pictures.
            scale: of classifier-free guidance (`guided`), [n]; 1 is none. It lies on the CPU wherever the
                model computes: whether there is something to guide is known without waiting for a device.
        """
        ...

    def encode(self, image: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n c size size"]:
        """Return the pictures of RGB images in [-1, 1], float32 [n, c, size, size]; differentiable.

        Args:
            image: [n, 3, height, width], square; resized to the pixels that the model, or its autoencoder,
                takes.
        """
        ...

    def decode(self, picture: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 height width"]:
        """Return the RGB images of pictures, float32 [n, 3, H, W] in [-1, 1], without gradient."""
        ...

    def compile(self) -> None:
        """Answer faster from the next call on, where that is possible, and as before where it is not."""
        ...


def sigma_table(alphas_cumprod: Float[Tensor, "timesteps"]) -> Float[Tensor, "levels"]:
    """Return sigma of every timestep, sqrt((1 - abar) / abar), ascending.

    0.0291672 at timestep 0 and 14.614641 at 999 for Stable Diffusion's schedule. The last level of a model of
    zero terminal SNR (arXiv:2305.08891) has no sigma, and is left out.
    """
    abar = alphas_cumprod.double()
    sigmas = ((1 - abar) / abar).sqrt().float()
    return sigmas[sigmas.isfinite()]


def drawn_sigma(
    sigmas: Float[Tensor, "timesteps"], rng: np.random.Generator, timesteps: tuple[int, int]
) -> Float[Tensor, ""]:
    """Return the noise level of a timestep of a table, drawn uniformly from [low, high).

    Raises:
        ValueError: the range goes beyond the table.
    """
    if timesteps[1] > len(sigmas):
        raise ValueError(
            f"timesteps of this model end at {len(sigmas) - 1}. Asked for up to, without, {timesteps[1]}. "
            f"Give --timesteps a HIGH of at most {len(sigmas)}."
        )
    return sigmas[int(rng.integers(*timesteps))]


def denoised_by(
    output: Float[Tensor, "n c h w"],
    noised: Float[Tensor, "n c h w"],
    sigma: Float[Tensor, "n 1 1 1"],
    v_prediction: bool,
) -> Float[Tensor, "n c h w"]:
    """Return D(noised; sigma) of what a network answers to noised / sqrt(1 + sigma^2): eps, or v.

    Args:
        output: [n, c, h, w]. noised: [n, c, h, w]. sigma: [n, 1, 1, 1].
    """
    if not v_prediction:
        return noised - sigma * output
    scaled = noised / (1 + sigma**2).sqrt()
    return noised - sigma * ((output + sigma * scaled) / (1 + sigma**2).sqrt())


def nearest_timestep(
    sigmas: Float[Tensor, "timesteps"], sigma: Float[Tensor, "*shape"]
) -> Int64[Tensor, "*shape"]:
    """Return the timestep whose sigma is nearest, int64, of the shape of `sigma`; no device sync."""
    above = torch.searchsorted(sigmas, sigma.contiguous()).clamp(1, len(sigmas) - 1)
    closer_below = (sigma - sigmas[above - 1]) <= (sigmas[above] - sigma)
    return above - closer_below.long()


def ask_guided(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    scaled: Float[Tensor, "n c h w"],
    timestep: Int64[Tensor, "n"],
    text: Float[Tensor, "n tokens width"],
    unconditional: Float[Tensor, "1 tokens width"],
    scale: Float[Tensor, "n"],
) -> Float[Tensor, "n c h w"]:
    """Return a network's answer with guidance, from one call of it.

    Where no picture is guided (every scale is 1) the network is not asked without the prompts, which halves
    the call.

    Args:
        network: of scaled noised pictures, timesteps and texts, to its output [n, c, h, w].
        scale: of `guided`, on the CPU.
    """
    if (scale.numpy() == 1).all():
        return network(scaled, timestep, text)
    both = torch.cat([unconditional.expand(len(text), -1, -1), text])
    without, told = network(scaled.repeat(2, 1, 1, 1), timestep.repeat(2), both).chunk(2)
    return guided(without, told, scale.to(scaled.device, non_blocking=True)[:, None, None, None])


def guided(
    unconditional: Float[Tensor, "n c h w"],
    conditional: Float[Tensor, "n c h w"],
    scale: Float[Tensor, "n 1 1 1"] | float,
) -> Float[Tensor, "n c h w"]:
    """Return unconditional + scale * (conditional - unconditional): classifier-free guidance.

    This is SJC's form. D-SDS Eq. 3 writes conditional + s * (conditional - unconditional), which is the
    same with scale = s + 1.
    """
    return unconditional + scale * (conditional - unconditional)
