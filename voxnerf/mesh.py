"""From a voxel grid to a mesh that can be worked with: one closed surface, its colors, its texture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxnerf.bake import Painter, Texture
from voxnerf.cameras import Camera
from voxnerf.settings import N_FACES, TEXTURE_SIZE
from voxnerf.snapshot import Snapshot
from voxnerf.surface import OPAQUE, find_solid, surface
from voxnerf.zbuffer import rasterize

if TYPE_CHECKING:
    from voxnerf.grid import VoxelGrid


@dataclass(frozen=True)
class Mesh:
    """Hold a colored triangle mesh in the field's own axes (y up, front towards -x).

    Attributes:
        vertices: float32 [n, 3], scene units. normals: float32 [n, 3], unit length, outwards.
        faces: int64 [m, 3]. colors_u8: sRGB of the vertices, uint8 [n, 3].
        texture: of the same faces, or None.
        level: the density of the surface, per scene unit.
        dropped_parts, dropped_share: what else was denser than the level: the number of parts, and their
            share of the voxels.
        touches_walls: it reaches the walls of the grid, so that it is, or holds, a painted background.
        iou: agreement of its silhouettes with the rendered opacities (`silhouette_overlap`).
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    colors_u8: np.ndarray
    texture: Texture | None
    level: float
    dropped_parts: int
    dropped_share: float
    touches_walls: bool
    iou: float


def extract_mesh(
    grid: VoxelGrid,
    snapshots: Sequence[Snapshot],
    level: float | None = None,
    n_faces: int = N_FACES,
    texture_size: int = TEXTURE_SIZE,
) -> Mesh:
    """Extract the surface of the object in a field, and color it.

    Args:
        snapshots: the views that decide the level and give the colors (`mesh_snapshots`).
        level: density of the surface; by default the one that `find_solid` finds.
        n_faces: at most so many triangles.
        texture_size: pixels of the texture's sides; 0 for colors of vertices alone.

    Raises:
        NoMeshError: there is no object, or (without a level) none that is free of the grid's walls.
    """
    import trimesh

    solid = find_solid(grid, snapshots, level)
    half_size = grid.config.half_size
    parts = solid.level, solid.dropped_parts, solid.dropped_share, solid.touches_walls
    edge = 2 * half_size / grid.config.resolution
    vertices, faces = surface(solid, half_size, n_faces)
    normals = np.asarray(trimesh.Trimesh(vertices, faces, process=False).vertex_normals, dtype=np.float32)
    return paint(vertices, normals, faces, snapshots, edge, texture_size, *parts)


def paint(
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    snapshots: Sequence[Snapshot],
    edge: float,
    texture_size: int,
    level: float,
    dropped_parts: int = 0,
    dropped_share: float = 0.0,
    touches_walls: bool = False,
) -> Mesh:
    """Color a surface from views; what is no color goes into the mesh as it is given.

    Args:
        vertices: float32 [n, 3]. normals: float32 [n, 3], unit length, outwards. faces: int64 [m, 3].
        edge: scene units, how exactly the views know where the surface is.

    Raises:
        NoMeshError: no view sees the surface.
    """
    painter = Painter(vertices, normals, faces, snapshots, edge)
    return Mesh(
        vertices,
        normals,
        faces,
        painter.vertex_colors_u8,
        painter.texture(texture_size) if texture_size else None,
        level,
        dropped_parts,
        dropped_share,
        touches_walls,
        silhouette_overlap(vertices, faces, ((s.camera, s.opacity) for s in snapshots)),
    )


def silhouette_overlap(
    vertices: np.ndarray, faces: np.ndarray, views: Iterable[tuple[Camera, np.ndarray]]
) -> float:
    """Return the intersection over union of a mesh's silhouettes with opacities above 0.5, over all views.

    Args:
        views: cameras, and the opacities [h, w] that they see, of a multiple of the camera's size.
    """
    both = either = 0
    for camera, opacity in views:
        fine = camera.resized(opacity.shape[0] // camera.height)
        covered = rasterize(*fine.project(vertices), faces, *opacity.shape).face >= 0
        opaque = opacity > OPAQUE
        both += int((covered & opaque).sum())
        either += int((covered | opaque).sum())
    return both / max(either, 1)
