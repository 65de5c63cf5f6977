"""DreamFusion's scene: normals, light, orientation, and the gradients of all three."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.kernels import on
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig
from voxnerf.lights import Light
from voxnerf.march import WEIGHT_THRESHOLD
from voxnerf.rays import camera_rays, intersect_box
from voxnerf.shaded_grid import ShadedGrid
from voxnerf.shading import lambert, normals, turned_away, voxel_centers
from voxnerf.volrend import compositing_weights

RADIUS = 0.5
LAMP = np.array([-1.2, 0.9, 0.4])


def sphere(resolution, steepness=2000.0, radius=RADIUS):
    """Raw density, positive inside; a negative steepness turns it inside out."""
    return steepness * (radius - voxel_centers(resolution, 1.0).norm(dim=1, keepdim=True))


def shaded(raw, **config):
    resolution = raw.shape[-1]
    config = {"density_shift": 0.0, "background_mapping": "seamless", **config}
    grid = ShadedGrid(GridConfig(resolution, channels=3, **config), torch.Generator().manual_seed(0))
    with torch.no_grad():
        grid.density.copy_(raw)
    return grid


def camera_of(size=6, light=None, azimuth=40.0):
    return replace(orbit_camera(azimuth, 20.0, size, size), light=light)


def test_voxels_are_where_the_renderer_has_them():
    """A grid that holds its own places is looked up at them."""
    places = voxel_centers(5, 0.6)
    assert places[0, :, 0, 0, 4].tolist() == pytest.approx([0.48, -0.48, -0.48])
    grid = shaded(torch.zeros(1, 1, 5, 5, 5), half_size=0.6)
    with torch.no_grad():
        grid.color.copy_(places)
    some = places[0].permute(1, 2, 3, 0).reshape(-1, 3)
    torch.testing.assert_close(grid.color_at(some), some)


def test_normals_of_a_sphere_are_radial():
    n, places = normals(sphere(32)), voxel_centers(32, 1.0)
    radius = places.norm(dim=1)
    cosine = (n * places).sum(1) / (n.norm(dim=1) * radius)
    voxel = 2 / 32
    assert cosine[(radius < RADIUS - voxel) & (radius > 3 * voxel)].min() > 0.99
    assert cosine[(radius - RADIUS).abs() < voxel].min() > 0.99
    assert n.norm(dim=1).max() <= 1 + 1e-6
    assert n.norm(dim=1)[(radius - RADIUS).abs() < voxel].min() > 0.999


def test_normals_by_hand():
    density = torch.zeros(1, 1, 3, 3, 3)
    density[..., 2, :, :] = 4.0  # it rises along z
    n = normals(density)
    torch.testing.assert_close(n[0, :, 1, 1, 1], torch.tensor([0.0, 0.0, -1.0]))
    assert n[0, :, 0, 1, 1].abs().max() == 0, "nothing changes there"


def test_light_by_hand():
    """A lamp above: full light on what faces it, half of the diffuse at 60 degrees, ambient behind."""
    places, n = torch.zeros(1, 3, 1, 1, 3), torch.zeros(1, 3, 1, 1, 3)
    n[0, :2, 0, 0] = torch.tensor([[0.0, 3**0.5 / 2, 0.0], [1.0, 0.5, -1.0]])
    seen = lambert(n, places, torch.tensor([0.0, 2.0, 0.0]), 0.1, 0.9).flatten()
    assert seen.tolist() == pytest.approx([1.0, 0.55, 0.1])
    eye = torch.tensor([0.0, -1.0, 0.0])  # its rays run upwards
    assert turned_away(n, places, eye).flatten().tolist() == pytest.approx([1.0, 0.25, 0.0])


@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_a_textureless_sphere_shows_the_light_on_it(kernel):
    size = 24
    camera = camera_of(size, Light(LAMP, 0.2, 0.7, textureless=True))
    ball = on(kernel, shaded(sphere(40)))
    with torch.no_grad():
        seen = ball.render(camera)
    origin, rays = (t.double() for t in camera_rays(camera))
    middle = -(rays @ origin)
    inside = middle**2 - (origin @ origin) + RADIUS**2
    hit = inside > 0.3 * RADIUS**2  # what is seen at a glance is a matter of a voxel
    places = origin + rays[hit] * (middle[hit] - inside[hit].sqrt())[:, None]
    cosine = (F.normalize(torch.tensor(LAMP) - places, dim=1) * places / RADIUS).sum(1)
    expected = 2 * (0.2 + 0.7 * cosine.clamp(min=0)) - 1
    found = seen.latent[0, :, hit.view(size, size)].double()
    assert (found - expected).abs().max() < 0.1
    assert (found - expected).abs().mean() < 0.04


def test_what_a_light_shows():
    """The albedo without one; the albedo times the light; the light alone. The background is never lit."""
    ball, lamp = shaded(sphere(24)), Light(LAMP, ambient=0.3, diffuse=0.0)
    with torch.no_grad():
        plain, lit, white = (
            ball.render(camera_of(12, light)).latent / 2 + 0.5
            for light in (None, lamp, replace(lamp, textureless=True))
        )
        opacity = ball.render(camera_of(12)).opacity
    solid, empty = opacity > 0.9999, opacity < 1e-4
    assert solid.any()
    assert empty.any()
    torch.testing.assert_close(lit[..., solid], 0.3 * plain[..., solid], atol=2e-3, rtol=0)
    torch.testing.assert_close(white[..., solid], torch.full_like(white[..., solid], 0.3), atol=2e-3, rtol=0)
    torch.testing.assert_close(lit[..., empty], plain[..., empty], atol=1e-3, rtol=0)
    assert plain.min() >= 0
    assert plain.max() <= 1


def test_orientation_tells_a_ball_from_one_inside_out():
    with torch.no_grad():
        good, bad = (shaded(sphere(32, k)).render(camera_of(16)).orientation for k in (2000.0, -2000.0))
    assert good < 1e-3
    assert bad > 0.3


def plain_orientation(grid, camera):
    """Return threestudio's formula over all samples, its weights detached."""
    origin, rays = (t.to(grid.density.dtype) for t in camera_rays(camera))
    enter, leave = intersect_box(origin, rays, grid.aabb)
    n = int((leave - enter).max() / grid.config.step_size) + 1
    travelled = torch.arange(n, dtype=origin.dtype)[:, None] * grid.config.step_size
    counts = travelled < leave - enter
    points = origin + rays * (enter + travelled)[..., None]
    density = torch.where(counts, grid.density_at(points.view(-1, 3)).view(n, -1), 0)
    weights, remaining = compositing_weights(density, grid.config.step_size)
    charge = turned_away(normals(grid.density), grid.places, origin)
    where = (points / grid.config.half_size)[None, None]
    seen = F.grid_sample(charge, where, align_corners=False)[0, 0, 0]
    shown = torch.where(weights > WEIGHT_THRESHOLD, weights, 0).detach()
    return (shown * seen).sum() / (remaining < 1).sum()


@pytest.mark.parametrize("kernel", ["torch", "numba"])
def test_orientation_is_that_of_all_samples_and_moves_normals_alone(kernel):
    raw = 3 * torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    grids = [shaded(raw), on(kernel, shaded(raw))]
    for grid in grids:
        grid.log_density_scale.data.fill_(0.3)
    expected, found = plain_orientation(grids[0], camera_of()), grids[1].render(camera_of()).orientation
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    expected.backward()
    found.backward()
    theirs, ours = (grid.density.grad for grid in grids)
    torch.testing.assert_close(ours, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=1e-3)
    assert all(grids[1].get_parameter(name).grad is None for name in ("color", "log_density_scale"))


@pytest.mark.parametrize("light", [None, Light(LAMP), Light(LAMP, 0.4, 0.6, textureless=True)])
def test_all_gradients_are_those_of_finite_differences(light):
    grid = shaded(torch.zeros(1, 1, 3, 3, 3)).double()
    generator, camera = torch.Generator().manual_seed(2), camera_of(2, light)
    names = [name for name, _ in grid.named_parameters()]
    values = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in grid.parameters()]
    values[names.index("density")] *= 2

    def seen(*values):
        for name, value in zip(names, values):
            grid._parameters[name] = value
        out = grid.render(camera)
        return out.latent, out.depth, out.opacity

    assert torch.autograd.gradcheck(seen, [v.requires_grad_() for v in values], eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("light", [None, Light(LAMP), Light(LAMP, textureless=True)])
def test_the_fused_kernel_renders_it_like_the_plain_one(light):
    seen = []
    for kernel in ("torch", "numba"):
        grid = on(kernel, shaded(sphere(16, 20.0)))
        out = grid.render(camera_of(10, light))
        (out.latent.square().sum() + 50 * out.orientation).backward()
        seen.append((out.latent.detach(), grid.density.grad))
    for plain, fused in zip(*seen):
        torch.testing.assert_close(fused, plain, atol=1e-4 * plain.abs().max().item(), rtol=1e-3)


def test_for_the_eye_it_is_the_same_scene_without_a_gradient():
    ball, camera = shaded(sphere(24), color_scale=0.0), camera_of(8, Light(LAMP))
    fine, coarse = ball.render_fine(camera, subpixels=2, upscale=2), ball.render(camera)
    assert fine.latent.shape == (1, 3, 16, 16)
    assert not fine.latent.requires_grad
    middle = F.avg_pool2d(fine.latent, 2)[..., 3:5, 3:5]
    torch.testing.assert_close(middle, coarse.latent.detach()[..., 3:5, 3:5], atol=0.1, rtol=0)


def test_before_a_plain_wall_its_color_is_the_mean_of_the_backgrounds():
    ball = shaded(sphere(8), color_scale=3.0)
    wall = ball.before_plain_wall()
    assert isinstance(wall, ShadedGrid)
    directions = F.normalize(torch.randn(20, 3), dim=1)
    expected = ball.background.sigmoid().mean((2, 3)).expand(20, 3)
    torch.testing.assert_close(wall.background_at(directions), expected)


def test_a_lit_scene_is_rgb():
    with pytest.raises(ValueError, match=r"3 channels, RGB. Received 4"):
        ShadedGrid(GridConfig(8))


def test_dreamfusions_start_is_threestudios_blob():
    """softplus(10 (1 - r / 0.5)): 10 in the middle, ln 2 at 0.5."""
    grid = ShadedGrid(GridConfig(64, channels=3, start="dreamfusion", density_shift=0.0))
    points = torch.tensor([[0.25, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.9]])
    expected = F.softplus(10 * (1 - points.norm(dim=1) / 0.5))
    torch.testing.assert_close(grid.density_at(points), expected, atol=0.02, rtol=0.02)
