"""A saved mesh, read back and looked at without a graphics card."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxnerf.cameras import Camera
from voxnerf.mesh_files import from_saved_axes
from voxnerf.zbuffer import rasterize

_LIGHT = np.array([0.4, 0.5, 0.77])  # right, up, towards the camera


@dataclass(frozen=True)
class SavedMesh:
    """Hold what a GLB says, in the field's axes.

    Attributes:
        vertices: float32 [n, 3]. normals: [n, 3]. faces: int64 [m, 3].
        uv: [n, 2], the origin at the lower left.
        texture_u8: sRGB, uint8 [size, size, 3].
        material: glTF's `pbrMetallicRoughness`.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture_u8: np.ndarray
    material: dict


def read_glb(path: Path) -> SavedMesh:
    """Read a GLB of one textured mesh.

    Raises:
        ValueError: it is none.
    """
    import trimesh

    data = path.read_bytes()
    try:
        (length,) = struct.unpack("<I", data[12:16])
        materials = json.loads(data[20 : 20 + length])["materials"]
        scene: Any = trimesh.load(path, process=False)
        (mesh,) = scene.geometry.values()
        image = mesh.visual.material.baseColorTexture.convert("RGB")
        uv, faces = np.asarray(mesh.visual.uv), np.asarray(mesh.faces)
    except (struct.error, ValueError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"a GLB must hold a textured mesh. {path} does not ({error!r}).") from error
    vertices, normals = (
        from_saved_axes(np.asarray(a, np.float32)) for a in (mesh.vertices, mesh.vertex_normals)
    )
    return SavedMesh(vertices, normals, faces, uv, np.asarray(image), materials[0]["pbrMetallicRoughness"])


def look(mesh: SavedMesh, camera: Camera, gray: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return what a camera sees of a mesh on white, uint8 [h, w, 3], and where it is, bool [h, w].

    Args:
        gray: the shape alone, lit, instead of the texture's colors as they are.
    """
    shown = rasterize(*camera.project(mesh.vertices), mesh.faces, camera.height, camera.width)
    there = shown.face >= 0
    image = np.full((*there.shape, 3), 255, dtype=np.uint8)
    if gray:
        normals = shown.interpolate(mesh.normals, mesh.faces)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        light = np.clip(normals @ (camera.c2w[:3, :3] @ _LIGHT), 0, 1)
        image[there] = (60 + 180 * light)[:, None]
    else:
        size = len(mesh.texture_u8)
        u, v = (shown.interpolate(mesh.uv, mesh.faces) * size).astype(int).clip(0, size - 1).T
        image[there] = mesh.texture_u8[size - 1 - v, u]
    return image, there
