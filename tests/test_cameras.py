from dataclasses import replace

import numpy as np
import pytest
import torch

from voxnerf.cameras import orbit, orbit_camera, sample_dreamfusion_camera, sample_sjc_cameras
from voxnerf.lights import Light, draw_light
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


def drawn(n, **of):
    return [sample_dreamfusion_camera(32, np.random.default_rng([5, step]), **of) for step in range(n)]


@pytest.mark.parametrize("low_high", [(-10.0, 90.0), (-10.0, 45.0)])
def test_dreamfusions_elevations_are_half_uniform_in_degrees_and_half_on_the_sphere(low_high):
    """Against the law's own distribution function, within three of its standard errors."""
    elevations = np.array([c.elevation_deg for c in drawn(1500, elevations_deg=low_high)])
    low, high = low_high
    assert low <= elevations.min() < low + 2
    assert high - 3 < elevations.max() <= high
    for at in np.linspace(low, high, 9)[1:-1]:
        s = np.sin(np.deg2rad([low, at, high]))
        below = 0.5 * (at - low) / (high - low) + 0.5 * (s[1] - s[0]) / (s[2] - s[0])
        assert (elevations < at).mean() == pytest.approx(below, abs=0.04)


def test_dreamfusions_other_numbers_are_as_stated():
    cameras = drawn(1500)
    azimuths = np.array([c.azimuth_deg for c in cameras])
    assert np.histogram(azimuths, 6, (0, 360))[0] / 1500 == pytest.approx(1 / 6, abs=0.03)
    fovs = np.array([2 * np.rad2deg(np.arctan(16 / c.intrinsics[0, 0])) for c in cameras])
    assert 40 <= fovs.min() < 40.3
    assert 69.7 < fovs.max() <= 70
    assert fovs.mean() == pytest.approx(55, abs=0.8)
    eyes = np.stack([c.c2w[:3, 3] for c in cameras])
    steady = np.stack([orbit_camera(c.azimuth_deg, c.elevation_deg, 8, 8, 1.0).c2w[:3, 3] for c in cameras])
    radii = (eyes * steady).sum(1)  # the shake along the line of sight is left: variance 0.1^2 / 3
    assert radii.mean() == pytest.approx(1.75, abs=0.02)
    assert radii.var() == pytest.approx(0.5**2 / 12 + 0.1**2 / 3, rel=0.1)
    across = eyes - radii[:, None] * steady
    assert np.square(across).sum(1).mean() == pytest.approx(2 * 0.1**2 / 3, rel=0.1)
    assert np.abs(across).max() < 0.2


def test_dreamfusions_cameras_look_beside_the_origin_and_are_a_little_tilted():
    """Across the line of sight the target strays by 0.2 either way; at the horizon the roll is 0.02."""
    cameras = drawn(1500)
    back = np.stack([c.c2w[:3, 2] for c in cameras])
    eyes = np.stack([c.c2w[:3, 3] for c in cameras])
    past = eyes - (eyes * back).sum(1, keepdims=True) * back  # where the line of sight is nearest the origin
    assert np.square(past).sum(1).mean() == pytest.approx(2 * 0.2**2, rel=0.1)
    low = np.array([abs(c.elevation_deg) < 10 for c in cameras])
    rolls = np.stack([c.c2w[:3, 0] for c in cameras])[low][:, 1]
    assert rolls.std() == pytest.approx(0.02, rel=0.15)
    for camera in cameras[:20]:
        np.testing.assert_allclose(camera.c2w[:3, :3].T @ camera.c2w[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.c2w[:3, :3]) == pytest.approx(1)
        assert camera.c2w[1, 1] > -0.2, "up stays up"


def test_a_lit_camera_keeps_its_light_when_it_is_resized():
    lit = replace(orbit_camera(10, 20, 8, 8), light=Light(np.ones(3)))
    assert lit.resized(4).light is lit.light
    assert lit.resized(4).height == 32


EYE = np.array([-1.0, 1.0, 0.5])


def lights(law, n=6000, **softness):
    made = [draw_light(law, EYE, np.random.default_rng([1, step]), **softness) for step in range(n)]
    return made, [light for light in made if light]


@pytest.mark.parametrize("law", ["dreamfusion", "magic3d"])
def test_a_quarter_is_unlit_and_half_of_the_rest_without_texture(law):
    made, lit = lights(law)
    assert len(lit) / len(made) == pytest.approx(0.75, abs=0.02)
    assert np.mean([light.textureless for light in lit]) == pytest.approx(0.5, abs=0.02)
    dists = np.array([np.linalg.norm(light.position) for light in lit])
    assert 0.8 <= dists.min() < 0.81
    assert 1.49 < dists.max() <= 1.5
    assert dists.mean() == pytest.approx(1.15, abs=0.01)


@pytest.mark.parametrize("law", ["dreamfusion", "magic3d"])
def test_lights_can_be_soft_and_keep_the_colors(law):
    """Where they come from and which views are lit does not change with it."""
    usual, lit = lights(law, 300)[0], lights(law, 300, textureless=0.0, least_ambient=0.7)[0]
    assert [light is None for light in lit] == [light is None for light in usual]
    pairs = [(soft, hard) for soft, hard in zip(lit, usual) if hard]
    assert not any(soft.textureless for soft, _ in pairs)
    assert all((soft.position == hard.position).all() for soft, hard in pairs)
    assert all(soft.ambient == pytest.approx(max(0.7, hard.ambient)) for soft, hard in pairs)
    assert all(soft.diffuse == pytest.approx(1 - soft.ambient) for soft, _ in pairs)


def test_dreamfusions_light_comes_from_about_the_camera():
    _, lit = lights("dreamfusion")
    assert {(light.ambient, light.diffuse) for light in lit} == {(0.1, 0.9)}
    towards = np.stack([light.position / np.linalg.norm(light.position) for light in lit])
    rng = np.random.default_rng(9)
    expected = EYE + rng.standard_normal((200_000, 3))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(towards.mean(0), expected.mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(towards.T), np.cov(expected.T), atol=0.03)


def test_magic3ds_light_is_within_60_degrees_of_the_camera_and_soft():
    _, lit = lights("magic3d")
    towards = np.stack([light.position / np.linalg.norm(light.position) for light in lit])
    axis = EYE / np.linalg.norm(EYE)
    angles = np.rad2deg(np.arccos((towards @ axis).clip(-1, 1)))
    assert 59 < angles.max() <= 60 + 1e-6
    assert np.histogram(angles, 4, (0, 60))[0] / len(lit) == pytest.approx(0.25, abs=0.025)
    across = towards - (towards @ axis)[:, None] * axis
    np.testing.assert_allclose(across.mean(0), 0, atol=0.03)
    diffuse = np.array([light.diffuse for light in lit])
    assert np.histogram(diffuse, 4, (0, 1))[0] / len(lit) == pytest.approx(0.25, abs=0.025)
    assert all(light.ambient == 1 - light.diffuse for light in lit)
