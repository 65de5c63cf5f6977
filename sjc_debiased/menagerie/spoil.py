"""Spoil pictures as the 3D loop does: blur, noise, fog, clouds, loud colors, half transparent objects."""

from __future__ import annotations

from collections.abc import Callable

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

    blurred = _blurred(images, 5)
    far = _blurred(blurred, 9)
    mix = draw(0.5)
    images = torch.lerp(images, torch.lerp(blurred, far, mix), (2 * mix).clamp(max=1))
    images = torch.lerp(images, _backdrop(images, 4), 0.5 * draw(0.33))
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

    latent = torch.lerp(latent, _blurred(latent, 3), draw(0.67))
    middle = latent.mean(dim=(2, 3), keepdim=True)
    latent = middle + (1 + 0.8 * draw(0.5)) * (latent - middle)
    coarse = torch.randn((n, latent.shape[1], 6, 6), generator=generator).to(latent)
    clouds = F.interpolate(coarse, latent.shape[2:], mode="bicubic", align_corners=True)
    white = torch.randn(latent.shape, generator=generator).to(latent)
    return latent + 0.7 * draw(0.5) * clouds + (0.1 + 0.25 * draw(0.67)) * white


def as_a_field_begins(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] of photos as an unfinished voxel field would show them.

    Each by its own draw: they are blurred, by little or until nothing is left but a blob, and half of them
    fade into their backdrop.
    """
    draw = _draws(latent, generator)
    near = _blurred(latent, 3)
    far = _blurred(near, 7)
    much = 2 * draw()
    shown = torch.lerp(torch.lerp(latent, near, much.clamp(max=1)), far, (much - 1).clamp(min=0))
    backdrop = _backdrop(latent, 2)
    return torch.lerp(shown, backdrop, (1.6 * draw() - 0.8).clamp(min=0))


def as_the_loop_begins(latent: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] of photos as the loop's start shows them, or on the way from there.

    The start is two balls of one flat color before the photo's backdrop, more or less dense and soft; the
    color is the mean of the creature's or of another's, half of them somewhat off it. Two thirds are on their
    way to the blurred creature.

    Args:
        seen: how much of each pixel the balls cover, from the photo's camera, [n, h, w] in [0, 1].
    """
    draw = _draws(latent, generator)
    cover = seen[:, None]
    mean = (latent * cover).sum((2, 3), keepdim=True) / cover.sum((2, 3), keepdim=True).clamp(min=1e-3)
    another = mean[torch.randperm(len(latent), generator=generator)]
    color = torch.lerp(mean, another, (draw() < 0.7) * draw())
    color = color + 0.5 * (draw() < 0.5) * torch.randn(color.shape, generator=generator).to(latent)
    cover = torch.lerp(cover, F.avg_pool2d(cover, 3, 1, 1), draw())
    backdrop = _backdrop(latent, 2)
    begun = torch.lerp(backdrop, color.expand_as(latent), cover * (0.4 + 0.6 * draw()))
    near = _blurred(latent, 3)
    far = _blurred(near, 7)
    shown = torch.lerp(begun, torch.lerp(near, far, draw()), (1.6 * draw() - 0.6).clamp(min=0))
    return shown + 0.05 * draw() * torch.randn(latent.shape, generator=generator).to(latent)


def as_details_begin(latent: Tensor, without: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] of photos whose details are not there yet, or faint, half of them blurred.

    Args:
        without: the same photos without some details.
    """
    draw = _draws(latent, generator)
    shown = torch.lerp(without, latent, (1.5 * draw() - 0.5).clamp(min=0))
    return torch.lerp(shown, _blurred(shown, 3), (2 * draw() - 1).clamp(min=0))


def _draws(latent: Tensor, generator: torch.Generator) -> Callable[[], Tensor]:
    """Return what draws a number in [0, 1) for each of the latents, [n, 1, 1, 1]."""
    return lambda: torch.rand((len(latent), 1, 1, 1), generator=generator).to(latent)


def _blurred(pictures: Tensor, width: int) -> Tensor:
    """Return the means over squares, whose sides are of `width` pixels, [n, c, h, w]."""
    return F.avg_pool2d(pictures, width, 1, width // 2, count_include_pad=False)


def _backdrop(pictures: Tensor, width: int) -> Tensor:
    """Return each row's mean over so many pixels at either side, as wide as the pictures [n, c, h, w]."""
    sides = torch.cat([pictures[..., :width], pictures[..., -width:]], dim=-1)
    return sides.mean(dim=-1, keepdim=True).expand_as(pictures)
