"""Render a voxel grid: rays in, one latent picture with its depth and weights out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnerf.cameras import Camera
from voxnerf.grid import VoxelGrid
from voxnerf.rays import camera_rays, intersect_box
from voxnerf.volrend import compositing_weights

WEIGHT_THRESHOLD = 1e-4  # samples below it get no color (SJC's ray_march_weight_thres)
BACKGROUND_DIST = 10.0


@dataclass(frozen=True)
class Rendering:
    """Hold one rendered view.

    Attributes:
        latent: [1, channels, height, width].
        depth: [height, width], expected distance along the ray; the background counts as 10.
        opacity: [height, width], 1 - what is left for the background.
        weights: [n_samples, n_rays]; samples outside the box are zero.
    """

    latent: Tensor
    depth: Tensor
    opacity: Tensor
    weights: Tensor


def render(grid: VoxelGrid, camera: Camera) -> Rendering:
    """Render one view with SJC's ray marching: equal steps, left edges, no jitter.

    The number of samples is that of the longest passage through the box, int(longest / step) + 1; a
    sample counts while its distance from the entrance is below the ray's passage.
    """
    origin, directions = camera_rays(camera, grid.density.device)
    latent, depth, opacity, weights = _march(grid, origin, directions)
    shape = camera.height, camera.width
    return Rendering(latent.T.reshape(1, -1, *shape), depth.reshape(shape), opacity.reshape(shape), weights)


@torch.no_grad()
def render_antialiased(
    grid: VoxelGrid, camera: Camera, subpixels: int = 4, upscale: int = 1, rays_per_chunk: int = 4096
) -> Rendering:
    """Render `subpixels` x `subpixels` rays per pixel of `camera` and average them down.

    The picture has `upscale` times the camera's size; the weights are left out (empty). Source: SJC's
    high-resolution script, which does the same with 4 x 4 rays and an antialiased bilinear resize.
    """
    fine = camera.resized(subpixels)
    origin, directions = camera_rays(fine, grid.density.device)
    parts = [_march(grid, origin, d)[:3] for d in directions.split(rays_per_chunk)]
    latent, depth, opacity = (torch.cat(p) for p in zip(*parts))
    stacked = torch.cat([latent, depth[:, None], opacity[:, None]], dim=1)
    picture = stacked.T.reshape(1, -1, fine.height, fine.width)
    size = camera.height * upscale, camera.width * upscale
    small = F.interpolate(picture, size, mode="bilinear", antialias=True)
    empty = small.new_zeros(0, size[0] * size[1])
    return Rendering(small[:, :-2], small[0, -2], small[0, -1], empty)


def _march(grid: VoxelGrid, origin: Tensor, directions: Tensor) -> tuple[Tensor, ...]:
    """Return latent [n, c], depth [n], opacity [n] and weights [k, n] of n rays from one origin."""
    step_size = grid.config.step_size
    enter, leave = intersect_box(origin, directions, grid.aabb)
    passage = leave - enter
    n_samples = max(int(passage.max() / step_size), 0) + 1
    travelled = torch.arange(n_samples, device=enter.device)[:, None] * step_size
    dists = enter + travelled
    counts = travelled < passage
    points = origin + directions * dists[..., None]

    density = torch.zeros_like(dists)
    density[counts] = grid.density_at(points[counts])
    weights, remaining = compositing_weights(density, step_size)

    visible = weights > WEIGHT_THRESHOLD
    colors = grid.color_at(points[visible]) * weights[visible][:, None]
    ray_of = visible.nonzero()[:, 1]
    latent = torch.zeros_like(directions[:, :1]).expand(-1, colors.shape[1])
    latent = latent.index_add(0, ray_of, colors) + remaining[:, None] * grid.background_at(directions)
    depth = (weights * dists).sum(dim=0) + remaining * BACKGROUND_DIST
    return latent, depth, 1 - remaining, weights
