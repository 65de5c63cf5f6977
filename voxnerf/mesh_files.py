"""Mesh files: GLB, OBJ and PLY, turned so that the front looks along +z (glTF).

The bytes depend on the mesh alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from voxnerf.mesh import Mesh

if TYPE_CHECKING:
    from voxnerf.bake import Texture

_TURN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], dtype=np.float32)
# glTF's own defaults are a rough metal.
_MATTE: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}


def mesh_files(mesh: Mesh, name: str, ending: str) -> dict[str, bytes]:
    """Return the files of a mesh by their names, the one that names the others last.

    GLB holds its texture; an OBJ has a .mtl and a texture beside it; PLY has colors of vertices. So have all
    where the mesh has no texture: linear ones in GLB, as glTF defines them, sRGB in the others.

    Args:
        name: of the files, without ending. ending: "glb", "obj" or "ply".
    """
    return {"glb": _glb, "obj": _obj, "ply": _ply}[ending](mesh, name)


def from_saved_axes(vertices: np.ndarray) -> np.ndarray:
    """Return vertices [n, 3] of a saved mesh in the field's own axes."""
    return vertices @ _TURN


def srgb_to_linear(colors_u8: np.ndarray) -> np.ndarray:
    """Return sRGB bytes as linear light, float32 in [0, 1] (IEC 61966-2-1)."""
    x = colors_u8.astype(np.float32) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _glb(mesh: Mesh, name: str) -> dict[str, bytes]:
    import trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual.material import PBRMaterial

    if mesh.texture:
        material = PBRMaterial(name=name, baseColorTexture=_image(mesh.texture), **_MATTE)
        scene = trimesh.Scene({name: _textured(mesh, mesh.texture, material)})
        return {f"{name}.glb": export_glb(scene, include_normals=True)}

    def finish(tree: dict) -> None:
        # trimesh writes COLOR_0 as bytes, which are too coarse for dark linear colors, and no material.
        primitive = tree["meshes"][0]["primitives"][0]
        primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop("_color")
        primitive["material"] = 0
        tree["materials"] = [{"name": name, "pbrMetallicRoughness": _MATTE}]

    scene = trimesh.Scene({name: _plain(mesh, vertex_attributes={"color": srgb_to_linear(mesh.colors_u8)})})
    return {f"{name}.glb": export_glb(scene, include_normals=True, tree_postprocessor=finish)}


def _obj(mesh: Mesh, name: str) -> dict[str, bytes]:
    from trimesh.exchange.obj import export_obj
    from trimesh.visual.material import SimpleMaterial

    options = {"include_normals": True, "return_texture": True, "mtl_name": f"{name}.mtl", "header": None}
    if not mesh.texture:
        text, _ = export_obj(_plain(mesh, vertex_colors=mesh.colors_u8), **options)
        return {f"{name}.obj": text.encode()}
    white, black = [255] * 3, [0] * 3
    material = SimpleMaterial(
        name=f"{name}_texture", image=_image(mesh.texture), diffuse=white, ambient=white, specular=black
    )
    text, others = export_obj(_textured(mesh, mesh.texture, material), **options)
    return {**others, f"{name}.obj": text.encode()}


def _ply(mesh: Mesh, name: str) -> dict[str, bytes]:
    from trimesh.exchange.ply import export_ply

    return {f"{name}.ply": export_ply(_plain(mesh, vertex_colors=mesh.colors_u8), vertex_normal=True)}


def _plain(mesh: Mesh, **attributes):
    import trimesh

    vertices, normals = mesh.vertices @ _TURN.T, mesh.normals @ _TURN.T
    return trimesh.Trimesh(vertices, mesh.faces, vertex_normals=normals, process=False, **attributes)


def _textured(mesh: Mesh, texture: Texture, material):
    import trimesh
    from trimesh.visual import TextureVisuals

    return trimesh.Trimesh(
        (mesh.vertices @ _TURN.T)[texture.vertex_of],
        texture.faces,
        vertex_normals=(mesh.normals @ _TURN.T)[texture.vertex_of],
        visual=TextureVisuals(uv=texture.uv, material=material),
        process=False,
    )


def _image(texture: Texture):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(texture.image_u8).save(buffer, "PNG")
    return Image.open(buffer)  # trimesh keeps the format that an image was read in
