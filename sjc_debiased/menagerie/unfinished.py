"""Photos as an unfinished 3D field shows them.

A 2D model that is to finish a 3D object must know unfinished ones: two thirds of what it is shown in training
are photos that are blurred, begun or bare, and its answer is always the whole, sharp photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sjc_debiased.menagerie.creatures import Part
from sjc_debiased.menagerie.dataset import photo_camera
from sjc_debiased.menagerie.profile import PROFILE
from sjc_debiased.menagerie.spoil import beside, box_blur
from sjc_debiased.menagerie.training import save
from sjc_debiased.menagerie.world import coverage_map
from voxnerf.grid import BALLS

_P_BLURRED = 0.08
_P_BEGUN = 0.22  # the loop's start, and the way from there
_P_BARE = 0.35  # eyes, ears, tail or other details are missing or faint


@dataclass(frozen=True)
class Levels:
    """Say at which timesteps of a model's table unfinished photos are shown.

    Attributes:
        blurred_from: the least of blurred ones: with less noise, what is there is there.
        begun: (first, last) of those that are begun or bare.
    """

    blurred_from: int
    begun: tuple[int, int]


class Twins:
    """Which photos of an album were taken once more, without some details."""

    def __init__(self, truths: list[dict]):
        """Look at the album's truths."""
        self._row = torch.tensor([-1 if t["twin"] is None else t["twin"] for t in truths])
        self._twinned = (self._row >= 0).nonzero()[:, 0]

    def picks(self, picks: Tensor, lot: Tensor) -> Tensor:
        """Return the photos to show, [n]: where the lot says bare, ones that have a twin."""
        return torch.where(_is_bare(lot), self._twinned[picks % len(self._twinned)], picks)

    def rows(self, picks: Tensor) -> Tensor:
        """Return the photos' twins, as rows of `dataset.bare`, [n]; any row for one that has none."""
        return self._row[picks].clamp(min=0)


def unfinished(
    latent: Tensor,
    seen: Tensor,
    twin: Tensor,
    lot: Tensor,
    timesteps: Tensor,
    levels: Levels,
    g: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return latents [n, c, h, w] as they are shown, two thirds of them unfinished, and their timesteps [n].

    Args:
        latent: of photos, with a standard deviation of about 1.
        seen, twin: how much of them the loop's start covers (`balls_seen`); the same without some details.
        lot: [n], in [0, 1): which are blurred, begun, bare or whole.
        timesteps: [n], in [0, 1000).
    """
    blurred, begun = lot < _P_BLURRED, (lot >= _P_BLURRED) & (lot < _P_BLURRED + _P_BEGUN)
    first, last = levels.begun
    earlier = first + timesteps * (last - first) // 1000
    timesteps = torch.where(blurred, timesteps.clamp(min=levels.blurred_from), timesteps)
    timesteps = torch.where(begun | _is_bare(lot), earlier, timesteps)
    shown = torch.where(blurred[:, None, None, None], as_a_field_begins(latent, g), latent)
    begins = as_the_loop_begins(latent, seen.float() / 255, g)
    shown = torch.where(begun[:, None, None, None], begins, shown)
    bare = _is_bare(lot)[:, None, None, None]
    return torch.where(bare, as_details_begin(latent, twin, g), shown), timesteps


def balls_seen(truths: list[dict], size: int, work: Path) -> Tensor:
    """Return how much of each pixel the loop's start covers in every photo, uint8 [n, size, size]; cached."""
    cache = work / f"balls_{len(truths)}_{size}.pt"
    if not cache.exists():
        half = PROFILE.half_size
        parts = [Part(half * np.array([0, y, 0]), half * np.array(r), np.eye(3), (0, 0, 0)) for y, r in BALLS]
        lens = ("azimuth_deg", "elevation_deg", "fov_deg", "aside")
        cameras = (photo_camera(*(truth[key] for key in lens), size=size) for truth in truths)
        seen = np.stack([coverage_map(parts, camera) for camera in cameras])
        save(torch.from_numpy((255 * seen).astype(np.uint8)), cache)
    return torch.load(cache, weights_only=True)


def as_a_field_begins(latent: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, c, h, w] of photos as an unfinished voxel field would show them.

    Each by its own draw: they are blurred, by little or until nothing is left but a blob, and half of them
    fade into their backdrop.
    """
    draw = _draws(latent, generator)
    near = _soft(latent, 3)
    far = _soft(near, 7)
    much = 2 * draw()
    shown = torch.lerp(torch.lerp(latent, near, much.clamp(max=1)), far, (much - 1).clamp(min=0))
    backdrop = _wall(latent)
    return torch.lerp(shown, backdrop, (1.6 * draw() - 0.8).clamp(min=0))


def as_the_loop_begins(latent: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, c, h, w] of photos as the loop's start shows them, or on the way from there.

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
    backdrop = _wall(latent)
    begun = torch.lerp(backdrop, color.expand_as(latent), cover * (0.4 + 0.6 * draw()))
    near = _soft(latent, 3)
    far = _soft(near, 7)
    shown = torch.lerp(begun, torch.lerp(near, far, draw()), (1.6 * draw() - 0.6).clamp(min=0))
    return shown + 0.05 * draw() * torch.randn(latent.shape, generator=generator).to(latent)


def as_details_begin(latent: Tensor, without: Tensor, generator: torch.Generator) -> Tensor:
    """Return latents [n, c, h, w] of photos whose details are not there yet, or faint, half of them blurred.

    Args:
        without: the same photos without some details.
    """
    draw = _draws(latent, generator)
    shown = torch.lerp(without, latent, (1.5 * draw() - 0.5).clamp(min=0))
    return torch.lerp(shown, _soft(shown, 3), (2 * draw() - 1).clamp(min=0))


def _draws(latent: Tensor, generator: torch.Generator) -> Callable[[], Tensor]:
    """Return what draws a number in [0, 1) for each of the latents, [n, 1, 1, 1]."""
    return lambda: torch.rand((len(latent), 1, 1, 1), generator=generator).to(latent)


def _soft(pictures: Tensor, width: int) -> Tensor:
    """Return pictures blurred over so many of 32 pixels, to the next odd number of their own."""
    return box_blur(pictures, width * pictures.shape[-1] // 32 | 1)


def _wall(pictures: Tensor) -> Tensor:
    """Return what is at the sides of pictures, over two of 32 pixels."""
    return beside(pictures, max(1, pictures.shape[-1] // 16))


def _is_bare(lot: Tensor) -> Tensor:
    return lot >= 1 - _P_BARE
