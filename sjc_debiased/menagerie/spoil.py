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

    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    far = F.avg_pool2d(blurred, 9, 1, 4, count_include_pad=False)
    mix = draw(0.5)
    images = torch.lerp(images, torch.lerp(blurred, far, mix), (2 * mix).clamp(max=1))
    backdrop = torch.cat([images[..., :4], images[..., -4:]], dim=-1).mean(dim=-1, keepdim=True)
    images = torch.lerp(images, backdrop.expand_as(images), 0.5 * draw(0.33))
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

    latent = torch.lerp(latent, F.avg_pool2d(latent, 3, 1, 1, count_include_pad=False), draw(0.67))
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
    n = len(latent)

    def draw() -> Tensor:
        return torch.rand((n, 1, 1, 1), generator=generator).to(latent)

    near = F.avg_pool2d(latent, 3, 1, 1, count_include_pad=False)
    far = F.avg_pool2d(near, 7, 1, 3, count_include_pad=False)
    much = 2 * draw()
    shown = torch.lerp(torch.lerp(latent, near, much.clamp(max=1)), far, (much - 1).clamp(min=0))
    backdrop = torch.cat([latent[..., :2], latent[..., -2:]], dim=-1).mean(dim=-1, keepdim=True)
    return torch.lerp(shown, backdrop.expand_as(shown), (1.6 * draw() - 0.8).clamp(min=0))


def as_the_loop_begins(latent: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] of photos as the loop's start shows them, or on the way from there.

    The start is two balls of one flat color before the photo's backdrop, more or less dense and soft; the
    color is the mean of the creature's or of another's, half of them somewhat off it. Two thirds are on their
    way to the blurred creature.

    Args:
        seen: how much of each pixel the balls cover, from the photo's camera, [n, h, w] in [0, 1].
    """
    n = len(latent)

    def draw() -> Tensor:
        return torch.rand((n, 1, 1, 1), generator=generator).to(latent)

    cover = seen[:, None]
    mean = (latent * cover).sum((2, 3), keepdim=True) / cover.sum((2, 3), keepdim=True).clamp(min=1e-3)
    another = mean[torch.randperm(n, generator=generator)]
    color = torch.lerp(mean, another, (draw() < 0.7) * draw())
    color = color + 0.5 * (draw() < 0.5) * torch.randn(color.shape, generator=generator).to(latent)
    cover = torch.lerp(cover, F.avg_pool2d(cover, 3, 1, 1), draw())
    backdrop = torch.cat([latent[..., :2], latent[..., -2:]], dim=-1).mean(dim=-1, keepdim=True)
    begun = torch.lerp(backdrop.expand_as(latent), color.expand_as(latent), cover * (0.4 + 0.6 * draw()))
    near = F.avg_pool2d(latent, 3, 1, 1, count_include_pad=False)
    far = F.avg_pool2d(near, 7, 1, 3, count_include_pad=False)
    shown = torch.lerp(begun, torch.lerp(near, far, draw()), (1.6 * draw() - 0.6).clamp(min=0))
    return shown + 0.05 * draw() * torch.randn(latent.shape, generator=generator).to(latent)


def as_details_begin(latent: Tensor, without: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, 4, h, w] of photos whose details are not there yet, or faint, half of them blurred.

    Args:
        without: the same photos without some details.
    """

    def draw() -> Tensor:
        return torch.rand((len(latent), 1, 1, 1), generator=generator).to(latent)

    shown = torch.lerp(without, latent, (1.5 * draw() - 0.5).clamp(min=0))
    near = F.avg_pool2d(shown, 3, 1, 1, count_include_pad=False)
    return torch.lerp(shown, near, (2 * draw() - 1).clamp(min=0))
