"""What the log says of a step: its numbers, measured on the device and read later."""

from __future__ import annotations

import torch
from torch import Tensor

from sjc_debiased.optimize import Step

LOGGED = (
    "sigma",
    "direction_rms",
    "direction_p95_abs",
    "clipped_fraction",
    "latent_mean",
    "latent_std",
    "opacity_mean",
    "emptiness_loss",
)


def names_of(step: Step) -> list[str]:
    """Return the names of what `measure_step` returns: `LOGGED`, and the losses that the scene has beside."""
    return [*LOGGED, *(f"{name}_loss" for name in step.losses)]


@torch.no_grad()
def measure_step(step: Step) -> Tensor:
    """Return the values of `names_of` as one tensor on the device, without reading them."""
    magnitude = step.direction.abs()
    clipped = magnitude > step.clip_value if step.clip_value is not None else magnitude < 0
    latent = step.rendering.latent
    return torch.stack(
        [
            step.sigma,
            step.direction.square().mean().sqrt(),
            magnitude.flatten().quantile(0.95),
            clipped.float().mean(),
            latent.mean(),
            latent.std(),
            step.rendering.opacity.mean(),
            step.rendering.emptiness,
            *step.losses.values(),
        ]
    )
