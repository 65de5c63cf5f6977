"""The rasteriser for arrays, without gradient: for checks, pictures and baking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from voxnerf import raster


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
    """Find the nearest triangle at every pixel centre (`raster.rasterize`).

    Args:
        pixels: [n, 2], column and row of the vertices; pixel centres are whole numbers.
        z: [n], distance of the vertices along the viewing axis. faces: [m, 3].
    """
    places, ahead = (torch.from_numpy(np.asarray(array, np.float64)) for array in (pixels, z))
    seen = raster.rasterize(places, ahead, torch.from_numpy(np.asarray(faces, np.int64)), height, width)
    face = seen.face.numpy()
    hit = face >= 0
    shares, distance = np.zeros((*face.shape, 3), np.float32), np.full(face.shape, np.inf, np.float32)
    shares[hit], distance[hit] = seen.shares.numpy(), seen.z.numpy()
    return Shown(face, shares, distance)
