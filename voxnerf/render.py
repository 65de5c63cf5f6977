"""Render a voxel grid: rays in, one latent picture with its depth and weights out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnerf.cameras import Camera
from voxnerf.field import BACKGROUND_DIST, Rendering
from voxnerf.march import march
from voxnerf.rays import camera_rays
from voxnerf.settings import EMPTINESS_SCALE

if TYPE_CHECKING:
    from voxnerf.grid import VoxelGrid


def render(grid: VoxelGrid, camera: Camera, emptiness_scale: float = EMPTINESS_SCALE) -> Rendering:
    """Render one view with SJC's ray marching (`march` says how)."""
    origin, directions = camera_rays(camera, grid.density.device)
    latent, depth, opacity, emptiness = _shade(grid, origin, directions, emptiness_scale)
    shape = camera.height, camera.width
    return Rendering(latent.T.reshape(1, -1, *shape), depth.reshape(shape), opacity.reshape(shape), emptiness)


@torch.no_grad()
def render_antialiased(
    grid: VoxelGrid, camera: Camera, subpixels: int = 4, upscale: int = 1, rays_per_chunk: int = 4096
) -> Rendering:
    """Render `subpixels` x `subpixels` rays per pixel of `camera` and average them down.

    The picture has `upscale` times the camera's size; its emptiness is left out (NaN). Source: SJC's
    high-resolution script, which does the same with 4 x 4 rays and an antialiased bilinear resize.
    """
    fine = camera.resized(subpixels)
    origin, directions = camera_rays(fine, grid.density.device)
    parts = [_shade(grid, origin, d, 0.0)[:3] for d in directions.split(rays_per_chunk)]
    latent, depth, opacity = (torch.cat(p) for p in zip(*parts))
    stacked = torch.cat([latent, depth[:, None], opacity[:, None]], dim=1)
    picture = stacked.T.reshape(1, -1, fine.height, fine.width)
    size = camera.height * upscale, camera.width * upscale
    small = F.interpolate(picture, size, mode="bilinear", antialias=True)
    return Rendering(small[:, :-2], small[0, -2], small[0, -1], small.new_tensor(float("nan")))


def _shade(grid: VoxelGrid, origin: Tensor, directions: Tensor, emptiness_scale: float) -> tuple[Tensor, ...]:
    """Put the background behind what the rays meet: latent [n, c], depth [n], opacity [n], emptiness."""
    origin, directions = origin.to(grid.density.dtype), directions.to(grid.density.dtype)
    seen = march(grid, origin, directions, emptiness_scale)
    latent = seen.latent + seen.remaining[:, None] * grid.background_at(directions)
    depth = seen.depth + seen.remaining * BACKGROUND_DIST
    return latent, depth, 1 - seen.remaining, seen.emptiness
