"""What a field shows and what a 2D model sees: the same, or RGB that is encoded to be one of its pictures."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from sjc_debiased.denoiser import Denoiser
from voxnerf.field import Field

_RGB_UPSCALE = 2  # a decoder enlarges latents; what is RGB already is looked at by larger cameras


def picture_of(
    seen: Float[Tensor, "1 channels h w"], field: Field, denoiser: Denoiser
) -> Float[Tensor, "1 c size size"]:
    """Return the 2D model's picture of what a field shows, [1, channels, size, size]; differentiable.

    Args:
        seen: `Rendering.latent` of the field.
    """
    return denoiser.encode(seen) if field.rgb else seen


def decoder_of(
    field: Field, denoiser: Denoiser
) -> Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n 3 height width"]]:
    """Return what makes RGB images in [-1, 1] of what a field shows."""
    return _in_range if field.rgb else denoiser.decode


def looking_size(field: Field, denoiser: Denoiser) -> int:
    """Return the pixels along each side of a camera that looks at a field for the eye."""
    return denoiser.size * (_RGB_UPSCALE if field.rgb else 1)


def _in_range(image: Tensor) -> Tensor:
    return image.clamp(-1, 1)
