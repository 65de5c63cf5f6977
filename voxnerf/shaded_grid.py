"""DreamFusion's scene on voxels: density and albedo, lit by a lamp; a background that is not."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from voxnerf.cameras import Camera
from voxnerf.field import EMPTINESS_SCALE, Rendering
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.lights import Light
from voxnerf.march import march
from voxnerf.rays import camera_rays, to_device
from voxnerf.render import render, render_antialiased
from voxnerf.shading import lambert, normals, turned_away, voxel_centers


class ShadedGrid(VoxelGrid):
    """Hold a scene of RGB colors, which a camera's light shades; a `Field`.

    Every voxel is lit once (`shading`), and the rays are marched through the lit colors. DreamFusion's code
    lights every sample; the two differ by the square of a voxel's edge.

    Attributes:
        color: [1, 3, z, y, x], the albedo before its sigmoid. background: the same of what is behind.
        places: the voxels' centres, [1, 3, z, y, x].
    """

    rgb = True

    def __init__(self, config: GridConfig, generator: torch.Generator | None = None):
        """Start a scene.

        Raises:
            ValueError: the config is not of three channels.
        """
        if config.channels != 3:
            raise ValueError(
                f"a lit scene has 3 channels, RGB. Received {config.channels}. Use GridConfig(channels=3)."
            )
        super().__init__(config, generator)
        self.places: Tensor
        self.register_buffer("places", voxel_centers(config.resolution, config.half_size), persistent=False)

    def render(self, camera: Camera, emptiness_scale: float = EMPTINESS_SCALE) -> Rendering:
        """Render one view, lit by the camera's light; RGB in [-1, 1].

        Its orientation is threestudio's: sum over samples of w * max(0, normal . ray)^2, over the number of
        rays that meet something. It moves normals alone: the weights w have no gradient.
        """
        normal = normals(self.density)
        seen = render(self._with_colors(self._lit(camera.light, normal)), camera, emptiness_scale)
        return replace(
            seen,
            latent=2 * seen.latent - 1,
            orientation=self._turned_away(camera, normal) / (seen.opacity > 0).sum().clamp(min=1),
        )

    @torch.no_grad()
    def render_fine(self, camera: Camera, subpixels: int = 4, upscale: int = 1) -> Rendering:
        """Render one view for the eye (`render_antialiased`), lit by the camera's light; RGB in [-1, 1]."""
        lit = self._with_colors(self._lit(camera.light, normals(self.density) if camera.light else None))
        seen = render_antialiased(lit, camera, subpixels, upscale)
        return replace(seen, latent=2 * seen.latent - 1)

    @torch.no_grad()
    def before_plain_wall(self) -> VoxelGrid:
        """Return a copy before its background's mean color."""
        alone = super().before_plain_wall()
        alone.background.copy_(
            self.background.sigmoid().mean((2, 3), keepdim=True).logit().expand_as(alone.background)
        )
        return alone

    def color_on(
        self, points: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"] | None, light: Light | None
    ) -> Float[Tensor, "n 3"]:
        """Return what a lit surface through points [n, 3] shows there, in [0, 1]; see `VoxelGrid`'s."""
        if light is None or normal is None:
            return self._lookup(self.color.sigmoid(), points)
        shine = _shine(normal.T[None, :, None, None], points.T[None, :, None, None], light)[0, :, 0, 0].T
        if light.textureless:
            return shine.expand_as(normal)
        return shine * self._lookup(self.color.sigmoid(), points)

    def background_at(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return the background's color in directions [n, 3] (unit length), in [0, 1], as [n, 3]."""
        return super().background_at(directions).sigmoid()

    def _lit(self, light: Light | None, normal: Tensor | None) -> Tensor:
        """Return the color that every voxel shows, in [0, 1], [1, 3, z, y, x]; the albedo without a light."""
        if light is None or normal is None:
            return self.color.sigmoid()
        shine = _shine(normal, self.places, light)
        return shine.expand_as(normal) if light.textureless else self.color.sigmoid() * shine

    def _turned_away(self, camera: Camera, normal: Tensor) -> Tensor:
        """Return the sum of w * max(0, normal . ray)^2 over all samples of w > 1e-4; only normals move it."""
        origin, directions = (t.to(normal.dtype) for t in camera_rays(camera, normal.device))
        charge = turned_away(normal, self.places, origin)
        return march(self._with_colors(charge, frozen=True), origin, directions, 0.0).latent.sum()

    def _with_colors(self, color: Tensor, frozen: bool = False) -> ShadedGrid:
        """Return this scene with colors that are computed, [1, channels, z, y, x]; it shares the rest.

        Args:
            frozen: the rest gets no gradient.
        """
        other = copy(self)
        shared = {name: p.detach() if frozen else p for name, p in self._parameters.items() if p is not None}
        other.__dict__["_parameters"] = shared | {"color": color}
        return other


def _shine(
    normal: Float[Tensor, "1 3 z y x"], places: Float[Tensor, "1 3 z y x"], light: Light
) -> Float[Tensor, "1 1 z y x"]:
    """Return how much of a light there is at places, in [0, 1]."""
    lamp = to_device(light.position.astype(np.float32), normal.device)
    return lambert(normal, places, lamp, light.ambient, light.diffuse)
