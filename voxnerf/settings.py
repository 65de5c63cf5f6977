"""What a field is told, with SJC's numbers.

Imports nothing, so that a command line has these numbers as its defaults before PyTorch is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackgroundMapping = Literal["published", "seamless"]
Start = Literal["fog", "blob", "balls", "dreamfusion"]
Kernel = Literal["auto", "torch", "numba", "triton"]

EMPTINESS_SCALE = 10.0
TEXTURELESS = 0.375  # of the views of a scene that is lit: DreamFusion's and Magic3D's
N_FACES, TEXTURE_SIZE = 20_000, 1024  # of a mesh, where nothing else is asked for
TURNTABLE_FRAMES = 72


@dataclass(frozen=True)
class GridConfig:
    """Size and conventions of a voxel grid.

    Attributes:
        resolution: voxels along each axis.
        half_size: the box is [-half_size, half_size]^3, in scene units.
        channels: latent channels.
        density_shift: density = softplus(grid * exp(log_density_scale) + density_shift).
        step_ratio: ray-marching step in voxel edges.
        background_size: texels along each axis of the background texture.
        background_mapping: "published" is SJC's: the sphere's pole is z although up is y, and the texture
            fades by half at its seam and poles. "seamless" puts the pole on y, wraps around the seam
            and repeats the border at the poles.
        start: the first density. "fog" is SJC's, raw density 0 everywhere. "blob" is a ball in the middle of
            nothing: raw density 4 (1 - r / (0.58 half_size)), at least -4, at distance r from the centre.
            "balls" is a head on a body (`grid.BALLS`): raw density 16 (1 - r / 1.1), in [-4, 8], at r radii
            from the centre of the nearer one.
            "dreamfusion" is threestudio's for DreamFusion and Magic3D: 10 (1 - r / (0.5 half_size)), here at
            least -10.
        color_scale: standard deviation of the first colors, of grid and background; 1 is SJC's.
        color_mean, background_mean: their means, a number for each channel; empty for SJC's, which is 0.
    """

    resolution: int = 100
    half_size: float = 1.0
    channels: int = 4
    density_shift: float = -1.0
    step_ratio: float = 0.5
    background_size: int = 4
    background_mapping: BackgroundMapping = "published"
    start: Start = "fog"
    color_scale: float = 1.0
    color_mean: tuple[float, ...] = ()
    background_mean: tuple[float, ...] = ()

    @property
    def step_size(self) -> float:
        """Return the ray-marching step in scene units."""
        return 2 * self.half_size / self.resolution * self.step_ratio

    @property
    def to_voxels(self) -> tuple[float, float]:
        """Return a and b: coordinate p lies at a * p + b, in voxels, whose centres are whole numbers."""
        return self.resolution / (2 * self.half_size), self.resolution / 2 - 0.5
