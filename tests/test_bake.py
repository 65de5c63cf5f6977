"""The painting of a surface: which views color it, and what is not painted on it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from voxnerf.bake import Painter
from voxnerf.cameras import orbit_camera
from voxnerf.snapshot import Snapshot, turn_cameras
from voxnerf.surface import NoMeshError
from voxnerf.zbuffer import rasterize


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
    views = [picture_of(vertices, faces, colors, orbit_camera(a, 0, 32, 32)) for a in (0, 40)]
    painter = Painter(vertices, normals, faces, views, edge=0.02)
    assert (
        painter.vertex_colors_u8[behind & (abs(vertices[:, 1]) < 0.1) & (vertices[:, 2] > -0.05)][:, 2].min()
        > 200
    )


def test_a_shadow_within_a_large_triangle_is_not_painted():
    small = trimesh.creation.icosphere(3, 0.1)
    small.apply_translation([-0.6, 0, 0])
    corners = np.array([[0.0, -1, -1], [0, -1, 1], [0, 1, 1], [0, 1, -1]])
    plate = np.concatenate([corners * 0.5, corners * 0.7])  # two large triangles, and a border around them
    border = [[i, j, i + 4] for i, j in zip(range(4), (1, 2, 3, 0))]
    border += [[j, j + 4, i + 4] for i, j in zip(range(4), (1, 2, 3, 0))]
    vertices = np.concatenate([plate, small.vertices])
    faces = np.concatenate([[[0, 1, 2], [0, 2, 3]], border, small.faces + 8])
    normals = np.concatenate([np.tile([-1.0, 0, 0], (8, 1)), small.vertex_normals])
    colors = np.where(np.arange(len(vertices))[:, None] >= 8, [0, 255, 0], [255, 0, 0]).astype(float)
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


def test_soles_take_the_color_of_the_feet_and_not_of_the_background():
    """No view is from further below than -5 degrees: a sole is a glance, in which the background shows."""
    standing = trimesh.creation.icosphere(4, 0.3)
    standing.vertices[:, 1] = (standing.vertices[:, 1] * 2).clip(-0.45)
    colors = np.full((len(standing.vertices), 3), 60.0)
    cameras = [*turn_cameras(32), *(orbit_camera(a, e, 32, 32) for e in (-5, 50) for a in range(0, 360, 45))]
    views = [picture_of(standing.vertices, standing.faces, colors, camera, blur=33) for camera in cameras]
    painted = painted_by(standing, views)
    sole = standing.vertices[:, 1] < -0.44
    assert sole.sum() > 100
    assert painted[sole].max() < 100, "the background is 255"


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
