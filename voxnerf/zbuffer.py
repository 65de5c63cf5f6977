"""A small software rasteriser: which triangle does each pixel show, and where on it.

Plain numpy, for checks, pictures and baking; nothing here has a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_NEAR = 0.01
_CANDIDATES = 2**22  # pixels x triangles that are tried at a time, which bounds the memory


class Shown(NamedTuple):
    """What the pixels of a picture show.

    Attributes:
        face: int64 [height, width], the number of the nearest triangle, -1 where there is none.
        shares: float32 [height, width, 3], of the triangle's corners, perspective-correct; they add up to 1.
        z: float32 [height, width], distance along the viewing axis; inf where there is no triangle.
    """

    face: np.ndarray
    shares: np.ndarray
    z: np.ndarray

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Return a vertex attribute [n, c] at the pixels that show a triangle, [k, c] in row-major order."""
        hit = self.face >= 0
        return (values[faces[self.face[hit]]] * self.shares[hit][..., None]).sum(1)


def rasterize(pixels: np.ndarray, z: np.ndarray, faces: np.ndarray, height: int, width: int) -> Shown:
    """Find the nearest triangle at every pixel centre.

    Depth is compared by 1 / z, which is linear on the screen. Triangles that reach behind the camera are
    left out; both sides of a triangle are shown.

    Args:
        pixels: [n, 2], column and row of the vertices; pixel centres are whole numbers.
        z: [n], distance of the vertices along the viewing axis. faces: [m, 3].
    """
    near = np.zeros(height * width)
    face = np.full(height * width, -1, dtype=np.int64)
    corners, inv_z = pixels[faces].astype(np.float64), 1 / np.maximum(z[faces], _NEAR)
    size = np.array([width, height])
    low = np.clip(np.ceil(corners.min(1)), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners.max(1)) + 1, 0, size).astype(np.int64)
    extent = np.maximum(high - low, 0)
    planes = _planes(corners)
    ahead = (z[faces] > _NEAR).all(1) & np.isfinite(planes).all((1, 2))
    counts = np.where(ahead, extent.prod(1), 0)
    for part in _chunks(counts):
        which = np.repeat(np.arange(part.start, part.stop), counts[part])
        first = np.cumsum(counts[part]) - counts[part]
        nth = np.arange(len(which)) - np.repeat(first, counts[part])
        row, column = np.divmod(nth, extent[which, 0])
        row, column = row + low[which, 1], column + low[which, 0]
        shares = _shares(planes[which], column, row)
        inside = (shares >= 0).all(1)
        which, pixel = which[inside], (row * width + column)[inside]
        here = (shares[inside] * inv_z[which]).sum(1)
        np.maximum.at(near, pixel, here)
        wins = here == near[pixel]
        face[pixel[wins]] = which[wins]
    hit = np.flatnonzero(face >= 0)
    shares = np.zeros((height * width, 3), dtype=np.float32)
    flat = _shares(planes[face[hit]], hit % width, hit // width) * inv_z[face[hit]]
    shares[hit] = flat / flat.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        distance = (1 / near).astype(np.float32)
    shape = height, width
    return Shown(face.reshape(shape), shares.reshape(*shape, 3), distance.reshape(shape))


def _planes(corners: np.ndarray) -> np.ndarray:
    """Return the coefficients [m, 3, 3] of column, row and 1 in each corner's share of a pixel."""
    x, y = corners[..., 0], corners[..., 1]
    x1, x2, y1, y2 = np.roll(x, -1, 1), np.roll(x, -2, 1), np.roll(y, -1, 1), np.roll(y, -2, 1)
    planes = np.stack([y1 - y2, x2 - x1, x1 * y2 - x2 * y1], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return planes / planes[..., 2].sum(1)[:, None, None]


def _shares(planes: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return planes[..., 0] * column[:, None] + planes[..., 1] * row[:, None] + planes[..., 2]


def _chunks(counts: np.ndarray):
    """Yield slices of triangles that have at most `_CANDIDATES` pixels to try, or are single."""
    start, total = 0, np.cumsum(counts)
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _CANDIDATES, side="right")))
        yield slice(start, stop)
        start = stop
