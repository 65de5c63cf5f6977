"""Which part of a density is the object, and its surface: level, component, marching cubes, smoothing.

Fog and backdrops that a run painted on the walls of its grid are no object: what touches the walls is
not taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from voxnerf.rays import camera_rays, intersect_box
from voxnerf.snapshot import Snapshot

if TYPE_CHECKING:
    from voxnerf.grid import VoxelGrid

OPAQUE = 0.5
_N_LEVELS = 48
_LOWEST_LEVEL, _FIRST_QUANTILE = 1e-3, 0.01
_LEAST_OVERLAP = 0.1  # of a part that stands free with what the pictures show; less is a speck
_BLUR_VOXELS = 0.7  # what is thinner is noise of the optimisation: spikes on every surface
_TAUBIN = {"lamb": 0.5, "nu": 0.53, "iterations": 10}


class NoMeshError(RuntimeError):
    """The field has no surface that is an object; the message says what was found and what to try."""


@dataclass(frozen=True)
class Solid:
    """Hold the object as voxels: the largest component of what is denser than a level.

    Attributes:
        raw: float32 [z, y, x], the field's values before its softplus, a little blurred.
        inside: bool [z, y, x], the component with its inner cavities filled.
        level: density of the surface, per scene unit.
        dropped_parts, dropped_share: the other components, and their share of the voxels above the level.
        touches_walls: it is, or is a part of, what the run painted on the walls of the grid.
    """

    raw: np.ndarray
    inside: np.ndarray
    level: float
    dropped_parts: int
    dropped_share: float
    touches_walls: bool

    @property
    def signed(self) -> np.ndarray:
        """Return values [z, y, x] whose 0 is the surface: `raw` over the level's, positive inside.

        Cavities are inside, and other parts outside.
        """
        values = self.raw - np.float32(_inverse_softplus(self.level))
        values = np.where(self.inside & (values <= 0), np.float32(1), values)
        return np.where(~self.inside & (values > 0), np.float32(-1), values)


def find_solid(grid: VoxelGrid, snapshots: Sequence[Snapshot], level: float | None = None) -> Solid:
    """Find the object in a field.

    Without a `level` it is the one, out of 48, at which the largest component has the silhouettes that agree
    best with the rendered opacities above 0.5 (intersection over union, all snapshots together), among those
    at which that component does not touch the walls.

    Raises:
        NoMeshError: no picture has an opaque pixel, nothing is above the level, or at every level what is
            largest touches the walls.
    """
    raw = _raw_density(grid)
    if level is not None:
        return _solid(raw, level)
    opaque = np.concatenate([s.opacity_of_rays.ravel() > OPAQUE for s in snapshots])
    if not opaque.any():
        raise nothing_found("no picture has a pixel of opacity above 0.5")
    voxels = np.concatenate([_voxels_on_rays(grid, s) for s in snapshots])
    peaks = np.append(raw.ravel(), -np.inf)[voxels].max(1)
    lowest, highest = _softplus(np.quantile(peaks[opaque], [_FIRST_QUANTILE, 1])).clip(_LOWEST_LEVEL)
    levels = np.geomspace(0.99 * lowest, highest, _N_LEVELS, endpoint=False)
    matters = opaque | (_softplus(peaks) >= lowest)  # what other rays meet is below every level
    voxels, opaque = voxels[matters], opaque[matters]
    best_overlap = 0.0
    for candidate in levels:
        largest, _ = _largest_part(raw, candidate)
        if touches_walls(largest):
            continue
        covered = np.append(largest.ravel(), False)[voxels].any(1)
        overlap = (covered & opaque).sum() / (covered | opaque).sum()
        if overlap > best_overlap:
            level, best_overlap = float(candidate), overlap
    if level is None or best_overlap < _LEAST_OVERLAP:
        raise _crate(levels, best_overlap)
    return _solid(raw, level)


def _solid(raw: np.ndarray, level: float) -> Solid:
    from scipy.ndimage import binary_fill_holes

    largest, sizes = _largest_part(raw, level)
    dropped = 1 - sizes.max() / sizes.sum()
    inside = binary_fill_holes(largest)
    return Solid(raw, inside, level, len(sizes) - 1, float(dropped), touches_walls(inside))


def _largest_part(raw: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest component of what is denser than a level, bool [z, y, x], and the sizes of all."""
    from scipy.ndimage import label

    parts, n_parts = label(raw > _inverse_softplus(level))
    if not n_parts:
        raise nothing_found(
            f"no voxel is denser than {level:.3g}; the densest has {_softplus(raw.max()):.3g}"
        )
    sizes = np.bincount(parts.ravel())[1:]
    return parts == 1 + sizes.argmax(), sizes


def touches_walls(inside: np.ndarray) -> bool:
    """Say whether voxels [z, y, x] reach the outermost layer, or on all six sides the one before it."""
    sides = [np.moveaxis(inside, axis, 0) for axis in range(3)]
    outermost = any(side[i].any() for side in sides for i in (0, -1))
    return outermost or all(side[i].any() for side in sides for i in (1, -2))


def surface(solid: Solid, half_size: float, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the solid's smoothed surface: vertices float32 [n, 3] in scene units, faces int64 [m, 3].

    Marching cubes, Taubin's smoothing (SIGGRAPH 1995: it does not shrink), and edge collapses until there
    are at most `n_faces`.
    """
    from skimage.measure import marching_cubes

    values = solid.signed
    # Two layers around it keep a surface closed that touches the walls.
    padded = np.pad(values, 1, constant_values=min(-1.0, values.min()))
    vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="descent")
    edge = 2 * half_size / len(solid.raw)
    # Volume axes are z, y, x; a value sits at its voxel's centre, and the padding adds one voxel.
    return smoothed(((vertices - 1 + 0.5) * edge - half_size)[:, ::-1], faces, n_faces)


def smoothed(vertices: np.ndarray, faces: np.ndarray, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a surface after Taubin's smoothing and edge collapses, with at most `n_faces` triangles."""
    import fast_simplification
    import trimesh
    from trimesh.smoothing import filter_taubin

    mesh = trimesh.Trimesh(vertices, faces, process=True)
    filter_taubin(mesh, **_TAUBIN)
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    if len(faces) > n_faces:
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=n_faces)
    return vertices.astype(np.float32), faces.astype(np.int64)


def _voxels_on_rays(grid: VoxelGrid, snapshot: Snapshot) -> np.ndarray:
    """Return the flat numbers of the voxels that the rays of a snapshot meet, int32 [rays, samples].

    Where a ray is outside the box the number is that of a voxel after the last.
    """
    device, resolution = grid.density.device, grid.config.resolution
    origin, directions = camera_rays(snapshot.camera, device)
    enter, leave = intersect_box(origin, directions, grid.aabb)
    share = (torch.arange(2 * resolution, device=device) + 0.5) / (2 * resolution)
    dists = enter[:, None] + share * (leave - enter)[:, None]
    scale, shift = grid.config.to_voxels
    points = (origin + directions[:, None] * dists[..., None]) * scale + shift
    x, y, z = points.round().long().clamp(0, resolution - 1).unbind(-1)
    number = (z * resolution + y) * resolution + x
    return number.masked_fill((leave <= enter)[:, None], resolution**3).int().cpu().numpy()


@torch.no_grad()
def _raw_density(grid: VoxelGrid) -> np.ndarray:
    """Return the field before its softplus, blurred; the renderer, too, interpolates before the softplus."""
    from scipy.ndimage import gaussian_filter

    raw = grid.before_softplus(grid.density[0, 0]).float().cpu().numpy()
    return gaussian_filter(raw, _BLUR_VOXELS, mode="nearest")


def _softplus(raw):
    return np.logaddexp(0.0, raw)


def _inverse_softplus(density: float) -> float:
    return density + np.log(-np.expm1(-density))


def nothing_found(found: str) -> NoMeshError:
    """Return the error that there is no object to make a mesh of."""
    return NoMeshError(
        f"a mesh needs an opaque object. Here {found}. Lower --emptiness_weight, raise --guidance or "
        "--n_steps, or try another --seed."
    )


def _crate(levels: np.ndarray, overlap: float) -> NoMeshError:
    speck = f", or is a speck (IoU {overlap:.2f} with the pictures)" if overlap else ""
    return NoMeshError(
        "a mesh needs an object that stands free of the walls of the grid. Here, at every level from "
        f"{levels.min():.3g} to {levels.max():.3g}, the largest part touches them{speck}: the background is "
        "painted on the walls, and the mesh would be a crate. Make the run again with --background seamless, "
        "a larger --background_lr or a larger --emptiness_weight; or choose a level by hand: "
        "python -m sjc_debiased.export RUN --level NUMBER."
    )
