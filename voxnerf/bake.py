"""Colors of a surface from decoded views: of its vertices, and of a texture.

A point takes the mean of the views that see it, weighted by how head-on they are and how opaque the object
is there, so that neither what hides it nor the background is painted on it. Views of a field do not quite
agree, and their mean is a smear; so head-on is said of the coarse surface, which gives what lies together,
as an eye, to the same view. What no view sees well takes the color of the nearest vertex that one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voxnerf.snapshot import Snapshot
from voxnerf.surface import nothing_found
from voxnerf.zbuffer import rasterize

_ZBUFFER_PIXELS = 256
_LEAST_FACING = 0.2  # of the cosine between normal and view
_COARSE_VOXELS = 5.0  # how far the coarse surface's normals are averaged
_SHARPNESS = 4  # exponent of their cosine with the view
_CHOOSINESS = 5  # exponent of a view's weight, beside the best view's
_LEAST_OPACITY = 0.05
_LEAST_WEIGHT = 0.3  # of the well-seen: less, as a sole has, is a glance in which the background shows
_LEAST_SHARE = 0.2  # of the best view's weight; views below it would only blur
_TOLERANCE_VOXELS, _FOG_VOXELS, _LEAST_CLEAR = 1.5, 3.0, 0.05
_PADDING_TEXELS = 2
_FAR = 1e3


@dataclass(frozen=True)
class Texture:
    """Hold a surface unwrapped into a square, and its picture.

    Attributes:
        vertex_of: int64 [k], the surface's vertex that each corner is; at a seam a vertex is several corners.
        faces: int64 [m, 3], the surface's faces by corners.
        uv: float32 [k, 2], in [0, 1], the origin at the picture's lower left.
        image_u8: sRGB, uint8 [size, size, 3].
    """

    vertex_of: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    image_u8: np.ndarray


class Painter:
    """Paints one surface.

    Attributes:
        vertex_colors_u8: sRGB, uint8 [n, 3].
    """

    def __init__(
        self,
        vertices: np.ndarray,
        normals: np.ndarray,
        faces: np.ndarray,
        snapshots: Sequence[Snapshot],
        edge: float,
    ):
        """Find out which views see which vertices, and paint these.

        Args:
            vertices: [n, 3]. normals: [n, 3], unit length, outwards. faces: [m, 3].
            edge: of a voxel, scene units: how exactly the views know where the surface is.

        Raises:
            NoMeshError: no view sees the surface.
        """
        from scipy.spatial import KDTree

        self._vertices, self._faces = vertices.astype(np.float32), faces
        self._views = [_View(snapshot, vertices, faces, edge) for snapshot in snapshots]
        coarse = _averaged(normals, self._vertices, faces, _COARSE_VOXELS * edge)
        weights = torch.stack(
            [view.weights(self._vertices, normals.astype(np.float32), coarse) for view in self._views]
        )
        best = weights.max(0).values
        weights = ((weights / best.clamp(min=1e-12)) ** _CHOOSINESS - _LEAST_SHARE).clamp(min=0)
        self._weights = weights * (best > _LEAST_WEIGHT * best.quantile(0.9))
        everywhere = np.arange(len(vertices))
        colors, known = self._blend(self._vertices, ((everywhere, w) for w in self._weights))
        if not known.any():
            raise nothing_found("no view sees its surface")
        self._nearest, self._known_colors = KDTree(vertices[known]), colors[known]
        self.vertex_colors_u8 = self._to_u8(vertices, colors, known)

    def texture(self, size: int) -> Texture:
        """Unwrap the surface and paint a texture of `size` x `size` pixels."""
        from scipy.ndimage import distance_transform_edt

        vertex_of, faces, uv = _unwrap(self._vertices, self._faces, size)
        places = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * size - 0.5
        texels = rasterize(places, np.ones(len(places)), faces, size, size)
        covered = texels.face >= 0
        points = texels.interpolate(self._vertices[vertex_of], faces)
        face, shares = texels.face[covered], torch.from_numpy(texels.shares[covered])

        def parts():
            for weight in self._weights:
                of_corners = weight[vertex_of][faces]
                which = np.flatnonzero((of_corners > 0).any(1).numpy()[face])
                yield which, (of_corners[face[which]] * shares[which]).sum(1)

        image = np.zeros((size, size, 3), dtype=np.uint8)
        image[covered] = self._to_u8(points, *self._blend(points, parts()))
        # Beyond the charts' borders their colors go on, so that no seam shows.
        row, column = distance_transform_edt(~covered, return_distances=False, return_indices=True)
        return Texture(vertex_of, faces, uv, image[row, column])

    def _blend(self, points: np.ndarray, parts) -> tuple[np.ndarray, np.ndarray]:
        """Return the colors [n, 3] of points, in bytes, and which are known.

        Args:
            parts: for each view the numbers of the points that it colors, and their weights.
        """
        total, sum_of_weights = torch.zeros(len(points), 3), torch.zeros(len(points))
        for view, (which, weight) in zip(self._views, parts):
            colors, hidden = view.look(points[which])
            seen = weight.masked_fill(hidden, 0.0)
            total[which] += seen[:, None] * colors
            sum_of_weights[which] += seen
        known = sum_of_weights > 0
        return (total / sum_of_weights.clamp(min=1e-12)[:, None]).numpy(), known.numpy()

    def _to_u8(self, points: np.ndarray, colors: np.ndarray, known: np.ndarray) -> np.ndarray:
        colors[~known] = self._known_colors[self._nearest.query(points[~known])[1]]
        return colors.round().clip(0, 255).astype(np.uint8)


class _View:
    """One snapshot, and how far the surface is in each of its pixels."""

    def __init__(self, snapshot: Snapshot, vertices: np.ndarray, faces: np.ndarray, edge: float):
        camera = self._camera = snapshot.camera
        self._edge = edge
        fine = camera.resized(max(1, _ZBUFFER_PIXELS // camera.height))
        z = rasterize(*fine.project(vertices), faces, fine.height, fine.width).z
        self._z = _least_of_nine(torch.from_numpy(z).clamp(max=_FAR)[None, None])
        self._image = torch.from_numpy(snapshot.image_u8).permute(2, 0, 1)[None].float()
        self._dist = torch.from_numpy(snapshot.dist)[None, None].nan_to_num(_FAR)
        # The decoder mixes neighbours: beside the background a picture shows some of it.
        self._opacity = _least_of_nine(torch.from_numpy(snapshot.opacity)[None, None])

    def weights(self, points: np.ndarray, normals: np.ndarray, coarse: np.ndarray) -> Tensor:
        """Return how well the view sees points of the surface: [n], 1 is head-on and opaque.

        Args:
            normals: float32 [n, 3]. coarse: float32 [n, 3], those of the coarse surface.
        """
        towards = self._camera.c2w[:3, 3].astype(np.float32) - points
        dist = np.linalg.norm(towards, axis=1)
        towards /= np.maximum(dist, 1e-9)[:, None]
        facing = torch.from_numpy((towards * normals).sum(1))
        ahead = torch.from_numpy((towards * coarse).sum(1)).clamp(min=0)
        where, z = self._project(points)
        opacity = _sample(self._opacity, where)[0].clamp(min=_LEAST_OPACITY)
        before = torch.from_numpy(dist) - _sample(self._dist, where)[0]  # of fog, or of a part left out
        clear = torch.exp(-((before / self._edge - _TOLERANCE_VOXELS).clamp(min=0) / _FOG_VOXELS).square())
        seen = (where.abs() <= 1).all(1) & ~self._hidden(where, z)
        glancing = (facing / _LEAST_FACING - 1).clamp(0, 1)
        return ahead**_SHARPNESS * glancing * opacity * clear.clamp(min=_LEAST_CLEAR) * seen

    def look(self, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the colors [n, 3] of points, in bytes, and which are hidden by the surface itself."""
        where, z = self._project(points)
        return _sample(self._image, where).T, self._hidden(where, z)

    def _hidden(self, where: Tensor, z: Tensor) -> Tensor:
        return z > _sample(self._z, where)[0] + _TOLERANCE_VOXELS * self._edge

    def _project(self, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the places [n, 2] of points, in [-1, 1], and how far ahead they are, [n]."""
        pixels, z = self._camera.project(points)
        places = (pixels + 0.5) / (self._camera.width / 2, self._camera.height / 2) - 1
        return torch.from_numpy(places.astype(np.float32)), torch.from_numpy(z.astype(np.float32))


def _averaged(normals: np.ndarray, vertices: np.ndarray, faces: np.ndarray, distance: float) -> np.ndarray:
    """Return normals [n, 3] averaged along the surface over about a distance, unit length, float32."""
    import trimesh
    from scipy.sparse import csr_array

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    neighbours = csr_array(trimesh.smoothing.laplacian_calculation(mesh, equal_weight=True))
    # A walk that stays or goes to a neighbour, evenly, gets sqrt(n / 2) edges far in n steps.
    n_steps = round(2 * (distance / mesh.edges_unique_length.mean()) ** 2)
    averaged = normals.astype(np.float64)
    for _ in range(n_steps):
        averaged = (averaged + neighbours @ averaged) / 2
    length = np.linalg.norm(averaged, axis=1, keepdims=True)
    return (averaged / np.maximum(length, 1e-9)).astype(np.float32)


def _least_of_nine(picture: Tensor) -> Tensor:
    return -F.max_pool2d(-picture, 3, stride=1, padding=1)


def _sample(picture: Tensor, where: Tensor) -> Tensor:
    """Return a picture [1, c, h, w] at places [n, 2] in [-1, 1], linearly between pixels, as [c, n]."""
    return F.grid_sample(picture, where[None, None], padding_mode="border", align_corners=False)[0, :, 0]


def _unwrap(vertices: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `vertex_of`, `faces` and `uv` of a `Texture`."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, _PADDING_TEXELS, True
    atlas.generate(xatlas.ChartOptions(), packing)
    vertex_of, corners, uv = atlas.get_mesh(0)
    return vertex_of.astype(np.int64), corners.astype(np.int64), uv.astype(np.float32)
