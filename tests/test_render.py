import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kernels import KERNELS, on
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.march import WEIGHT_THRESHOLD, march
from voxnerf.rays import camera_rays, intersect_box
from voxnerf.render import BACKGROUND_DIST, render, render_antialiased
from voxnerf.volrend import compositing_weights


def test_weights_by_hand():
    density = torch.tensor([[0.0], [math.log(2)], [math.log(2)]])
    weights, remaining = compositing_weights(density, 1.0)
    torch.testing.assert_close(weights[:, 0], torch.tensor([0.0, 0.5, 0.25]))
    assert remaining.item() == pytest.approx(0.25)


def test_weight_invariants():
    density = torch.rand(40, 30) ** 4 * 100
    weights, remaining = compositing_weights(density, 0.05)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0) + remaining, torch.ones(30))


def test_weights_pass_gradcheck():
    density = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: compositing_weights(d, 0.3), density)


def some_grid(seed=0, resolution=8, **config):
    grid = VoxelGrid(GridConfig(resolution, **config), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        grid.density.copy_(3 * torch.randn(grid.density.shape, generator=torch.Generator().manual_seed(1)))
        grid.log_density_scale.fill_(0.2)
    return grid


def naive_render(grid, camera):
    """SJC's ray marching as loops over rays and samples."""
    origin, directions = camera_rays(camera)
    enter, leave = intersect_box(origin, directions, grid.aabb)
    step = grid.config.step_size
    n_samples = int((leave - enter).max() / step) + 1
    latents, depths, all_weights = [], [], []
    for ray in range(len(directions)):
        transmittance, latent, depth, row = 1.0, torch.zeros(4), 0.0, []
        for i in range(n_samples):
            weight = 0.0
            if i * step < leave[ray] - enter[ray]:
                dist = enter[ray] + i * step
                point = (origin + dist * directions[ray])[None]
                alpha = 1 - math.exp(-grid.density_at(point).item() * step)
                weight = alpha * transmittance
                transmittance *= 1 - alpha
                depth += weight * dist.item()
                if weight > WEIGHT_THRESHOLD:
                    latent = latent + weight * grid.color_at(point)[0]
            row.append(weight)
        latents.append(latent + transmittance * grid.background_at(directions[ray : ray + 1])[0])
        depths.append(depth + transmittance * BACKGROUND_DIST)
        all_weights.append(row)
    size = camera.height, camera.width
    return (
        torch.stack(latents).T.reshape(1, 4, *size),
        torch.tensor(depths).view(size),
        torch.tensor(all_weights).T,
    )


@KERNELS
@pytest.mark.parametrize("azimuth", [0.0, 131.0])
def test_render_equals_loops(azimuth, kernel):
    grid, camera = some_grid(), orbit_camera(azimuth, 25.0, 5, 5)
    with torch.no_grad():
        out = render(on(kernel, grid), camera)
        latent, depth, weights = naive_render(grid, camera)
    torch.testing.assert_close(out.latent, latent, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.depth, depth, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out.opacity.flatten(), weights.sum(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.emptiness, torch.log1p(10 * weights).mean(), atol=1e-5, rtol=1e-4)


LOSSES = {
    "latent": lambda out: out.latent.sin().sum(),
    "depth": lambda out: out.depth.square().mean(),
    "opacity": lambda out: out.opacity.sin().sum(),
    "emptiness": lambda out: out.emptiness,
}


def opaque_ball(resolution):
    grid = some_grid(resolution=resolution)
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        grid.density.copy_(200 * (0.5 - (x**2 + y**2 + z**2).sqrt())[None, None])
    return grid


def compare_tiny_gradients(kernel, loss, resolution, device="cpu"):
    """Compare in float32 against float64, a decade at a time."""
    camera, gradients = orbit_camera(50, 20, 7, 7), []
    for grid, path in ((opaque_ball(resolution).double(), "torch"), (opaque_ball(resolution), kernel)):
        LOSSES[loss](render(on(path, grid.to(device)), camera)).backward()
        gradients.append(grid.density.grad.double().cpu())
    exact, ours = gradients
    largest, decades = exact.abs().max(), 0
    torch.testing.assert_close(ours / largest, exact / largest, atol=1e-5, rtol=0)
    for decade in range(12):
        here = (exact.abs() <= 10.0**-decade * largest) & (exact.abs() > 10.0 ** -(decade + 1) * largest)
        if here.sum() > 20:
            decades += 1
            assert ((ours - exact).abs()[here] / exact.abs()[here]).median() < 5e-5, decade
    assert decades > 4


@KERNELS
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_behind_something_opaque(kernel, loss):
    """Tiny gradients count, since Adamax enlarges them."""
    compare_tiny_gradients(kernel, loss, 12 if kernel == "triton" else 40)  # Triton's interpreter is slow


def gradients_of(grid, camera, kernel):
    grid.zero_grad()
    out = render(on(kernel, grid), camera)
    (out.latent.sin().sum() + out.depth.square().mean() + 50 * out.emptiness).backward()
    return [p.grad for p in grid.parameters()]


@pytest.mark.parametrize("resolution", [2, 3, 5, 8, 9, 10, 17, 33])
def test_gradients_are_the_plain_path_s_for_any_number_of_slabs_and_any_view(resolution):
    """The fused CPU kernel writes its gradients in up to 8 slabs along y, in two rounds."""
    grid = some_grid(resolution=resolution)
    views = [(0, 0, 1.5), (90, 0, 1.5), (37, 80, 1.5), (200, -70, 1.5), (10, 5, 0.5)]
    for azimuth, elevation, radius in views:
        camera = orbit_camera(azimuth, elevation, 12, 12, radius=radius)
        for expected, ours in zip(gradients_of(grid, camera, "torch"), gradients_of(grid, camera, "numba")):
            largest = expected.abs().max().clamp(min=1e-12)
            torch.testing.assert_close(ours / largest, expected / largest, atol=1e-4, rtol=0)


def test_the_fused_kernel_s_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    grid, camera = some_grid(resolution=40), orbit_camera(30, 20, 32, 32)
    found = []
    for n in (1, 2, 3, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n: n)  # what the kernel asks
        seen = march(on("numba", grid), *camera_rays(camera), 10.0)
        loss = [seen.latent, seen.depth, seen.remaining, seen.emptiness]
        grid.zero_grad()
        torch.autograd.backward(loss, [torch.ones_like(t) for t in loss])
        found.append(
            [*(t.detach() for t in loss), *(p.grad for p in grid.parameters() if p.grad is not None)]
        )
    for others in found[1:]:
        assert len(others) == 7
        assert all(torch.equal(a, b) for a, b in zip(found[0], others))


@pytest.mark.parametrize("at", [[1.2, 0.5, -0.8], [0.1, -0.2, 0.3], [0.0, 1.0, 0.0], [0.5, -1.4, 0.0]])
@pytest.mark.parametrize("resolution", [2, 3, 9, 40])
def test_every_sample_lies_in_the_one_slab_that_adds_its_gradients(resolution, at):
    """Or two threads would write one voxel at the same time, seldom."""
    from voxnerf import march_cpu_places as cpu
    from voxnerf.march_cpu_voxels import _cut_rays, _slab_bounds

    generator = torch.Generator().manual_seed(0)
    directions = torch.cat([torch.randn(200, 3, generator=generator), torch.eye(3), -torch.eye(3)])
    directions[:20, 1] *= 1e-6
    directions, origin = torch.nn.functional.normalize(directions), torch.tensor(at)
    grid = some_grid(resolution=resolution)
    enter, leave = intersect_box(origin, directions, grid.aabb)
    box = cpu.make_box(grid.config, WEIGHT_THRESHOLD, 10.0)
    first = cpu.count_samples((leave - enter).numpy(), box.step)
    rays, n_rays = cpu.Rays(origin.numpy(), directions.numpy(), enter.numpy(), first), len(directions)
    assert first[-1] > 100
    buffers = cpu.make_buffers(rays)
    bounds = _slab_bounds(rays, box, buffers)
    assert bounds[0] == 0 and bounds[-1] == resolution - 1 and (np.diff(bounds) > 0).all()
    cuts = np.full((n_rays, len(bounds)), -1)
    _cut_rays(rays, box, bounds, 0, n_rays, cuts)
    for ray in range(n_rays):
        n = first[ray + 1] - first[ray]
        cpu.walk(rays, box, ray, 0, n, buffers.own[0], buffers.at, buffers.share)
        cell = buffers.at[:n] // resolution % resolution
        expected = np.searchsorted(bounds, cell, side="right") - 1
        found = np.full(n, -1)
        for slab, pair in enumerate(zip(cuts[ray, :-1], cuts[ray, 1:])):
            assert (found[min(pair) : max(pair)] == -1).all(), "no sample lies in two slabs"
            found[min(pair) : max(pair)] = slab
        assert (found == expected).all()


def test_an_exponent_far_below_zero_has_a_gradient_of_zero():
    grid = some_grid()
    with torch.no_grad():
        grid.log_density_scale.fill_(-120.0)
    gradients_of(grid, orbit_camera(10, 10, 4, 4), "numba")
    assert grid.log_density_scale.grad == 0


@KERNELS
def test_a_second_backward_pass_adds_the_same_again(kernel):
    grid = some_grid()
    latent = render(on(kernel, grid), orbit_camera(10, 10, 6, 6)).latent
    latent.sum().backward(retain_graph=True)
    once = [p.grad.clone() for p in grid.parameters()]
    latent.sum().backward()
    for first, both in zip(once, grid.parameters()):
        torch.testing.assert_close(both.grad, 2 * first)


def test_a_gradient_of_a_gradient_is_refused_by_the_fused_kernel():
    grid = some_grid()
    latent = render(on("numba", grid), orbit_camera(10, 10, 6, 6)).latent
    (slope,) = torch.autograd.grad(latent.square().sum(), grid.density, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


@KERNELS
def test_emptiness_prefers_few_opaque_samples(kernel):
    """The same opacity costs less in one place than spread along the ray."""
    values = []
    for dense in (slice(0, 8), slice(3, 4)):
        grid = some_grid()
        with torch.no_grad():
            grid.density.fill_(-30.0)
            grid.density[..., dense] = 0.0 if dense.stop == 8 else 30.0
        camera = orbit_camera(0, 0, 1, 1)
        rays = camera_rays(camera)
        values.append(march(on(kernel, grid), *rays, 10.0).emptiness.item())
    assert values[1] < values[0]


def test_initial_fog():
    grid = VoxelGrid(GridConfig(resolution=100))
    assert grid.density_at(torch.zeros(1, 3)).item() == pytest.approx(0.31326, abs=1e-5)
    assert grid.config.step_size == pytest.approx(0.01)


def test_first_colors_have_their_means():
    config = GridConfig(
        resolution=8, color_scale=0.0, color_mean=(1.0, 2.0, 3.0, 4.0), background_mean=(0, 0, 0, 5)
    )
    grid = VoxelGrid(config)
    assert torch.equal(grid.color, torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1, 1).expand_as(grid.color))
    assert torch.equal(grid.background[0, :, 1, 2], torch.tensor([0.0, 0, 0, 5]))
    noisy = VoxelGrid(replace(config, color_scale=1.0), torch.Generator().manual_seed(0))
    plain = VoxelGrid(GridConfig(resolution=8), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy.color - grid.color, plain.color)
    with pytest.raises(ValueError, match="color_mean must have a number for each of the 4 .* It has 3"):
        VoxelGrid(replace(config, color_mean=(1.0, 2.0, 3.0)))


def test_camera_inside_the_box_renders():
    out = render(some_grid(), orbit_camera(10, 5, 4, 4, radius=0.5))
    assert torch.isfinite(out.latent).all()


def test_a_view_that_misses_the_box_shows_the_background_alone():
    grid, camera = some_grid(half_size=0.05), orbit_camera(0, 0, 4, 4, fov_deg=70)
    out = render(grid, camera)
    _, directions = camera_rays(camera)
    expected = grid.background_at(directions[:1])[0]
    torch.testing.assert_close(out.latent[0, :, 0, 0], expected)
    assert out.opacity[0, 0] == 0


def test_antialiased_is_a_weighted_mean_of_subpixels_and_chunks_do_not_matter():
    grid, camera = some_grid(), orbit_camera(40, 15, 6, 6)
    whole = render_antialiased(grid, camera)
    chunked = render_antialiased(grid, camera, rays_per_chunk=50)
    assert whole.latent.shape == (1, 4, 6, 6)
    torch.testing.assert_close(whole.latent, chunked.latent)
    fine = render(grid, camera.resized(4)).latent
    # An antialiased bilinear resize by 4 weighs 8 neighbours by a triangle: (1, 3, 5, 7, 7, 5, 3, 1) / 32.
    triangle = torch.tensor([1.0, 3, 5, 7, 7, 5, 3, 1]) / 32
    patch = fine[0, :, 6:14, 6:14]
    expected = torch.einsum("cij,i,j->c", patch, triangle, triangle)
    torch.testing.assert_close(whole.latent[0, :, 2, 2], expected, atol=1e-5, rtol=1e-4)


def angles(azimuths, elevation=0.0):
    return torch.stack([camera_rays(orbit_camera(a, elevation, 1, 1))[1][0] for a in azimuths])


def test_published_background_tears_at_its_seam_and_the_seamless_one_does_not():
    near = torch.tensor([[-1.0, 1e-4, 0.0], [-1.0, -1e-4, 0.0]])
    published, seamless = some_grid(), some_grid(background_mapping="seamless")
    jump = (published.background_at(near).diff(dim=0)).abs().max()
    smooth = torch.tensor([[-1.0, 0.0, 1e-4], [-1.0, 0.0, -1e-4]])
    assert jump > 0.1
    assert seamless.background_at(smooth).diff(dim=0).abs().max() < 1e-2


def test_seamless_background_has_its_pole_on_y():
    grid = some_grid(background_mapping="seamless")
    up = torch.tensor([[1e-6, 1.0, 0.0], [-1e-6, 1.0, 0.0], [0.0, 1.0, 1e-6]])
    values = grid.background_at(up)
    texels = grid.background[0, :, :, 0]
    assert ((values >= texels.min(1).values - 1e-5) & (values <= texels.max(1).values + 1e-5)).all()
    level = grid.background_at(angles(range(0, 360, 15)))
    assert level.std(dim=0).max() > 0.05, "it varies along the horizon"


def test_before_a_plain_wall_the_object_is_the_same():
    grid, camera = some_grid(), orbit_camera(180, 5, 6, 6)  # towards the seam of the published mapping
    alone, before = grid.before_plain_wall(), [p.detach().clone() for p in grid.parameters()]
    seen, with_wall = grid.render(camera), alone.render(camera)
    torch.testing.assert_close(with_wall.opacity, seen.opacity)
    _, directions = camera_rays(camera)
    wall = grid.background.mean(dim=(2, 3))
    torch.testing.assert_close(alone.background_at(directions), wall.expand(36, -1))
    behind = (1 - seen.opacity).view(1, -1) * (grid.background_at(directions).T - wall.T)
    torch.testing.assert_close(seen.latent - with_wall.latent, behind.view(1, 4, 6, 6))
    assert all(torch.equal(old, new) for old, new in zip(before, grid.parameters())), "it is a copy"
    assert grid.config.background_mapping == "published"
