"""What the viewer shows: a field from any camera, its depth and opacity, and its surface at a level."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.seeing import decoder_of
from voxnerf.cameras import Camera, make_camera
from voxnerf.field import BACKGROUND_DIST, Field
from voxnerf.snapshot import take_snapshots

Kind = Literal["image", "depth", "opacity", "surface"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_LATTICE = 64  # points along each axis at which a surface is looked for
_SUBPIXELS = _UPSCALE = 2
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])  # ours looks down its own -z with y up, theirs down +z with y down


@runtime_checkable
class HasDensity(Protocol):
    """A field with a density in space, which has a surface at every level of it; `VoxelGrid` is one.

    Attributes:
        aabb: corners of the box outside which there is nothing, [2, 3].
    """

    aabb: Tensor

    def density_at(self, points: Tensor) -> Tensor:
        """Return the volume density per scene unit at points [n, 3] as [n]."""
        ...


def camera_of(
    position: np.ndarray, rotation: np.ndarray, fov: float, aspect: float, size: int
) -> Camera | None:
    """Return the camera of a browser's window, its longer side `size` pixels; None where there is none.

    Args:
        position: [3], scene units. rotation: camera to world, [3, 3], in OpenCV's axes.
        fov: vertical field of view in radians. aspect: width over height.
    """
    values = np.concatenate([np.ravel(position), np.ravel(rotation), [fov, aspect]])
    if not (np.isfinite(values).all() and 0.01 < fov < 3.1 and 0.05 < aspect < 20 and np.any(position)):
        return None
    height = max(1, round(size / max(aspect, 1.0)))
    width = max(1, round(height * aspect)) if aspect > 1 else max(1, round(size * aspect))
    horizontal_deg = float(np.rad2deg(2 * np.arctan(np.tan(fov / 2) * width / height)))
    azimuth_deg = float(np.rad2deg(np.arctan2(position[2], -position[0])))
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation @ _TO_OPENCV, position
    lens = make_camera(np.array([-1.0, 0.0, 0.0]), horizontal_deg, height, width, azimuth_deg)
    return replace(lens, c2w=c2w)


def opencv_pose(camera: Camera) -> tuple[np.ndarray, np.ndarray, float]:
    """Return rotation [3, 3] in OpenCV's axes, position [3], and vertical field of view in radians."""
    fov = 2 * np.arctan(camera.height / 2 / camera.intrinsics[0, 0])
    return camera.c2w[:3, :3] @ _TO_OPENCV, camera.c2w[:3, 3], float(fov)


def picture(field: Field, denoiser: Denoiser, camera: Camera, kind: Kind) -> np.ndarray:
    """Return what a camera sees of a field, uint8 [h, w, 3]: decoded colors, closeness, or opacity."""
    (seen,) = take_snapshots(field, decoder_of(field, denoiser), [camera], _SUBPIXELS, _UPSCALE)
    if kind == "image":
        return seen.image_u8
    if kind == "depth":
        dist = np.nan_to_num(seen.dist, nan=BACKGROUND_DIST).clip(0, BACKGROUND_DIST)
        values = 1 - np.log1p(dist) / np.log1p(BACKGROUND_DIST)
    else:
        values = seen.opacity
    return np.repeat((values * 255).astype(np.uint8)[..., None], 3, axis=2)


@torch.no_grad()
def densities(field: HasDensity) -> np.ndarray:
    """Return the density on a lattice over a field's box, corners included, [x, y, z]."""
    low, high = field.aabb
    along = [torch.linspace(float(a), float(b), _LATTICE, device=low.device) for a, b in zip(low, high)]
    points = torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).reshape(-1, 3)
    return field.density_at(points).reshape([_LATTICE] * 3).cpu().numpy()


def surface_at(field: HasDensity, level: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where the density crosses a level: vertices [n, 3], faces [m, 3]; None where it never does.

    It is the raw level set, specks and walls with it, without colors; the run's mesh is another, better one.
    """
    from skimage.measure import marching_cubes

    density = densities(field)
    if not density.min() < level < density.max():
        return None
    vertices, faces, _, _ = marching_cubes(density, level)
    low, high = field.aabb.cpu().numpy()
    return (low + vertices * (high - low) / (_LATTICE - 1)).astype(np.float32), faces.astype(np.uint32)
