"""The rasteriser in torch: what a pixel shows, and how outlines move."""

import numpy as np
import pytest
import torch
import trimesh

from tests.test_tetra import sphere
from voxnerf import raster
from voxnerf.cameras import orbit, orbit_camera
from voxnerf.raster import edge_gradients, project, rasterize
from voxnerf.tetra import march_tetrahedra, on_border, tet_grid

FAR_AWAY = {"radius": 60.0, "fov_deg": 1.6}  # hardly any perspective


def icosphere(subdivisions, radius=0.5):
    ball = trimesh.creation.icosphere(subdivisions, radius)
    return torch.tensor(np.asarray(ball.vertices)), torch.tensor(np.asarray(ball.faces))


def coverage(camera, vertices, faces, gap=torch.inf):
    """Return which pixels show the mesh, [1, height, width], with the gradient of the outline."""
    pixels, z = project(camera, vertices)
    shown = rasterize(pixels, z, faces, camera.height, camera.width)
    return edge_gradients((shown.face >= 0)[None].to(vertices.dtype), shown, pixels, z, faces, gap)


def squares(*depths_and_halves, fine=1, shift=0.0):
    """Squares across the viewing axis, of 2 fine^2 triangles each: pixels, z, faces, and whose face it is."""
    pixels, z, faces, owner = [], [], [], []
    for number, (depth, half) in enumerate(depths_and_halves):
        along = torch.linspace(-half, half, fine + 1, dtype=torch.float64) + 15.5 + shift
        y, x = torch.meshgrid(along, along, indexing="ij")
        first = sum(map(len, pixels))
        pixels.append(torch.stack([x.flatten(), y.flatten()], 1))
        z.append(torch.full(((fine + 1) ** 2,), depth, dtype=torch.float64))
        at = (torch.arange(fine)[:, None] * (fine + 1) + torch.arange(fine)).flatten() + first
        a, b, c, d = at, at + 1, at + fine + 2, at + fine + 1
        faces.append(torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))
        owner += [number] * len(faces[-1])
    return torch.cat(pixels), torch.cat(z), torch.cat(faces), torch.tensor(owner)


def test_projection_is_that_of_the_camera():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    camera = orbit_camera(77, 20, 5, 7)
    pixels, z = project(camera, torch.from_numpy(points))
    expected = camera.project(points)
    np.testing.assert_allclose(pixels, expected[0], atol=1e-9)
    np.testing.assert_allclose(z, expected[1], atol=1e-9)
    assert project(camera, torch.from_numpy(camera.c2w[None, :3, 3]))[0].isfinite().all(), "at the eye"


def test_places_on_a_triangle_are_perspective_correct_and_carry_the_gradient():
    """What a pixel shows lies on its ray, and moves as the ray's crossing with the plane."""
    camera = orbit_camera(20, 30, 8, 8)
    faces = torch.tensor([[0, 1, 2]])
    vertices = torch.tensor([[-0.5, -0.4, 0.3], [0.6, -0.2, -0.4], [0.0, 0.7, 0.5]], dtype=torch.float64)

    def points(vertices):
        shown = rasterize(*project(camera, vertices), faces, 8, 8)
        return shown.interpolate(vertices, faces), shown.z

    on_it, z = points(vertices)
    assert len(on_it) > 8
    normal = torch.linalg.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    torch.testing.assert_close((on_it - vertices[0]) @ normal, torch.zeros_like(z), atol=1e-12, rtol=0)
    back, ahead = project(camera, on_it)
    torch.testing.assert_close(back, back.round(), atol=1e-9, rtol=0)
    torch.testing.assert_close(ahead, z)
    assert torch.autograd.gradcheck(points, vertices.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_closed_surface_has_no_gaps(dtype):
    """From inside a ball every pixel shows it, also those that lie on edges."""
    camera = orbit_camera(0, 0, 65, 65)  # the axis goes through a vertex, and edges along pixel centres
    vertices, faces = icosphere(4, radius=2.5)
    shown = rasterize(*project(camera, vertices.to(dtype)), faces, 65, 65)
    assert (shown.face >= 0).all()
    flat, z, faces, _ = squares((1.0, 15.5), fine=31)
    assert (rasterize(flat.to(dtype), z.to(dtype), faces, 31, 31).face >= 0).all()


def test_the_order_of_the_faces_does_not_matter():
    vertices, faces = sphere(24, 0.5, torch.float32)
    colors = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(0))
    camera = orbit_camera(33, 21, 96, 96)
    pictures = []
    for order in (torch.arange(len(faces)), torch.randperm(len(faces), generator=torch.Generator())):
        shown = rasterize(*project(camera, vertices), faces[order], 96, 96)
        pictures.append((shown.interpolate(colors, faces[order]), shown.z, shown.face >= 0))
    assert len(pictures[0][0]) > 2000
    assert all(torch.equal(*both) for both in zip(*pictures))


def test_memory_is_bounded(monkeypatch):
    """One triangle, too, is tried in parts."""
    pixels, z, faces, _ = squares((2.0, 12.0), (1.0, 5.0))
    whole = rasterize(pixels, z, faces, 32, 32)
    monkeypatch.setattr(raster, "_CANDIDATES", 7)
    sizes, areas = [], raster._areas
    monkeypatch.setattr(raster, "_areas", lambda corners, at: sizes.append(len(at)) or areas(corners, at))
    parts = rasterize(pixels, z, faces, 32, 32)
    assert max(sizes[:-1]) == 7, "the last one is of the pixels that were found"
    assert torch.equal(whole.face, parts.face)
    assert (whole.face >= 2).sum() == 100, "the nearer square"


def test_nothing_to_show():
    pixels, z, faces, _ = squares((1.0, 5.0))
    for these in (faces[:0], faces):
        shown = rasterize(pixels - 100, z, these, 8, 8)
        assert (shown.face == -1).all()
        assert shown.interpolate(pixels, faces).shape == (0, 2)
    assert (rasterize(pixels, -z, faces, 32, 32).face == -1).all(), "behind the camera"


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("make", [lambda: icosphere(3), lambda: icosphere(4), lambda: sphere(32, 0.5)])
def test_an_area_grows_by_twice_itself(make, size):
    """d area / d scale = 2 area, and d area / d translation = 0."""
    vertices, faces = make()
    for camera in (orbit_camera(33, 20, size, size, **FAR_AWAY), orbit_camera(0, 0, size, size, **FAR_AWAY)):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        area = coverage(camera, vertices * scale + shift, faces).sum()
        by_scale, by_shift = torch.autograd.grad(area, (scale, shift))
        assert 0.94 < by_scale / (2 * area) < 1.0
        across = by_shift @ torch.from_numpy(camera.c2w[:3, :2])
        assert across.abs().max() / area < 1e-3


def test_an_area_grows_as_perspective_has_it():
    """The outline of a ball of radius r at distance d: area ~ r^2 / (d^2 - r^2)."""
    vertices, faces = icosphere(4)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    area = coverage(orbit_camera(33, 20, 64, 64), vertices * scale, faces).sum()
    (slope,) = torch.autograd.grad(area, scale)
    assert (slope / (2 * area)).item() == pytest.approx(1.5**2 / (1.5**2 - 0.5**2), rel=0.06)


@pytest.mark.parametrize("fine", [1, 40])
def test_what_is_in_front_moves_alone(fine):
    """A white square before a black one: the outline is the white one's, of large triangles or small ones."""
    pixels, z, faces, owner = squares((2.0, 14.0), (1.0, 6.3), fine=fine)
    pixels.requires_grad_()

    def slopes(gap):
        shown = rasterize(pixels, z, faces, 32, 32)
        picture = (owner[shown.face] * (shown.face >= 0))[None].double()
        lit = edge_gradients(picture, shown, pixels, z, faces, gap).sum()
        (slope,) = torch.autograd.grad(lit, pixels)
        scaled = (slope * (pixels.detach() - 15.5)).sum(1)
        n = (fine + 1) ** 2
        return lit.item(), scaled[:n].sum().item(), scaled[n:].sum().item()

    lit, behind, before = slopes(gap=0.5)
    assert lit == 12 * 12
    assert behind == 0
    assert before == pytest.approx(48 * 5.5), "the outermost pixels times their distance"
    if fine > 1:
        assert slopes(gap=1.5) == (lit, 0, 0), "as if adjacent, on one surface"


def test_nothing_moves_within_one_surface():
    """Neighbours of one colored plane are no outline."""
    pixels, z, faces, _ = squares((1.0, 40.0), fine=30, shift=0.1)
    pixels.requires_grad_()
    shown = rasterize(pixels, z, faces, 32, 32)
    colors = torch.rand(len(faces), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picture = edge_gradients(colors[shown.face][None], shown, pixels, z, faces, gap=0.1)
    assert not torch.autograd.grad(picture.square().sum(), pixels)[0].any()


def test_the_picture_and_its_own_gradient_stay():
    vertices, faces = icosphere(2)
    camera = orbit_camera(0, 0, 16, 16)
    pixels, z = project(camera, vertices)
    shown = rasterize(pixels, z, faces, 16, 16)
    picture = torch.rand(3, 16, 16, dtype=torch.float64, requires_grad=True)
    same = edge_gradients(picture, shown, pixels, z, faces, torch.inf)
    assert torch.equal(same, picture)
    (grad,) = torch.autograd.grad((same * picture.detach()).sum(), picture)
    assert torch.equal(grad, picture)


def test_values_on_a_grid_become_a_ball_by_its_outlines():
    """From a cube, by gradient descent on four pictures of a circle alone."""
    ball, faces = icosphere(4, 0.6)
    cameras = orbit(4, 48, 15.0)
    masks = [coverage(camera, ball, faces) for camera in cameras]
    places, tets = tet_grid(16)
    places = 2 * places.double() - 1
    sdf = (places.abs().amax(1) - 0.35).requires_grad_()
    optimizer = torch.optim.Adam([sdf], 0.05)

    def overlap():
        mesh = march_tetrahedra(sdf, places, tets)
        seen = [coverage(camera, *mesh) for camera in cameras]
        both = sum((one * mask).sum() for one, mask in zip(seen, masks))
        return seen, (both / sum(torch.maximum(one, mask).sum() for one, mask in zip(seen, masks))).item()

    assert overlap()[1] < 0.6
    for _ in range(25):
        loss = sum((one - mask).square().sum() for one, mask in zip(overlap()[0], masks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sdf[on_border(16)] = 0.1
    assert overlap()[1] > 0.95
