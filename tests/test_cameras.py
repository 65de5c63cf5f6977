import numpy as np
import pytest
import torch

from voxnerf.cameras import orbit, orbit_camera, sample_sjc_cameras
from voxnerf.rays import camera_rays, intersect_box


def test_front_camera_stands_at_minus_x_and_looks_at_the_origin():
    camera = orbit_camera(0.0, 0.0, 64, 64, radius=1.5)
    np.testing.assert_allclose(camera.c2w[:3, 3], [-1.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(-camera.c2w[:3, 2], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.c2w[:3, 1], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize(("fov", "focal"), [(40, 87.92), (60, 55.43), (70, 45.70)])
def test_focal_length(fov, focal):
    assert orbit_camera(0, 0, 64, 64, fov_deg=fov).intrinsics[0, 0] == pytest.approx(focal, abs=0.01)


def test_angles_are_those_asked_for():
    for azimuth, elevation in [(0, 0), (90, 30), (222, -6), (359, 80)]:
        camera = orbit_camera(azimuth, elevation, 8, 8)
        assert camera.azimuth_deg == pytest.approx(azimuth)
        assert camera.elevation_deg == pytest.approx(elevation)
        x, _, z = camera.c2w[:3, 3]
        assert np.rad2deg(np.arctan2(z, -x)) % 360 == pytest.approx(azimuth, abs=1e-6)


def test_sjc_distribution():
    cameras = sample_sjc_cameras(4000, 64, np.random.RandomState(0))
    elevation = np.array([c.elevation_deg for c in cameras])
    assert elevation.min() > -6.39
    assert elevation.max() < 83.54
    assert (elevation > 41.81).mean() == pytest.approx(0.30, abs=0.03)
    fov = [2 * np.rad2deg(np.arctan(32 / c.intrinsics[0, 0])) for c in cameras]
    assert 40 <= min(fov) < 41
    assert 69 < max(fov) <= 70


def test_numpy_global_state_is_left_alone():
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    sample_sjc_cameras(10, 8, np.random.RandomState(0))
    assert (np.random.get_state()[1] == before).all()


def test_orbit_is_even_and_starts_at_the_front():
    assert [c.azimuth_deg for c in orbit(4, 8, 10.0)] == [0, 90, 180, 270]


def test_subpixel_rays_average_to_the_pixel_ray():
    camera = orbit_camera(30, 20, 6, 6)
    _, coarse = camera_rays(camera)
    _, fine = camera_rays(camera.resized(4))
    mean = fine.view(6, 4, 6, 4, 3).mean((1, 3)).view(-1, 3)
    mean = mean / mean.norm(dim=1, keepdim=True)
    torch.testing.assert_close(mean, coarse, atol=2e-3, rtol=0)


def test_rays_go_through_their_pixels():
    camera = orbit_camera(70, 25, 5, 7)
    origin, directions = camera_rays(camera)
    points = (origin + 2 * directions).double().numpy() - camera.c2w[:3, 3]
    local = points @ camera.c2w[:3, :3]
    u = camera.intrinsics[0, 0] * local[:, 0] / -local[:, 2] - camera.intrinsics[0, 2]
    v = camera.intrinsics[1, 1] * local[:, 1] / -local[:, 2] - camera.intrinsics[1, 2]
    np.testing.assert_allclose(u.reshape(5, 7), np.tile(np.arange(7), (5, 1)), atol=1e-4)
    np.testing.assert_allclose(v.reshape(5, 7), np.tile(np.arange(5)[:, None], (1, 7)), atol=1e-4)


def test_box_by_hand():
    aabb = torch.tensor([[-1.0] * 3, [1.0] * 3])
    directions = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0]])
    enter, leave = intersect_box(torch.tensor([-1.5, 0, 0]), directions, aabb)
    assert enter[0] == pytest.approx(0.5)
    assert leave[0] == pytest.approx(2.5)
    assert leave[1] <= enter[1], "a ray that misses has no passage"
    assert leave[2] == 0, "a box behind the camera has no passage"
    enter, _ = intersect_box(torch.zeros(3), directions, aabb)
    assert (enter == 0).all(), "a camera inside the box starts at itself"
