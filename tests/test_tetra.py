"""Marching tetrahedra: the grid, the sphere's numbers, closed surfaces, gradients."""

import math

import pytest
import torch

from voxnerf.tetra import march_tetrahedra, on_border, tet_grid

RADIUS = 0.6


def sphere(n, radius=RADIUS, dtype=torch.float64):
    """A sphere in the box [-1, 1]^3 by its signed distance."""
    places, tets = tet_grid(n)
    places = 2 * places.to(dtype) - 1
    return march_tetrahedra(places.norm(dim=1) - radius, places, tets)


def corner_crosses(vertices, faces):
    a, b, c = vertices[faces].unbind(1)
    return a, torch.linalg.cross(b - a, c - a)


def area(vertices, faces):
    return corner_crosses(vertices, faces)[1].norm(dim=1).sum() / 2


def volume(vertices, faces):
    a, cross = corner_crosses(vertices, faces)
    return (a * cross).sum() / 6


def directed_edges(faces):
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def assert_closed(faces):
    """Every directed edge is there once, and so is its opposite."""
    edges = directed_edges(faces)
    there = set(map(tuple, edges.tolist()))
    assert len(there) == len(edges)
    assert {(b, a) for a, b in there} == there


def test_the_grid_fills_the_cube_and_is_positively_oriented():
    places, tets = tet_grid(3)
    assert (len(places), len(tets)) == (64, 6 * 27)
    a, b, c, d = places[tets].double().unbind(1)
    six_volumes = (torch.linalg.cross(b - a, c - a) * (d - a)).sum(1)
    torch.testing.assert_close(six_volumes, torch.full_like(six_volumes, 1 / 27))
    assert len(tet_grid(32)[1]) == 196_608


def test_tetrahedra_share_whole_faces():
    _, tets = tet_grid(3)
    n_at = {}
    for left_out in range(4):
        for face in tets[:, [i for i in range(4) if i != left_out]].sort(1).values.tolist():
            n_at[tuple(face)] = n_at.get(tuple(face), 0) + 1
    assert set(n_at.values()) == {1, 2}
    assert sum(n == 1 for n in n_at.values()) == 6 * 2 * 9, "two on each square of the cube's surface"


def test_the_border_is_the_cube_surface():
    places, _ = tet_grid(4)
    assert torch.equal(on_border(4), ((places == 0) | (places == 1)).any(1))


@pytest.mark.parametrize(
    ("n", "area_off", "volume_off"), [(16, 0.011, 0.022), (32, 0.0028, 0.0054), (64, 0.0007, 0.0014)]
)
def test_a_sphere_has_its_area_and_volume(n, area_off, volume_off):
    vertices, faces = sphere(n)
    n_edges = len(directed_edges(faces)) // 2
    assert len(vertices) - n_edges + len(faces) == 2, "Euler"
    found = 1 - area(vertices, faces) / (4 * math.pi * RADIUS**2)
    assert found == pytest.approx(area_off, rel=0.1)
    found = 1 - volume(vertices, faces) / (4 / 3 * math.pi * RADIUS**3)
    assert found == pytest.approx(volume_off, rel=0.1)


@pytest.mark.parametrize(("n", "share"), [(16, 0.993), (32, 0.999), (64, 0.9996)])
def test_a_sphere_grows_by_its_area(n, share):
    """d volume / d radius is the area of the sphere."""
    radius = torch.tensor(RADIUS, dtype=torch.float64, requires_grad=True)
    vertices, faces = sphere(n, radius)
    (slope,) = torch.autograd.grad(volume(vertices, faces), radius)
    assert slope.item() / (4 * math.pi * RADIUS**2) == pytest.approx(share, abs=0.0006)


def test_any_values_that_are_positive_at_the_border_give_closed_surfaces():
    generator = torch.Generator().manual_seed(0)
    places, tets = tet_grid(9)
    sdf = torch.randn(len(places), generator=generator)
    sdf[on_border(9)] = 1.0
    vertices, faces = march_tetrahedra(sdf, places, tets)
    assert len(faces) > 1000
    assert_closed(faces)
    assert faces.unique().numel() == len(vertices), "no vertex is left over"
    assert 0 < volume(vertices.double(), faces) < 1, "faces look outwards"


def test_values_that_are_zero_are_outside():
    """Faces may shrink to nothing, but the surface stays closed and finite."""
    places, tets = tet_grid(5)
    sdf = torch.randint(-1, 2, (len(places),), generator=torch.Generator().manual_seed(1)).float()
    sdf[on_border(5)] = 0.0
    vertices, faces = march_tetrahedra(sdf, places, tets)
    assert vertices.isfinite().all()
    assert_closed(faces)


def test_nothing_is_crossed():
    places, tets = tet_grid(2)
    vertices, faces = march_tetrahedra(torch.ones(len(places)), places, tets)
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(2)
    places, tets = tet_grid(3)
    places = places.double() + 0.05 * torch.rand(places.shape, generator=generator, dtype=torch.float64)
    sdf = torch.rand(len(places), generator=generator, dtype=torch.float64) + 0.2
    sdf[~on_border(3)] *= -1

    def of(sdf, places):
        return volume(*march_tetrahedra(sdf, places, tets))

    assert torch.autograd.gradcheck(of, (sdf.requires_grad_(), places.requires_grad_()))
