"""Score debiasing (D-SDS Sec. 4.1, Eq. 12): an elementwise bound on the direction.

How the bound grows (Eq. 13) is `schedules.ClipSchedule`, which options have before PyTorch is there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def clip(direction: Float[Tensor, "*shape"], clip_value: float | None) -> Float[Tensor, "*shape"]:
    """Return max(min(direction, clip_value), -clip_value), elementwise (Eq. 12); None clips nothing."""
    return direction if clip_value is None else direction.clamp(-clip_value, clip_value)


def within(denoised: Float[Tensor, "n c h w"], bounds: tuple[float, ...]) -> Float[Tensor, "n c h w"]:
    """Return the 2D model's answer inside the range of its pictures: Imagen's static thresholding.

    Classifier-free guidance goes on past what the model has seen, to white that is whiter than white. No part
    of SJC or D-SDS. Source: arXiv:2205.11487, Sec. 2.3; there of pixels, all in [-1, 1].

    Args:
        bounds: the least value of each channel and then the largest of each; empty for none.

    Raises:
        ValueError: they are of another number of channels.
    """
    if not bounds:
        return denoised
    n = denoised.shape[1]
    if len(bounds) != 2 * n:
        raise ValueError(
            f"denoised_range must have the least and then the largest value of each of the {n} channels. It "
            f"has {len(bounds)} numbers. Give {2 * n}, or leave it out."
        )
    channels = zip(denoised.split(1, dim=1), bounds[:n], bounds[n:])
    return torch.cat([channel.clamp(low, high) for channel, low, high in channels], dim=1)
