"""The surface as a field: where it starts, what it shows, how it moves, what loop and export see of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sjc_debiased.denoiser import Conditioning
from sjc_debiased.guidance import Direction, Query
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize_step
from tests.mesh_fields import RADIUS, ball, decode, lit_ball, painted
from tests.test_tetra import assert_closed, sphere, volume
from voxnerf.cameras import orbit, orbit_camera
from voxnerf.lights import Light
from voxnerf.mesh import silhouette_overlap
from voxnerf.rays import camera_rays
from voxnerf.snapshot import mesh_snapshots
from voxnerf.surface import NoMeshError, find_solid
from voxnerf.tetra_field import GEOMETRY_LR, TetraField, roughness, vertex_normals


@pytest.fixture(scope="module")
def coarse():
    grid = ball(24)
    return grid, list(mesh_snapshots(grid, decode, 24))


@pytest.fixture
def field(coarse):
    return TetraField.from_grid(*coarse, resolution=16)


def test_it_starts_as_the_object_in_its_own_box(coarse, field):
    grid, snapshots = coarse
    assert field.level == find_solid(grid, snapshots).level
    vertices, faces = (part.detach() for part in field.surface())
    assert_closed(faces)
    radii = vertices.norm(dim=1)
    assert radii.mean().item() == pytest.approx(0.46, abs=0.01), "half opaque, a little within the ball"
    assert radii.std() < 0.01
    views = [(s.camera, s.opacity) for s in snapshots]
    assert silhouette_overlap(vertices.numpy(), faces.numpy(), views) > 0.93
    voxel = 2 / 24  # the object is 12 voxels wide, and a tenth of that is added on each side
    np.testing.assert_allclose(field.box, np.array([[-1.0] * 3, [1.0] * 3]) * 7.2 * voxel, rtol=1e-6)
    assert field.sdf.abs().max() == 1
    near = field.sdf.detach()[field.tets[:, :2]]
    across = near[(near < 0).sum(1) == 1].diff(dim=1).abs().median()
    assert across.item() == pytest.approx(1, abs=0.3), "one, along an edge that the surface crosses"


def test_another_level_starts_another_surface(coarse):
    small = TetraField.from_grid(*coarse, resolution=16, level=30.0)
    assert small.level == 30
    assert small.surface()[0].norm(dim=1).mean() < 0.4


def test_a_density_without_an_object_is_refused(coarse):
    crate = painted(ball(24), density=40)
    with pytest.raises(NoMeshError, match="stands free"):
        TetraField.from_grid(crate, list(mesh_snapshots(crate, decode, 24)), 16)
    with pytest.raises(NoMeshError, match="no voxel is denser"):
        TetraField.from_grid(*coarse, 16, level=1000.0)


def test_a_picture_shows_the_colors_of_the_field_on_its_surface(field):
    """Red above, blue below, before what the coarse field has behind it."""
    with torch.no_grad():
        field.coarse.background[:] = torch.tensor([0.1, 0.2, 0.3, 0.4])[None, :, None, None]
    seen = field.render(orbit_camera(0, 0, 24, 24))
    top, bottom = seen.latent[0, :, 7, 12], seen.latent[0, :, 16, 12]
    torch.testing.assert_close(top, torch.tensor([1.0, 0.0, -1.0, 0.0]))
    torch.testing.assert_close(bottom, torch.tensor([-1.0, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(seen.latent[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert seen.depth[12, 12].item() == pytest.approx(1.5 - 0.46, abs=0.02)
    assert seen.depth[0, 0] == 10
    assert set(seen.opacity.unique().tolist()) <= {0, 0.25, 0.5, 0.75, 1}, "the mean of 2 x 2"
    assert seen.emptiness == 0
    fine = field.render_fine(orbit_camera(0, 0, 24, 24), subpixels=4, upscale=2)
    assert fine.latent.shape == (1, 4, 48, 48)
    assert fine.opacity.mean().item() == pytest.approx(seen.opacity.mean().item(), rel=0.03)


def test_a_lit_surface_has_the_light_of_its_own_normals():
    """A lamp to the right of the camera: brightest there, and ambient where the ball turns away from it."""
    grid = lit_ball(24)
    field = TetraField.from_grid(grid, list(mesh_snapshots(grid, lambda rgb: rgb, 24)), resolution=24)
    camera = orbit_camera(0, 0, 48, 48)  # stands at -x, y up; its right is -z
    shown = field.render(camera).latent[0]
    albedo = torch.tensor([0.8, 0.1, 0.1])
    torch.testing.assert_close(shown[:, 20, 24], 2 * albedo - 1, atol=1e-5, rtol=0)
    torch.testing.assert_close(shown[:, 0, 0], torch.zeros(3))  # a gray of 0.5, which is not lit
    right = camera.c2w[:3, 0]
    light = Light(100 * right, ambient=0.3, diffuse=0.7)
    row, radius = 20, 0.46
    for lamp in (light, replace(light, textureless=True)):
        lit = field.render(replace(camera, light=lamp)).latent[0] / 2 + 0.5
        base = torch.ones(3) if lamp.textureless else albedo
        torch.testing.assert_close(lit[:, row, 18], 0.3 * base, atol=0.02, rtol=0)
        origin, rays = camera_rays(camera, torch.device("cpu"))
        ray = rays.view(48, 48, 3)[row, 30]
        along = ray @ origin
        point = origin - ray * (along + (along**2 - origin @ origin + radius**2).sqrt())
        shine = 0.3 + 0.7 * float(point @ torch.as_tensor(right, dtype=torch.float32)) / radius
        assert shine > 0.45
        torch.testing.assert_close(lit[:, row, 30], shine * base, atol=0.03, rtol=0)
        fine = field.render_fine(replace(camera, light=lamp)).latent[0] / 2 + 0.5
        torch.testing.assert_close(fine[:, row, 30], lit[:, row, 30], atol=0.03, rtol=0)
    field.render(replace(camera, light=light)).latent.square().sum().backward()
    assert field.coarse.color.grad.any()
    assert field.sdf.grad.any()


def test_a_plain_wall_is_behind_the_same_surface(field):
    camera = orbit_camera(30, 10, 16, 16)
    with torch.no_grad():
        field.coarse.background.normal_(generator=torch.Generator().manual_seed(0))
    before = field.render(camera)
    alone = field.before_plain_wall().render(camera)
    assert torch.equal(alone.opacity, before.opacity)
    behind = alone.latent[0, :, alone.opacity == 0]
    expected = field.coarse.background.mean(dim=(0, 2, 3))
    torch.testing.assert_close(behind, expected[:, None].expand_as(behind))
    assert torch.equal(field.render(camera).latent, before.latent), "it stays as it was"


def test_the_gradient_goes_where_it_should(field):
    seen = field.render(orbit_camera(40, 20, 24, 24))
    (seen.latent.square().sum() + seen.roughness).backward()
    learned = {name for name, p in field.named_parameters() if p.grad is not None and p.grad.any()}
    assert learned == {"sdf", "deformation", "coarse.color", "coarse.background"}
    groups = field.parameter_groups(0.2, 0.03)
    names = {id(p): name for name, p in field.named_parameters()}
    assert [(sorted(names[id(p)] for p in g["params"]), g["lr"]) for g in groups] == [
        (["deformation", "sdf"], GEOMETRY_LR),
        (["coarse.color"], 0.2),
        (["coarse.background"], 0.03),
    ]


def test_what_is_to_cover_more_grows(field):
    before = volume(*field.surface())
    optimizer = torch.optim.Adam(field.parameter_groups(0.1, 0.1))
    for camera in orbit(6, 24, 15.0):
        optimizer.zero_grad()
        (-field.render(camera).opacity.sum()).backward()
        optimizer.step()
    assert volume(*field.surface()) > 1.005 * before


def test_it_stays_within_its_box_and_says_when_nothing_is_left(field):
    with torch.no_grad():
        field.sdf.fill_(-1.0)
        field.deformation.normal_(generator=torch.Generator().manual_seed(0))
    vertices, faces = field.surface()
    assert_closed(faces)
    cell = (field.box[1] - field.box[0]) / 16
    assert (vertices > field.box[0] - cell / 2).all()
    assert (vertices < field.box[1] + cell / 2).all()
    with torch.no_grad():
        field.sdf.fill_(1.0)
    with pytest.raises(NoMeshError, match="shrunk to nothing"):
        field.render(orbit_camera(0, 0, 8, 8))


def test_normals_look_outwards_and_roughness_is_that_of_edges():
    vertices, faces = sphere(24, 0.47)
    normals = vertex_normals(vertices, faces)
    assert (normals * vertices / vertices.norm(dim=1, keepdim=True)).sum(1).min() > 0.99
    assert roughness(vertices, faces) < 0.01
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)])
    sides = torch.tensor(
        [[0, 1, 2], [1, 0, 5], [1, 3, 2], [3, 1, 5], [4, 0, 2], [0, 4, 5], [3, 4, 2], [4, 3, 5]]
    )
    assert_closed(sides)
    assert roughness(octahedron, sides).item() == pytest.approx(1), "normals along the axes"


class Still:
    """Guidance that wants nothing."""

    def ask(self, picture, cond, step, rng, denoiser):
        return Query(picture, torch.tensor(1.0), cond, 1.0)

    def answer(self, picture, query, denoised):
        return Direction(torch.zeros_like(picture))

    def denoise(self, noised, sigma, cond, scale):
        return noised


def test_the_loop_smooths_it_as_much_as_it_is_told(field):
    """The weight of the roughness is all that moves it where guidance wants nothing."""
    with torch.no_grad():
        field.sdf += 0.3 * torch.randn(len(field.sdf), generator=torch.Generator().manual_seed(0))
    cond = Conditioning((torch.zeros(1),))
    found = []
    for weight in (0.0, 10.0):
        settings = Settings(n_steps=20, roughness_weight=weight)
        scene = Scene(
            field, make_optimizer(field, settings), orbit(20, 8, 15.0), [cond] * 20, Still(), settings, seed=0
        )
        rough = [optimize_step([scene], Still())[0].rendering.roughness for _ in range(20)]
        assert not rough[0].requires_grad
        found.append((rough[0], rough[-1]))
    assert found[0][1] == found[0][0] == found[1][0]
    assert found[1][1] < 0.7 * found[1][0]


def test_the_mesh_is_its_largest_piece(field):
    with torch.no_grad():
        corner = (field.places - 0.12).abs().amax(1) < 0.05
        field.sdf[corner] = -1.0
    snapshots = list(mesh_snapshots(field, decode, 24))
    assert_closed(torch.from_numpy(field.to_mesh(snapshots, texture_size=0).faces))
    pieces = field.to_mesh(snapshots, n_faces=500, texture_size=64)
    assert pieces.dropped_parts == 1
    assert 0 < pieces.dropped_share < 0.1
    assert 300 < len(pieces.faces) <= 500
    assert np.linalg.norm(pieces.vertices, axis=1).max() < 1.1 * RADIUS
    assert pieces.iou > 0.9
    upper = pieces.colors_u8[pieces.vertices[:, 1] > 0.2]
    assert (upper[:, 0] > 200).mean() > 0.9
    assert pieces.texture.image_u8.shape == (64, 64, 3)
