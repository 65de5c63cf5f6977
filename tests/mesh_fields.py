"""Fields whose mesh is known, and a decoder that only enlarges."""

from dataclasses import replace

import torch

from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.shaded_grid import ShadedGrid

RADIUS = 0.5


def axes(resolution):
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x, y, z


def ball(resolution=32, radius=RADIUS):
    """A ball, red where y > 0 and blue below, before a gray background."""
    x, y, z = axes(resolution)
    return field(40 * (radius - (x**2 + y**2 + z**2).sqrt()).clamp(-0.3, 0.3) / 0.3, y)


def field(density, y):
    """A field of this density, red where y > 0 and blue below, before a gray background."""
    grid = VoxelGrid(GridConfig(resolution=len(density), background_mapping="seamless"))
    with torch.no_grad():
        grid.density.copy_(density[None, None])
        grid.color.zero_()
        grid.color[0, 0] = torch.where(y > 0, 1.0, -1.0)
        grid.color[0, 2] = torch.where(y > 0, -1.0, 1.0)
        grid.background.zero_()
    return grid


def lit_ball(resolution=32, radius=RADIUS):
    """The same ball as a scene of RGB: its albedo is 0.8 red above and blue below, before a gray of 0.5."""
    grid = ball(resolution, radius)
    lit = ShadedGrid(replace(grid.config, channels=3))
    with torch.no_grad():
        lit.density.copy_(grid.density)
        lit.color.copy_(torch.where(grid.color[:, :3] > 0, 0.8, 0.1).logit())
        lit.background.zero_()
    return lit


def painted(grid, density, layers=2, walls=6, seed=0):
    """The same with fog of about this density painted on walls of the grid, as runs do it."""
    fog = torch.rand(grid.density.shape, generator=torch.Generator().manual_seed(seed)) + density
    inner = torch.ones(grid.density.shape, dtype=torch.bool)
    for wall in range(walls):
        inner.transpose(2, 2 + wall // 2)[:, :, slice(layers) if wall % 2 else slice(-layers, None)] = False
    with torch.no_grad():
        grid.density[~inner] = fog[~inner]
    return grid


def decode(latent):
    image = latent[:, :3].clamp(-1, 1)
    return torch.nn.functional.interpolate(image, scale_factor=2, mode="nearest")
