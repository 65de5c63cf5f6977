import json
import struct

import numpy as np
import pytest
import torch

from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.mesh import EmptyMeshError, extract_mesh

RADIUS = 0.5


def ball(resolution=32, floater=False):
    """A ball of radius 0.5, red where y > 0 and blue below, before a gray background."""
    grid = VoxelGrid(GridConfig(resolution=resolution))
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    dist = (x**2 + y**2 + z**2).sqrt()
    density = 40 * (RADIUS - dist).clamp(-0.3, 0.3) / 0.3
    if floater:
        density[(x - 0.9) ** 2 + (y - 0.9) ** 2 + z**2 < 0.01] = 40.0
    with torch.no_grad():
        grid.density.copy_(density[None, None])
        grid.color.zero_()
        grid.color[0, 0] = torch.where(y > 0, 1.0, -1.0)
        grid.color[0, 2] = torch.where(y > 0, -1.0, 1.0)
        grid.background.zero_()
    return grid


def decode(latent):
    image = latent[:, :3].clamp(-1, 1)
    return torch.nn.functional.interpolate(image, scale_factor=2, mode="nearest")


def test_a_ball_becomes_a_ball():
    mesh = extract_mesh(ball(), decode, 32)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert radii.mean() == pytest.approx(RADIUS, abs=0.06)
    assert radii.std() < 0.03
    outwards = (mesh.normals * mesh.vertices).sum(1) / radii
    assert outwards.min() > 0.5, "normals point outwards"
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    volume = (np.cross(a, b) * c).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * radii.mean() ** 3, rel=0.1), "faces wind outwards"


def test_vertices_take_the_color_of_the_decoded_views():
    mesh = extract_mesh(ball(), decode, 32)
    top, bottom = mesh.vertices[:, 1] > 0.2, mesh.vertices[:, 1] < -0.2
    assert mesh.colors_u8[top, 0].mean() > 200
    assert mesh.colors_u8[top, 2].mean() < 60
    assert mesh.colors_u8[bottom, 2].mean() > 200
    assert mesh.colors_u8[bottom, 0].mean() < 60


def test_floaters_are_dropped():
    mesh = extract_mesh(ball(floater=True), decode, 32)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.8


def test_an_empty_field_is_said_to_be_empty():
    grid = VoxelGrid(GridConfig(resolution=16))
    with torch.no_grad():
        grid.density.fill_(-50.0)
    with pytest.raises(EmptyMeshError, match="no view has a pixel of opacity above 0.5"):
        extract_mesh(grid, decode, 16)


@pytest.mark.parametrize("ending", ["glb", "ply", "obj"])
def test_saved_meshes_keep_colors_and_face_plus_z(tmp_path, ending):
    import trimesh

    mesh = extract_mesh(ball(), decode, 32)
    path = tmp_path / f"mesh.{ending}"
    mesh.save(path)
    loaded = trimesh.load(path, force="mesh", process=False)
    assert len(loaded.faces) == len(mesh.faces)
    front = mesh.vertices[:, 0].argmin()
    np.testing.assert_allclose(loaded.vertices[front][2], -mesh.vertices[front][0], atol=1e-4)
    assert np.ptp(np.asarray(loaded.visual.vertex_colors)[:, 0]) > 100
    again = tmp_path / f"again.{ending}"
    mesh.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_glb_is_a_glb(tmp_path):
    path = tmp_path / "mesh.glb"
    extract_mesh(ball(), decode, 32).save(path)
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    (n,) = struct.unpack("<I", data[12:16])
    attributes = json.loads(data[20 : 20 + n])["meshes"][0]["primitives"][0]["attributes"]
    assert {"POSITION", "NORMAL", "COLOR_0"} <= attributes.keys()
