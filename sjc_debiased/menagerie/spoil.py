"""Spoil pictures as the 3D loop does: blur, noise, fog, clouds, loud colors, half transparent objects."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures [n, 3, h, w] in [0, 1], each blurred, faded and made noisy by its own draw.

    Half of them are left sharp, two thirds opaque, half clean.
    """
    n = len(images)

    def draw(p: float) -> Tensor:
        on = torch.rand(n, generator=generator) < p
        return (on * torch.rand(n, generator=generator))[:, None, None, None].to(images)

    blurred = box_blur(images, 5)
    far = box_blur(blurred, 9)
    mix = draw(0.5)
    images = torch.lerp(images, torch.lerp(blurred, far, mix), (2 * mix).clamp(max=1))
    images = torch.lerp(images, beside(images, 4), 0.5 * draw(0.33))
    noise = torch.randn(images.shape, generator=generator).to(images)
    return (images + 0.08 * draw(0.5) * noise).clamp(0, 1)


def spoil_latents(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] as a voxel field would show them, each by its own draw.

    Two thirds are blurred, half have louder colors, half clouds in front and behind, all of them noise.
    """
    n = len(latent)

    def draw(p: float) -> Tensor:
        on = torch.rand(n, generator=generator) < p
        return (on * torch.rand(n, generator=generator))[:, None, None, None].to(latent)

    latent = torch.lerp(latent, box_blur(latent, 3), draw(0.67))
    middle = latent.mean(dim=(2, 3), keepdim=True)
    latent = middle + (1 + 0.8 * draw(0.5)) * (latent - middle)
    coarse = torch.randn((n, latent.shape[1], 6, 6), generator=generator).to(latent)
    clouds = F.interpolate(coarse, latent.shape[2:], mode="bicubic", align_corners=True)
    white = torch.randn(latent.shape, generator=generator).to(latent)
    return latent + 0.7 * draw(0.5) * clouds + (0.1 + 0.25 * draw(0.67)) * white


def box_blur(pictures: Tensor, width: int) -> Tensor:
    """Return the means over squares, whose sides are of `width` pixels, [n, c, h, w]."""
    return F.avg_pool2d(pictures, width, 1, width // 2, count_include_pad=False)


def beside(pictures: Tensor, width: int) -> Tensor:
    """Return each row's mean over so many pixels at either side, as wide as the pictures [n, c, h, w]."""
    sides = torch.cat([pictures[..., :width], pictures[..., -width:]], dim=-1)
    return sides.mean(dim=-1, keepdim=True).expand_as(pictures)
