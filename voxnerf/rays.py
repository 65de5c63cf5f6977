"""Rays: from pixels into the scene, and through its box."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from voxnerf.cameras import Camera

_PARALLEL = 1e-6  # SJC's stand-in for a direction component that is exactly zero


def camera_rays(
    camera: Camera, device: torch.device | str = "cpu"
) -> tuple[Float[Tensor, "3"], Float[Tensor, "n 3"]]:
    """Return the origin and the unit directions of the rays through all pixel centres.

    Pixels are in row-major order. The arithmetic is float64 until the last line, as in SJC.

    Returns:
        origin float32 [3], directions float32 [height * width, 3].
    """
    place = torch.device("cpu" if torch.device(device).type == "mps" else device)  # Metal has no float64
    to_world = camera.c2w[:3, :3] @ np.linalg.inv(camera.intrinsics)
    sent = to_device(np.concatenate([to_world.T, camera.c2w[None, :3, 3]]), place)
    directions = _pixels(camera.height, camera.width, place) @ sent[:3]
    directions = directions / directions.norm(dim=1, keepdim=True)
    return sent[3].float().to(device), directions.float().to(device)


@lru_cache(maxsize=8)
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """Return the homogeneous pixel coordinates (column, row, 1), float64 [height * width, 3]."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return torch.from_numpy(np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)], axis=1)).to(device)


def to_device(array: Shaped[np.ndarray, "*shape"], device: torch.device | str) -> Shaped[Tensor, "*shape"]:
    """Return an array as a tensor on a device; the host does not wait for a GPU to take it."""
    tensor = torch.from_numpy(array)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def intersect_box(
    origin: Float[Tensor, "3"], directions: Float[Tensor, "n 3"], aabb: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return the distances at which rays enter and leave the box (the slab method).

    Both are clamped to >= 0, so a camera inside the box starts at itself; a ray that misses has
    leave <= enter.

    Args:
        origin: [3]. directions: [n, 3], unit length. aabb: [2, 3], lower and upper corner.
    """
    safe = torch.where(directions == 0, torch.full_like(directions, _PARALLEL), directions)
    to_lower, to_upper = (aabb[0] - origin) / safe, (aabb[1] - origin) / safe
    enter = torch.minimum(to_lower, to_upper).amax(dim=1).clamp(min=0)
    leave = torch.maximum(to_lower, to_upper).amin(dim=1).clamp(min=0)
    return enter, leave
