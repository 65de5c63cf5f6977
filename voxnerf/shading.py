"""Normals of a density on a grid, and light on them. Pure functions of voxels, [1, channels, z, y, x].

Vectors are (x, y, z) along the channels. Source: DreamFusion (arXiv:2209.14988 Sec. 3.1), which shades with
n = -grad density, normalised; here by central differences of the grid, so that everything is of first order:
no gradient of a gradient is taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_FLAT = 1e-3  # per voxel: what changes by less has no direction in which it falls


def voxel_centers(resolution: int, half_size: float) -> Float[Tensor, "1 3 z y x"]:
    """Return where the voxels of the box [-half_size, half_size]^3 are, [1, 3, z, y, x]."""
    along = ((torch.arange(resolution) + 0.5) * 2 / resolution - 1) * half_size
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")
    return torch.stack([x, y, z])[None]


def normals(raw: Float[Tensor, "1 1 z y x"]) -> Float[Tensor, "1 3 z y x"]:
    """Return where the density falls: -g / sqrt(|g|^2 + 0.001^2), g the central difference per voxel.

    It is taken before the softplus, which the renderer, too, applies after interpolating; a softplus turns no
    gradient. On the walls of the grid the difference is one-sided. The length is 1 where there is a surface,
    and 0 where the density is even.

    Args:
        raw: a value that rises with the density, [1, 1, z, y, x], at least 2 voxels along an axis.

    Returns:
        [1, 3, z, y, x].
    """
    z, y, x = torch.gradient(raw[0, 0])
    slope = torch.stack([x, y, z])[None]
    return -slope / (_dot(slope, slope) + _FLAT**2).sqrt()


def lambert(
    normal: Float[Tensor, "1 3 z y x"],
    places: Float[Tensor, "1 3 z y x"],
    lamp: Float[Tensor, "3"],
    ambient: float,
    diffuse: float,
) -> Float[Tensor, "1 1 z y x"]:
    """Return the light on voxels, ambient + diffuse * max(0, normal . to_lamp), [1, 1, z, y, x].

    Args:
        normal, places: [1, 3, z, y, x]. lamp: its position, [3].
    """
    return ambient + diffuse * _dot(normal, _towards(places, lamp)).clamp(min=0)


def turned_away(
    normal: Float[Tensor, "1 3 z y x"], places: Float[Tensor, "1 3 z y x"], eye: Float[Tensor, "3"]
) -> Float[Tensor, "1 1 z y x"]:
    """Return max(0, normal . ray)^2, the ray running from the eye to the voxel: [1, 1, z, y, x].

    It is what Ref-NeRF's orientation loss (arXiv:2112.03907 Eq. 11) charges a visible voxel with.
    """
    return (-_dot(normal, _towards(places, eye))).clamp(min=0).square()


def _towards(places: Tensor, point: Tensor) -> Tensor:
    way = point.to(places.dtype).view(1, 3, 1, 1, 1) - places
    return way / _dot(way, way).sqrt().clamp(min=1e-6)  # torch's norm over channels takes many times as long


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)
