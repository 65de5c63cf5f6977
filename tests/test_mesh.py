"""The mesh of a field: its surface, its level, its colors, its files."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from tests.mesh_fields import RADIUS, axes, ball, decode, field, painted
from voxnerf.cameras import orbit_camera
from voxnerf.look import look, read_glb
from voxnerf.mesh import extract_mesh, silhouette_overlap
from voxnerf.mesh_files import mesh_files, srgb_to_linear
from voxnerf.snapshot import (
    N_MESH_SNAPSHOTS,
    mesh_snapshots,
    take_snapshots,
    turn_cameras,
)
from voxnerf.surface import NoMeshError, touches_walls
from voxnerf.zbuffer import rasterize

SIZE = 24


def snapshots_of(grid):
    """Fewer and coarser ones than a run takes, for the shape alone."""
    cameras = [*turn_cameras(SIZE, 4), orbit_camera(45, 60, SIZE, SIZE)]
    return list(take_snapshots(grid, decode, cameras, subpixels=1))


def mesh_of(grid, **settings):
    return extract_mesh(grid, snapshots_of(grid), **{"texture_size": 0, **settings})


def whole_ball_mesh():
    grid = ball()
    return extract_mesh(grid, list(mesh_snapshots(grid, decode, SIZE)), texture_size=128)


@pytest.fixture(scope="module")
def ball_mesh():
    return whole_ball_mesh()


def volume_of(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return (np.cross(a, b) * c).sum() / 6


def test_a_ball_becomes_a_ball(ball_mesh):
    radii = np.linalg.norm(ball_mesh.vertices, axis=1)
    assert radii.mean() == pytest.approx(RADIUS, abs=0.06)
    assert radii.std() < 0.02
    outwards = (ball_mesh.normals * ball_mesh.vertices).sum(1) / radii
    assert outwards.min() > 0.8, "normals point outwards"
    assert volume_of(ball_mesh) == pytest.approx(4 / 3 * np.pi * radii.mean() ** 3, rel=0.05), (
        "faces wind outwards"
    )
    assert trimesh.Trimesh(ball_mesh.vertices, ball_mesh.faces).is_watertight
    assert (ball_mesh.dropped_parts, ball_mesh.dropped_share, ball_mesh.touches_walls) == (0, 0.0, False)
    assert ball_mesh.iou > 0.9


def test_spikes_of_one_voxel_are_smoothed_away():
    grid = ball()
    x, y, z = axes(32)
    shell = ((x**2 + y**2 + z**2).sqrt() - RADIUS - 0.03).abs() < 0.04
    spikes = shell & (torch.rand(shell.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    with torch.no_grad():
        grid.density[0, 0][spikes] = 20.0
    mesh = mesh_of(grid)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    flat = np.cross(b - a, c - a)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    centers = (a + b + c) / np.linalg.norm(a + b + c, axis=1, keepdims=True)
    assert ((flat * centers).sum(1) > 0.7).mean() > 0.97


@pytest.mark.parametrize("n_faces", [200, 1000])
def test_there_are_no_more_faces_than_asked_for(n_faces):
    mesh = mesh_of(ball(), n_faces=n_faces)
    assert 0.9 * n_faces <= len(mesh.faces) <= n_faces
    assert set(mesh.faces.ravel()) == set(range(len(mesh.vertices)))
    assert np.linalg.norm(mesh.vertices, axis=1).std() < 0.03


def test_a_floater_is_left_out_and_counted():
    grid = ball()
    x, y, z = axes(32)
    with torch.no_grad():
        grid.density[0, 0][(x - 0.8) ** 2 + (y - 0.8) ** 2 + z**2 < 0.015] = 40.0
    mesh = mesh_of(grid)
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.7
    assert mesh.dropped_parts == 1
    assert 0 < mesh.dropped_share < 0.05


def test_inner_cavities_are_filled():
    x, y, z = axes(32)
    r = (x**2 + y**2 + z**2).sqrt()
    shell = field(40 * (0.2 - (r - 0.4).abs()).clamp(-0.2, 0.2) / 0.2, y)
    mesh = mesh_of(shell)
    assert np.linalg.norm(mesh.vertices, axis=1).min() > 0.4
    assert volume_of(mesh) == pytest.approx(
        4 / 3 * np.pi * np.linalg.norm(mesh.vertices, axis=1).mean() ** 3, rel=0.05
    )


def test_the_level_is_the_one_whose_silhouettes_fit():
    grid = ball()
    snapshots = snapshots_of(grid)
    overlap = {
        level: extract_mesh(grid, snapshots, level, texture_size=0).iou
        for level in (0.05, 0.2, 5, 20, 30, 38)
    }
    assert extract_mesh(grid, snapshots, texture_size=0).iou >= max(overlap.values()) - 0.01
    assert min(overlap.values()) < 0.8, "the levels differ"


# Fog and crates.


def test_a_ball_in_a_foggy_grid_is_found():
    grid = painted(ball(), density=3.0)
    snapshots = snapshots_of(grid)
    mesh = extract_mesh(grid, snapshots, texture_size=0)
    assert not mesh.touches_walls
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 0.7
    crate = extract_mesh(grid, snapshots, mesh.level / 20, texture_size=0)
    assert crate.touches_walls, "by hand it can be made, and says what it is"
    assert np.abs(crate.vertices).max() > 0.95


@pytest.mark.parametrize("walls", [1, 2, 6])
def test_a_crate_is_no_mesh(walls):
    grid = painted(ball(radius=0.1), density=60.0, walls=walls)
    with pytest.raises(
        NoMeshError, match=r"free of the walls(.|\n)*--background seamless(.|\n)*--level NUMBER"
    ):
        mesh_of(grid)


def test_a_grid_that_is_full_is_a_crate():
    grid = ball(16)
    with torch.no_grad():
        grid.density.fill_(30.0)
    with pytest.raises(NoMeshError, match="free of the walls"):
        mesh_of(grid)


def test_a_speck_in_a_crate_is_no_mesh():
    grid = painted(ball(radius=-0.01), density=20.0)
    with torch.no_grad():
        grid.density[..., 14:17, 14:17, 14:17] = 60.0
    with pytest.raises(NoMeshError, match="is a speck"):
        mesh_of(grid)


def test_what_touches_the_walls():
    inside = np.zeros((8, 8, 8), bool)
    inside[2:6, 2:6, 2:6] = True
    assert not touches_walls(inside)
    for axis in range(3):
        for end in (0, 7):
            touching = inside.copy()
            touching[tuple(end if a == axis else 4 for a in range(3))] = True
            assert touches_walls(touching)
    for n_sides in range(7):
        near = inside.copy()
        for axis, end in [(a, e) for a in range(3) for e in (1, 6)][:n_sides]:
            near[tuple(end if a == axis else 4 for a in range(3))] = True
        assert touches_walls(near) == (n_sides == 6), "a crate may leave a voxel free all around"


def test_an_empty_field_is_said_to_be_empty():
    grid = ball(16)
    with torch.no_grad():
        grid.density.fill_(-50.0)
    with pytest.raises(NoMeshError, match="no picture has a pixel of opacity above 0.5"):
        mesh_of(grid)


def test_a_level_above_everything_says_how_dense_the_field_is():
    with pytest.raises(NoMeshError, match=r"no voxel is denser than 1e\+03; the densest has 3\d\."):
        mesh_of(ball(), level=1000.0)


# Colors.


def test_vertices_and_texture_take_the_color_of_the_decoded_views(ball_mesh, tmp_path):
    top, bottom = ball_mesh.vertices[:, 1] > 0.15, ball_mesh.vertices[:, 1] < -0.15
    for colors, above, below in (
        (ball_mesh.colors_u8, top, bottom),
        (
            _texels_at_corners(ball_mesh),
            top[ball_mesh.texture.vertex_of],
            bottom[ball_mesh.texture.vertex_of],
        ),
    ):
        assert colors[above, 0].min() > 180
        assert colors[above, 2].max() < 80
        assert colors[below, 2].min() > 180
        assert colors[below, 0].max() < 80


def _texels_at_corners(mesh):
    """The texture where the corners of the charts are: at their borders, where seams would show."""
    size = len(mesh.texture.image_u8)
    u, v = (mesh.texture.uv * size).astype(int).clip(0, size - 1).T
    return mesh.texture.image_u8[size - 1 - v, u]


def test_no_texel_is_left_black(ball_mesh):
    assert ball_mesh.texture.image_u8.max(2).min() > 100


def test_the_texture_is_the_surface_unwrapped(ball_mesh):
    texture = ball_mesh.texture
    assert (np.sort(texture.vertex_of[texture.faces], 1) == np.sort(ball_mesh.faces, 1)).all()
    assert texture.uv.min() >= 0
    assert texture.uv.max() <= 1


# Files.


def test_a_glb_has_a_matte_material_and_a_texture(ball_mesh, tmp_path):
    (tmp_path / "a.glb").write_bytes(mesh_files(ball_mesh, "a", "glb")["a.glb"])
    tree, _ = _parts_of_glb((tmp_path / "a.glb").read_bytes())
    (primitive,) = tree["meshes"][0]["primitives"]
    assert primitive["attributes"].keys() == {"POSITION", "NORMAL", "TEXCOORD_0"}, (
        "no color that would tint it"
    )
    material = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert (material["metallicFactor"], material["roughnessFactor"]) == (0, 1)
    saved = read_glb(tmp_path / "a.glb")
    np.testing.assert_array_equal(saved.texture_u8, ball_mesh.texture.image_u8)
    np.testing.assert_allclose(saved.vertices, ball_mesh.vertices[ball_mesh.texture.vertex_of], atol=1e-6)
    np.testing.assert_allclose(saved.normals, ball_mesh.normals[ball_mesh.texture.vertex_of], atol=1e-4)
    image, there = look(saved, orbit_camera(30, 0, 64, 64))
    assert there.any()
    assert image[:30][there[:30]][:, 0].mean() > 200, "red above"
    assert image[34:][there[34:]][:, 2].mean() > 200, "blue below"


def _parts_of_glb(data):
    """The tree of a GLB, and its bytes."""
    magic, version, length, n = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    return json.loads(data[20 : 20 + n]), data[28 + n :]


def test_colors_of_vertices_are_linear_in_a_glb_and_bytes_in_a_ply(ball_mesh):
    plain = replace(ball_mesh, texture=None)
    tree, data = _parts_of_glb(mesh_files(plain, "a", "glb")["a.glb"])
    (primitive,) = tree["meshes"][0]["primitives"]
    material = tree["materials"][primitive["material"]]["pbrMetallicRoughness"]
    assert (material["metallicFactor"], material["roughnessFactor"]) == (0, 1)
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5126, "VEC3"), "floats, for the dark ones' sake"
    start = tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    colors = np.frombuffer(data, np.float32, 3 * accessor["count"], start).reshape(-1, 3)
    np.testing.assert_allclose(colors, srgb_to_linear(plain.colors_u8), atol=1e-6)
    ply = trimesh.load(io.BytesIO(mesh_files(plain, "a", "ply")["a.ply"]), file_type="ply", process=False)
    np.testing.assert_array_equal(ply.visual.vertex_colors[:, :3], plain.colors_u8)


@pytest.mark.parametrize(
    ("srgb", "linear"), [(0, 0.0), (10, 0.003035), (128, 0.215861), (188, 0.502886), (255, 1.0)]
)
def test_srgb_to_linear_by_hand(srgb, linear):
    assert srgb_to_linear(np.array([srgb], np.uint8))[0] == pytest.approx(linear, abs=1e-6)


def test_an_obj_finds_its_material_and_texture(ball_mesh, tmp_path):
    for name in ("one", "two"):
        for file, data in mesh_files(ball_mesh, name, "obj").items():
            assert not (tmp_path / file).exists(), "names do not collide"
            (tmp_path / file).write_bytes(data)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{n}{e}" for n in ("one", "two") for e in (".obj", ".mtl", "_texture.png")
    }
    assert "mtllib one.mtl" in (tmp_path / "one.obj").read_text()
    assert "map_Kd one_texture.png" in (tmp_path / "one.mtl").read_text()
    np.testing.assert_array_equal(Image.open(tmp_path / "one_texture.png"), ball_mesh.texture.image_u8)
    loaded = trimesh.load(tmp_path / "one.obj", force="mesh", process=False)
    assert len(loaded.faces) == len(ball_mesh.faces)
    assert loaded.visual.uv.shape[1] == 2


@pytest.mark.parametrize("ending", ["glb", "ply", "obj"])
@pytest.mark.parametrize("textured", [True, False])
def test_saved_meshes_face_plus_z_and_repeat_byte_for_byte(ball_mesh, tmp_path, ending, textured):
    mesh = ball_mesh if textured else replace(ball_mesh, texture=None)
    files = mesh_files(mesh, "a", ending)
    assert files == mesh_files(mesh, "a", ending)
    assert list(files)[-1] == f"a.{ending}", "what names the others comes last"
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    loaded = trimesh.load(tmp_path / f"a.{ending}", force="mesh", process=False)
    assert len(loaded.faces) == len(mesh.faces)
    centers = mesh.vertices[mesh.faces].mean(1)
    turned = np.asarray(loaded.triangles_center)
    np.testing.assert_allclose(turned, np.stack([centers[:, 2], centers[:, 1], -centers[:, 0]], 1), atol=1e-5)


def test_the_same_field_makes_the_same_mesh(ball_mesh):
    assert mesh_files(whole_ball_mesh(), "a", "glb") == mesh_files(ball_mesh, "a", "glb")


# Views.


def test_a_turn_that_was_taken_is_not_taken_again():
    calls = []

    def counted(latent):
        calls.append(len(latent))
        return decode(latent)

    grid = ball(16)
    views = list(mesh_snapshots(grid, counted, 16))
    assert len(views) == N_MESH_SNAPSHOTS == sum(calls)
    turn, calls[:] = views[:12], []
    again = list(mesh_snapshots(grid, counted, 16, turn))
    assert sum(calls) == N_MESH_SNAPSHOTS - 12
    for a, b in zip(views, again):
        np.testing.assert_array_equal(a.image_u8, b.image_u8)
    assert [v.camera.azimuth_deg for v in turn] == [30.0 * i for i in range(12)]


def test_a_snapshot_holds_the_distance_of_what_is_opaque():
    view = next(iter(mesh_snapshots(ball(), decode, 32)))
    seen = view.dist[~np.isnan(view.dist)]
    assert 1.5 - RADIUS - 0.1 < seen.min() < 1.15
    assert seen.max() < 1.6, "the background, at 10, is no part of it"
    assert np.isnan(view.dist[0, 0])
    assert view.opacity[30:34, 30:34].min() > 0.99
    assert view.opacity[0, 0] == 0


def test_overlap_of_silhouettes_by_hand():
    plate = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]]) * 0.25
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    camera = orbit_camera(0, 0, 32, 32)
    opacity = np.zeros((64, 64))
    fine = camera.resized(2)
    opacity[rasterize(*fine.project(plate), faces, 64, 64).face >= 0] = 1.0
    assert silhouette_overlap(plate, faces, [(camera, opacity)]) == 1
    opacity[:32] = 0
    assert silhouette_overlap(plate, faces, [(camera, opacity)]) == pytest.approx(0.5, abs=0.03)
    assert silhouette_overlap(plate, faces, [(camera, 0 * opacity)]) == 0
