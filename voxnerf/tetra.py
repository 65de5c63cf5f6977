"""Marching tetrahedra: a closed surface out of signed values on a grid, with gradient.

Sources: the grid's cut is Kuhn's (one tetrahedron for each order of the axes along the cube's diagonal); the
surface with gradients is that of Deep Marching Tetrahedra (arXiv:2111.04276), Magic3D's second stage.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import torch
from torch import Tensor

_INSIDE_BITS = (1, 2, 4, 8)


def tet_grid(n: int) -> tuple[Tensor, Tensor]:
    """Cut a cube of n^3 cells into 6 n^3 tetrahedra that share whole faces.

    n = 32 has 35,937 vertices and 196,608 tetrahedra.

    Returns:
        positions float32 [(n + 1)^3, 3] in [0, 1], z slowest and x fastest; tets int64 [6 n^3, 4], each
        positively oriented: (b - a) x (c - a) . (d - a) > 0.
    """
    along = torch.arange(n + 1)
    z, y, x = (axis.flatten() for axis in torch.meshgrid(along, along, along, indexing="ij"))
    steps = torch.tensor([1, n + 1, (n + 1) ** 2])  # of the number of a vertex, to the next in x, y, z
    paths = []
    for first, second in permutations(range(3), 2):
        path = [0, steps[first], steps[first] + steps[second], steps.sum()]
        if (second - first) % 3 == 2:  # an odd order is the mirror image
            path[1:3] = path[2], path[1]
        paths.append(torch.tensor(path))
    is_cell = (x < n) & (y < n) & (z < n)
    tets = is_cell.nonzero()[:, None] + torch.stack(paths)
    return torch.stack([x, y, z], 1) / n, tets.reshape(-1, 4)


def on_border(n: int) -> Tensor:
    """Return which vertices of `tet_grid` lie on the cube's surface, bool [(n + 1)^3]."""
    inner = torch.zeros(n + 1, n + 1, n + 1, dtype=torch.bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return ~inner.flatten()


def march_tetrahedra(sdf: Tensor, positions: Tensor, tets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the surface on which linearly interpolated values are 0; it parts what is below from the rest.

    On an edge from a to b whose values have different signs lies one vertex,
        p = p_a + (p_b - p_a) f_a / (f_a - f_b),
    which carries the gradient to values and positions. The surface is closed where no tetrahedron at the
    grid's border is crossed. Equal input gives equal output, in the same order.

    Args:
        sdf: [v], negative inside. positions: [v, 3].
        tets: int64 [t, 4], positively oriented, so that the faces look outwards.

    Returns:
        vertices [n, 3]; faces int64 [m, 3], counterclockwise from outside. Both empty without a crossing.
    """
    table, n_triangles = (part.to(sdf.device) for part in _cases())
    with torch.no_grad():
        inside = (sdf < 0)[tets]
        crossed = inside.any(1) & ~inside.all(1)
        case = (inside[crossed] * torch.tensor(_INSIDE_BITS, device=sdf.device)).sum(1)
        is_there = torch.arange(2, device=sdf.device) < n_triangles[case][:, None]
        corners = table[case]
        ends = tets[crossed].gather(1, corners.flatten(1)).view_as(corners)[is_there].sort(dim=-1).values
        edges, faces = (ends[..., 0] * len(sdf) + ends[..., 1]).unique(return_inverse=True)
        first, second = edges // len(sdf), edges % len(sdf)
    share = sdf[first] / (sdf[first] - sdf[second])
    return positions[first] + share[:, None] * (positions[second] - positions[first]), faces


@lru_cache(maxsize=1)
def _cases() -> tuple[Tensor, Tensor]:
    """Return the triangles of each of the 16 cases, numbered by `_INSIDE_BITS` of what is inside.

    One corner alone on its side has a triangle on its three edges; two and two have a quadrilateral.

    Returns:
        table int64 [16, 2, 3, 2]: of two triangles, the two ends in the tetrahedron of each corner's edge;
        n_triangles int64 [16], how many of the two there are.
    """
    places = torch.cat([torch.zeros(1, 3), torch.eye(3)])  # a positively oriented tetrahedron
    table, n_triangles = torch.zeros(16, 2, 3, 2, dtype=torch.int64), torch.zeros(16, dtype=torch.int64)
    for case in range(1, 15):
        inner = [i for i, bit in enumerate(_INSIDE_BITS) if case & bit]
        outer = [i for i in range(4) if i not in inner]
        if len(inner) == 2:
            (a, b), (c, d) = inner, outer
            polygon = [(a, c), (a, d), (b, d), (b, c)]
        else:
            polygon = [(a, c) for a in inner for c in outer]
        p, q, r = (places[list(edge)].mean(0) for edge in polygon[:3])
        outwards = places[outer].mean(0) - places[inner].mean(0)
        if torch.linalg.cross(q - p, r - p) @ outwards < 0:
            polygon.reverse()
        for number in range(len(polygon) - 2):
            table[case, number] = torch.tensor([polygon[0], polygon[number + 1], polygon[number + 2]])
        n_triangles[case] = len(polygon) - 2
    return table, n_triangles
