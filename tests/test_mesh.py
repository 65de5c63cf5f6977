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
from voxnerf.bake import Painter
from voxnerf.cameras import orbit_camera
from voxnerf.look import look, read_glb
from voxnerf.mesh import extract_mesh, silhouette_overlap
from voxnerf.mesh_files import mesh_files, srgb_to_linear
from voxnerf.snapshot import (
    N_MESH_SNAPSHOTS,
    Snapshot,
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


def spheres():
    """A small sphere in front of a large one (the front is -x): vertices, normals, faces, which are small."""
    large = trimesh.creation.icosphere(4, 0.4)
    small = trimesh.creation.icosphere(3, 0.15)
    small.apply_translation([-0.7, 0, 0])
    both = trimesh.util.concatenate([large, small])
    is_small = np.arange(len(both.vertices)) >= len(large.vertices)
    normals = np.concatenate([large.vertex_normals, small.vertex_normals])
    return both.vertices, normals, both.faces, is_small


def picture_of(vertices, faces, colors, camera, blur=1):
    """A snapshot of a colored surface before white, mixed over `blur` pixels as a decoder mixes them."""
    fine = camera.resized(8)
    shown = rasterize(*fine.project(vertices), faces, fine.height, fine.width)
    there = shown.face >= 0
    image = np.full((*there.shape, 3), 255.0)
    image[there] = shown.interpolate(colors, faces)
    mixed = torch.from_numpy(image).permute(2, 0, 1)[None]
    mixed = torch.nn.functional.avg_pool2d(mixed, blur, 1, blur // 2, count_include_pad=False)
    small = there.reshape(camera.height, 8, camera.width, 8).mean((1, 3)).astype(np.float32)
    dist = np.full_like(small, np.nan)
    dist[small > 0] = 1.5
    return Snapshot(camera, mixed[0].permute(1, 2, 0).numpy().round().astype(np.uint8), dist * 10, small)


def test_a_view_paints_nothing_that_is_hidden_from_it():
    vertices, normals, faces, is_small = spheres()
    colors = np.where(is_small[:, None], [0, 255, 0], [255, 0, 0]).astype(float)
    views = [picture_of(vertices, faces, colors, c) for c in turn_cameras(32)]
    painter = Painter(vertices, normals, faces, views, edge=0.02)
    assert painter.vertex_colors_u8[~is_small][:, 1].max() < 40, "no green on the large one"
    assert painter.vertex_colors_u8[is_small][:, 0].max() < 60, "no red on the small one"
    front_alone = Painter(vertices, normals, faces, views[:1], edge=0.02)
    assert front_alone.vertex_colors_u8[~is_small][:, 1].max() < 40, (
        "what no view sees takes the nearest seen"
    )


def test_what_is_hidden_from_the_best_view_takes_its_color_from_another():
    vertices, normals, faces, is_small = spheres()
    behind = ~is_small & (vertices[:, 0] < 0) & (np.hypot(vertices[:, 1], vertices[:, 2]) < 0.2)
    colors = np.where(behind[:, None], [0, 0, 255], [255, 0, 0]).astype(float)
    views = [picture_of(vertices, faces, colors, orbit_camera(a, 0, 32, 32)) for a in (0, 60)]
    painter = Painter(vertices, normals, faces, views, edge=0.02)
    assert (
        painter.vertex_colors_u8[behind & (abs(vertices[:, 1]) < 0.1) & (vertices[:, 2] > -0.05)][:, 2].min()
        > 200
    )


def test_a_shadow_within_a_large_triangle_is_not_painted():
    small = trimesh.creation.icosphere(3, 0.1)
    small.apply_translation([-0.6, 0, 0])
    plate = np.array([[0.0, -1, -1], [0, -1, 1], [0, 1, 1], [0, 1, -1]]) * 0.5
    vertices = np.concatenate([plate, small.vertices])
    faces = np.concatenate([[[0, 1, 2], [0, 2, 3]], small.faces + 4])
    normals = np.concatenate([np.tile([-1.0, 0, 0], (4, 1)), small.vertex_normals])
    colors = np.where(np.arange(len(vertices))[:, None] >= 4, [0, 255, 0], [255, 0, 0]).astype(float)
    views = [picture_of(vertices, faces, colors, orbit_camera(a, 0, 32, 32)) for a in (0, 30)]
    texture = Painter(vertices, normals, faces, views, edge=0.02).texture(256)
    shares = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    uv = np.concatenate([shares @ texture.uv[texture.faces[number]] for number in (0, 1)])
    column, row = (uv[:, 0] * 256).astype(int), ((1 - uv[:, 1]) * 256).astype(int)
    red, green, blue = texture.image_u8[row, column].astype(int).T
    assert red.min() > 200
    assert (green - blue).max() < 30


@pytest.fixture(scope="module")
def gray_ball():
    """A sphere of color 60, and pictures of it from all around in which white mixes into its silhouette."""
    sphere = trimesh.creation.icosphere(4, 0.4)
    colors = np.full((len(sphere.vertices), 3), 60.0)
    cameras = [*turn_cameras(32), *(orbit_camera(a, e, 32, 32) for e in (-40, 50) for a in range(0, 360, 60))]
    return sphere, [picture_of(sphere.vertices, sphere.faces, colors, camera, blur=17) for camera in cameras]


def painted_by(sphere, views):
    return Painter(sphere.vertices, sphere.vertex_normals, sphere.faces, views, edge=0.02).vertex_colors_u8[
        :, 0
    ]


def test_a_surface_that_no_view_sees_is_no_mesh(gray_ball):
    sphere, views = gray_ball
    with pytest.raises(NoMeshError, match="no view sees its surface"):
        Painter(sphere.vertices + [0, 50, 0], sphere.vertex_normals, sphere.faces, views, edge=0.02)


def test_the_background_does_not_bleed_onto_the_silhouette(gray_ball):
    colors = painted_by(*gray_ball)
    assert (colors > 65).mean() < 0.01
    assert colors.max() < 90


def test_the_more_head_on_a_view_the_more_it_counts(gray_ball):
    sphere, views = gray_ball
    front, half_left = (
        replace(view, image_u8=np.full_like(view.image_u8, value))
        for view, value in zip((views[0], views[2]), (0, 200))
    )
    colors = painted_by(sphere, [front, half_left])
    azimuth = np.rad2deg(np.arctan2(sphere.vertices[:, 2], -sphere.vertices[:, 0]))
    level = abs(sphere.vertices[:, 1]) < 0.1
    assert colors[level & (abs(azimuth) < 10)].max() == 0
    assert colors[level & (abs(azimuth - 60) < 10)].min() == 200
    between = colors[level & (abs(azimuth - 30) < 4)]
    assert 60 < between.mean() < 140, "half and half in the middle"


def test_what_is_small_stays_sharp_though_the_views_do_not_quite_agree(gray_ball):
    sphere, _ = gray_ball
    bumpy = sphere.vertices * (1 + 0.05 * np.sin(40 * sphere.vertices).sum(1, keepdims=True))
    normals = trimesh.Trimesh(bumpy, sphere.faces, process=False).vertex_normals
    views = []
    for camera in turn_cameras(32):  # a pupil that floats before the surface is seen elsewhere by each
        aside = -0.32 * camera.c2w[2, 3] / np.linalg.norm(camera.c2w[:3, 3])
        near = np.linalg.norm(sphere.vertices - [-0.39, 0, aside], axis=1) < 0.07
        views.append(picture_of(bumpy, sphere.faces, np.where(near[:, None], 0, 200.0).repeat(3, 1), camera))
    colors = Painter(bumpy, normals, sphere.faces, views, edge=0.02).vertex_colors_u8[:, 0]
    front = sphere.vertices[:, 0] < -0.2
    true = np.linalg.norm(sphere.vertices - [-0.39, 0, 0], axis=1) < 0.07
    assert abs((colors[front] < 50).sum() / true.sum() - 1) < 0.2, "as large and as black as from the front"
    assert ((colors[front] >= 50) & (colors[front] < 170)).sum() / true.sum() < 0.2, "and no smear"


def test_a_view_through_which_the_background_shines_counts_little(gray_ball):
    sphere, views = gray_ball
    thin = replace(views[0], image_u8=np.full_like(views[0].image_u8, 250), opacity=views[0].opacity * 0.1)
    colors = painted_by(sphere, [thin, *views[1:]])
    assert colors.max() < 90


def test_fog_before_the_surface_is_not_painted_on_it(gray_ball):
    sphere, views = gray_ball
    nearer = np.full_like(views[0].dist, 0.5)
    foggy = replace(views[0], image_u8=np.full_like(views[0].image_u8, 250), dist=nearer)
    assert painted_by(sphere, [foggy, *views[1:]]).max() < 90


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


# The rasteriser.


def test_projection_is_the_inverse_of_the_rays():
    from voxnerf.rays import camera_rays

    camera = orbit_camera(77, 20, 5, 7)
    origin, directions = camera_rays(camera)
    pixels, ahead = camera.project((origin + 2 * directions).numpy())
    rows, columns = np.meshgrid(np.arange(5), np.arange(7), indexing="ij")
    np.testing.assert_allclose(pixels, np.stack([columns.ravel(), rows.ravel()], 1), atol=1e-4)
    assert (ahead > 0).all()
    assert camera.project(camera.c2w[None, :3, 3] + camera.c2w[None, :3, 2])[1] < 0, "behind the camera"


def test_the_nearest_triangle_shows_as_in_a_naive_loop():
    rng = np.random.default_rng(0)
    pixels, z = rng.uniform(-3, 15, (30, 2)), rng.uniform(0.5, 3, 30)
    faces = rng.integers(0, 30, (40, 3))
    z[faces[7, 0]] = -1.0
    shown = rasterize(pixels, z, faces, 11, 13)
    for row in range(11):
        for column in range(13):
            best, expected = np.inf, -1
            for number, (a, b, c) in enumerate(faces):
                matrix = np.stack([np.append(pixels[i], 1.0) for i in (a, b, c)], 1)
                if abs(np.linalg.det(matrix)) < 1e-9 or min(z[[a, b, c]]) < 0:
                    continue
                flat = np.linalg.solve(matrix, [column, row, 1.0])
                if flat.min() < 0:
                    continue
                here = 1 / (flat / z[[a, b, c]]).sum()
                if here < best:
                    best, expected, shares = here, number, flat / z[[a, b, c]] * here
            assert shown.face[row, column] == expected
            assert shown.z[row, column] == pytest.approx(best, rel=1e-5)
            if expected >= 0:
                np.testing.assert_allclose(shown.shares[row, column], shares, atol=1e-5)


def test_many_triangles_are_tried_in_parts(monkeypatch):
    from voxnerf import raster

    ball = trimesh.creation.icosphere(2, 0.5)
    camera = orbit_camera(10, 10, 40, 40)
    whole = rasterize(*camera.project(ball.vertices), ball.faces, 40, 40)
    monkeypatch.setattr(raster, "_CANDIDATES", 50)
    parts = rasterize(*camera.project(ball.vertices), ball.faces, 40, 40)
    np.testing.assert_array_equal(whole.z, parts.z)
    assert (whole.face >= 0).sum() > 100
