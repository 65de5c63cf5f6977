"""The scene: a voxel grid of density and latent color, and a background on the sphere.

Source: SJC's voxel radiance field. A value sits at its voxel's centre; outside the box lies zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from voxnerf.cameras import Camera
from voxnerf.field import Rendering
from voxnerf.lights import Light
from voxnerf.mesh import Mesh, extract_mesh
from voxnerf.render import render, render_antialiased
from voxnerf.settings import EMPTINESS_SCALE, N_FACES, TEXTURE_SIZE, GridConfig, Kernel
from voxnerf.snapshot import Snapshot

BLOB_RADIUS = 0.58  # of half_size: where a blob's raw density falls to 0
_BLOBS = {"blob": (4.0, BLOB_RADIUS), "dreamfusion": (10.0, 0.5)}  # the middle's, and where it falls to 0
BALLS = ((0.23, (0.45, 0.45, 0.45)), (-0.38, (0.36, 0.52, 0.36)))  # heights and radii, of half_size
_BALLS_SLOPE, _BALLS_EDGE = 16.0, 1.1  # where raw density falls to 0, in their radii


class VoxelGrid(nn.Module):
    """Hold the parameters of one scene; a `Field`, whose colors are latents or what else the 2D model sees.

    Attributes:
        density: [1, 1, z, y, x], before the softplus; at the start 0, a uniform fog of 0.31326, or a blob.
        color: [1, channels, z, y, x], latent values; N(color_mean, color_scale^2) at the start. No view
            dependence. In memory the channels of a voxel lie together.
        background: [1, channels, background_size, background_size]; N(background_mean, color_scale^2) there.
        log_density_scale: scalar; 0 at the start.
        aabb: corners of the box, [2, 3].
        kernel: how rays are marched through it (`march.kernel_for`).
    """

    rgb = False

    def __init__(self, config: GridConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.kernel: Kernel = "auto"
        r, c, b = config.resolution, config.channels, config.background_size
        self.density: Tensor = nn.Parameter(_first_density(config))
        color = first_mean("color_mean", config) + config.color_scale * torch.randn(
            1, c, r, r, r, generator=generator
        )
        self.color: Tensor = nn.Parameter(color.contiguous(memory_format=torch.channels_last_3d))
        wall = config.color_scale * torch.randn(1, c, b, b, generator=generator)
        self.background = nn.Parameter(first_mean("background_mean", config)[..., 0] + wall)
        self.log_density_scale = nn.Parameter(torch.tensor(0.0))
        half = config.half_size
        self.aabb: Tensor
        self.register_buffer("aabb", torch.tensor([[-half] * 3, [half] * 3]), persistent=False)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Return the fused kernel of its device, then all others."""
        return ("triton", "numba", "torch") if self.density.is_cuda else ("numba", "triton", "torch")

    def render(self, camera: Camera, emptiness_scale: float = EMPTINESS_SCALE) -> Rendering:
        """Render one view with SJC's ray marching."""
        return render(self, camera, emptiness_scale)

    def render_fine(self, camera: Camera, subpixels: int = 4, upscale: int = 1) -> Rendering:
        """Render one view for the eye (`render_antialiased`)."""
        return render_antialiased(self, camera, subpixels, upscale)

    @torch.no_grad()
    def before_plain_wall(self) -> VoxelGrid:
        """Return a copy before its background's mean, seamless: the published mapping fades at a seam."""
        alone = deepcopy(self)
        alone.config = replace(self.config, background_mapping="seamless")
        alone.background.copy_(self.background.mean(dim=(2, 3), keepdim=True).expand_as(self.background))
        return alone

    def parameter_groups(self, lr: float, background_lr: float) -> list[dict]:
        """Return the optimiser's groups: the background learns at its own rate (SJC: 1e-4)."""
        own = [self.density, self.color, self.log_density_scale]
        return [{"params": own, "lr": lr}, {"params": [self.background], "lr": background_lr}]

    def to_mesh(
        self,
        snapshots: Sequence[Snapshot],
        level: float | None = None,
        n_faces: int = N_FACES,
        texture_size: int = TEXTURE_SIZE,
    ) -> Mesh:
        """Return the object's surface (`extract_mesh`)."""
        return extract_mesh(self, snapshots, level, n_faces, texture_size)

    def density_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Return the volume density per scene unit at points [n, 3] as [n]."""
        return F.softplus(self.before_softplus(self._lookup(self.density, points)[:, 0]))

    def before_softplus(self, raw: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Return what the softplus makes the volume density of, of values of `density`."""
        return raw * self.log_density_scale.exp() + self.config.density_shift

    def color_at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Return the latent color at points [n, 3] as [n, channels]."""
        return self._lookup(self.color, points)

    def color_on(
        self, points: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"] | None, light: Light | None
    ) -> Float[Tensor, "n channels"]:
        """Return what a surface through points [n, 3] shows there; on latents there is no light.

        Args:
            normal: the surface's at the points, unit length; None without a light.
        """
        return self.color_at(points)

    def background_at(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n channels"]:
        """Return the latent background seen in directions [n, 3] (unit length) as [n, channels]."""
        x, y, z = directions.unbind(-1)
        if self.config.background_mapping == "published":
            u, v = torch.atan2(torch.hypot(x, y), z), torch.atan2(y, x)
            texture, inner = self.background, 1.0
        else:
            u, v = torch.atan2(torch.hypot(x, z), y), torch.atan2(z, x)
            texture = F.pad(F.pad(self.background, (0, 0, 1, 1), "circular"), (1, 1, 0, 0), "replicate")
            inner = self.config.background_size / (self.config.background_size + 2)
        # u in [0, pi] runs along the texture's columns, v in [-pi, pi] along its rows.
        uv = inner * torch.stack([2 * u / math.pi - 1, v / math.pi], dim=-1)
        sampled = F.grid_sample(texture, uv[None, None], align_corners=False)
        return sampled[0, :, 0].T

    def _lookup(self, values: Tensor, points: Tensor) -> Tensor:
        where = (points / self.config.half_size)[None, None, None]
        return F.grid_sample(values, where, align_corners=False)[0, :, 0, 0].T


def first_mean(name: str, config: GridConfig) -> Tensor:
    """Return a mean of first colors, [1, channels, 1, 1, 1], or one zero [1, 1, 1, 1, 1] for all.

    Raises:
        ValueError: it has another number of channels.
    """
    mean = getattr(config, name)
    if mean and len(mean) != config.channels:
        raise ValueError(
            f"{name} must have a number for each of the {config.channels} channels. It has {len(mean)}. Give "
            f"{config.channels} numbers, or leave it out."
        )
    return torch.tensor(mean or (0.0,)).view(1, -1, 1, 1, 1)


def _first_density(config: GridConfig) -> Tensor:
    """Return the raw density of `GridConfig.start`, [1, 1, z, y, x]."""
    along = (torch.arange(config.resolution) + 0.5) * 2 / config.resolution - 1
    zyx = torch.stack(torch.meshgrid(along, along, along, indexing="ij"))
    if config.start == "fog":
        return torch.zeros_like(zyx[:1])[None]
    if config.start == "balls":
        balls = [(torch.tensor([0, y, 0]), _BALLS_EDGE * torch.tensor(radii)) for y, radii in BALLS]
        away = [((zyx - at.view(3, 1, 1, 1)) / size.view(3, 1, 1, 1)).norm(dim=0) for at, size in balls]
        return (_BALLS_SLOPE * (1 - torch.stack(away).amin(dim=0))).clamp(min=-4, max=8)[None, None]
    peak, at_zero = _BLOBS[config.start]
    return (peak * (1 - zyx.norm(dim=0) / at_zero)).clamp(min=-peak)[None, None]
