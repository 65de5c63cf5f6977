"""From a voxel grid to a mesh: an automatic level, marching cubes, colors from decoded views.

The field's colors are latents, so a vertex has no color of its own: it takes that of the decoded views
that see it, the more head-on a view the more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxnerf.cameras import Camera, orbit_camera
from voxnerf.grid import VoxelGrid
from voxnerf.rays import camera_rays, intersect_box
from voxnerf.render import render, render_antialiased

_OPAQUE = 0.5
_SMALLEST_PART = 0.10  # parts below this share of the largest one are floaters
_VIEWS = [(a, e) for e in (-5.0, 20.0, 50.0) for a in range(0, 360, 30)] + [(0.0, 80.0), (180.0, 80.0)]


class EmptyMeshError(RuntimeError):
    """The field holds nothing opaque; the message says what to try."""


@dataclass(frozen=True)
class Mesh:
    """Hold a colored triangle mesh in the field's own axes (y up, front towards -x).

    Attributes:
        vertices: float32 [n, 3], scene units. normals: float32 [n, 3], unit length, outwards.
        faces: int64 [m, 3]. colors_u8: uint8 [n, 3].
        level: the density of the surface, per scene unit.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    colors_u8: np.ndarray
    level: float

    def save(self, path: Path) -> None:
        """Write GLB, PLY or OBJ by the file's ending, turned so that the front looks along +z (glTF).

        The bytes depend on the mesh alone.
        """
        import trimesh

        turn = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], dtype=np.float32)
        trimesh.Trimesh(
            self.vertices @ turn.T,
            self.faces,
            vertex_normals=self.normals @ turn.T,
            vertex_colors=self.colors_u8,
            process=False,
        ).export(path)


def extract_mesh(
    grid: VoxelGrid, decode: Callable[[Tensor], Tensor], size: int, level: float | None = None
) -> Mesh:
    """Extract the surface of the field and color it.

    Args:
        decode: latent [1, c, h, w] -> RGB image in [-1, 1].
        size: pixels of the latent views that color it.
        level: density of the surface; by default the one of `best_level`.

    Raises:
        EmptyMeshError: no view has an opaque pixel, or nothing is left at the level.
    """
    from scipy.ndimage import label
    from skimage.measure import marching_cubes

    level = best_level(grid, size) if level is None else level
    volume = _density_volume(grid)
    parts, n_parts = label(volume > level)
    sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)[1:]
    if not len(sizes):
        raise _empty(f"no voxel is denser than {level:.3g}")
    floaters = 1 + np.flatnonzero(sizes < _SMALLEST_PART * sizes.max())
    volume = np.where(np.isin(parts, floaters), 0.0, volume)
    padded = np.pad(volume, 1)
    vertices, faces, normals, _ = marching_cubes(padded, level, gradient_direction="descent")
    edge = 2 * grid.config.half_size / grid.config.resolution
    # Volume axes are z, y, x; a value sits at its voxel's centre, and the padding adds one voxel.
    vertices = ((vertices - 1 + 0.5) * edge - grid.config.half_size)[:, ::-1].astype(np.float32)
    normals, faces = normals[:, ::-1].astype(np.float32), faces.astype(np.int64)
    colors = _vertex_colors(grid, decode, size, vertices, normals)
    return Mesh(vertices, normals, faces, colors, level)


@torch.no_grad()
def best_level(grid: VoxelGrid, size: int) -> float:
    """Return the density whose silhouettes agree best with what the renderer shows as opaque.

    A surface at level L covers the pixels whose ray meets a density above L. The level chosen, out of
    64, has the largest overlap (intersection over union) of these pixels with those of opacity > 0.5,
    summed over 8 views.

    Raises:
        EmptyMeshError: no view has an opaque pixel.
    """
    peaks, opaque = [], []
    for azimuth_deg in range(0, 360, 45):
        camera = orbit_camera(azimuth_deg, 15.0, size, size)
        opaque.append(render(grid, camera).opacity.flatten() > _OPAQUE)
        peaks.append(_peak_density(grid, camera))
    peak, mask = torch.cat(peaks), torch.cat(opaque)
    if not mask.any():
        raise _empty("no view has a pixel of opacity above 0.5")
    levels = torch.quantile(peak[mask], torch.linspace(0, 0.9, 64, device=peak.device))
    covered = peak > levels[:, None]
    overlap = (covered & mask).sum(1) / (covered | mask).sum(1)
    return float(levels[overlap.argmax()].clamp(min=1e-3))


def _peak_density(grid: VoxelGrid, camera: Camera) -> Tensor:
    """Return the largest density along each ray, [height * width]."""
    origin, directions = camera_rays(camera, grid.density.device)
    enter, leave = intersect_box(origin, directions, grid.aabb)
    share = torch.linspace(0, 1, 2 * grid.config.resolution, device=enter.device)
    dists = enter[:, None] + share * (leave - enter).clamp(min=0)[:, None]
    density = grid.density_at((origin + directions[:, None] * dists[..., None]).flatten(0, 1))
    return density.view(dists.shape).amax(1) * (leave > enter)


@torch.no_grad()
def _density_volume(grid: VoxelGrid) -> np.ndarray:
    raw = grid.density[0, 0] * grid.log_density_scale.exp() + grid.config.density_shift
    return torch.nn.functional.softplus(raw).cpu().numpy()


@torch.no_grad()
def _vertex_colors(
    grid: VoxelGrid,
    decode: Callable[[Tensor], Tensor],
    size: int,
    vertices: np.ndarray,
    normals: np.ndarray,
) -> np.ndarray:
    """Average the decoded views over those that see a vertex; the unseen take their nearest's color."""
    from scipy.spatial import cKDTree

    total = np.zeros((len(vertices), 3))
    weight = np.zeros(len(vertices))
    tolerance = 6 * grid.config.half_size / grid.config.resolution
    for azimuth_deg, elevation_deg in _VIEWS:
        camera = orbit_camera(azimuth_deg, elevation_deg, size, size)
        picture = render_antialiased(grid, camera, upscale=2)
        image = decode(picture.latent)[0].permute(1, 2, 0).cpu().numpy()
        depth = picture.depth.cpu().numpy()
        eye = camera.c2w[:3, 3]
        local = (vertices - eye) @ camera.c2w[:3, :3]
        dist = np.linalg.norm(vertices - eye, axis=1)
        facing = ((eye - vertices) * normals).sum(1) / np.maximum(dist, 1e-9)
        u = camera.intrinsics[0, 0] * local[:, 0] / -local[:, 2] - camera.intrinsics[0, 2]
        v = camera.intrinsics[1, 1] * local[:, 1] / -local[:, 2] - camera.intrinsics[1, 2]
        here_depth = _sample(depth[..., None], u, v, size)[:, 0]
        seen = (facing > 0.1) & (local[:, 2] < 0) & (dist < here_depth + tolerance)
        inside = (u > -0.5) & (u < size - 0.5) & (v > -0.5) & (v < size - 0.5)
        share = np.where(seen & inside, facing, 0.0) ** 3
        total += share[:, None] * _sample(image, u, v, size)
        weight += share
    known = weight > 1e-6
    if not known.any():
        raise _empty("no view sees its surface")
    colors = total[known] / weight[known, None]
    nearest = cKDTree(vertices[known]).query(vertices)[1]
    return ((colors[nearest] + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


def _sample(picture: np.ndarray, u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """Return the pixels [n, c] of a picture [h, w, c] at coordinates of a camera of `size` pixels."""
    scale = picture.shape[0] / size
    columns = np.clip(((u + 0.5) * scale).astype(int), 0, picture.shape[1] - 1)
    rows = np.clip(((v + 0.5) * scale).astype(int), 0, picture.shape[0] - 1)
    return picture[rows, columns]


def _empty(found: str) -> EmptyMeshError:
    return EmptyMeshError(
        f"a mesh needs an opaque object. Here {found}. Lower --emptiness_weight, raise --guidance or "
        "--n_steps, or try another --seed."
    )
