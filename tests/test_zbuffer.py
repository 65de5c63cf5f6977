"""The rasteriser: projection, and which triangle is seen."""

import numpy as np
import pytest
import trimesh

from voxnerf.cameras import orbit_camera
from voxnerf.zbuffer import rasterize


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
