"""The gradients of all samples, added to the voxels around them: the second half of `march_cpu`'s way back.

Threads share one gradient. The grid is cut along y into slabs of cells: the samples in a slab write its
layers of voxels and the next slab's first one. Slabs 0, 2, 4, ... are done first and 1, 3, 5, ... then, so
that those at work never touch, and each voxel's sum has one order, however many threads there are. Along y,
because that is up: most rays meet few slabs.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from voxnerf.march_cpu_places import (
    CHANNELS,
    EXACT,
    SUMS,
    dist_at,
    make_buffers,
    part_of_rays,
    position_at,
    walk,
)

# The digest of march_cpu_places. Numba looks at this file alone to see whether it must compile again.
PLACES_DIGEST = "1f4ef431"

_F, _U, _D = np.float32, np.uint32, np.float64
_MAX_SLABS = 8  # every other one at the same time, so for up to 4 threads; more would cost two threads more
_RAYS_ASKED = 64  # enough to know where along y the samples are


@njit(fastmath=EXACT)
def _is_past(i, boundary, start, slope, enter, box):
    """Say whether sample i lies behind the boundary along y, in the direction of the ray."""
    position = position_at(dist_at(i, enter, box.step), start, slope, box)
    return (np.floor(position) >= boundary) == (slope >= _F(0))


@njit(fastmath=EXACT)
def _cut(rays, box, ray, boundary):
    """Return how many samples of a ray lie before a boundary along y, a whole number of voxels."""
    n, start, slope = rays.first[ray + 1] - rays.first[ray], rays.origin[1], rays.directions[ray, 1]
    reach = ((boundary - box.middle) / box.to_voxels - start) / (slope if slope != _F(0) else _F(1))
    i = np.int64(min(max((reach - rays.enter[ray]) / box.step, _F(0)), _F(n)))
    while i > 0 and _is_past(i - 1, boundary, start, slope, rays.enter[ray], box):
        i -= 1
    while i < n and not _is_past(i, boundary, start, slope, rays.enter[ray], box):
        i += 1
    return i


@njit
def _slab_bounds(rays, box, buffers):
    """Return each slab's first cell along y, and the last one's end; all have about equally many samples."""
    n_cells, row = box.resolution - 1, _U(box.resolution)
    n_slabs = min(_MAX_SLABS, n_cells)
    counts = np.zeros(n_cells)
    for ray in range(0, len(rays.enter), len(rays.enter) // _RAYS_ASKED + 1):
        n = rays.first[ray + 1] - rays.first[ray]
        walk(rays, box, ray, 0, n, buffers.own[0], buffers.at, buffers.share)
        for i in range(n):
            counts[buffers.at[i] // row % row] += 1
    below = np.cumsum(counts)
    bounds = np.zeros(n_slabs + 1, np.int64)
    bounds[n_slabs] = n_cells
    for slab in range(1, n_slabs):
        even = np.searchsorted(below, below[-1] * slab / n_slabs, side="right")
        bounds[slab] = min(max(even, bounds[slab - 1] + 1), n_cells - n_slabs + slab)
    return bounds


@njit
def _cut_rays(rays, box, bounds, start, stop, cuts):
    """Fill cuts [rays, slabs + 1] from one ray to another: its samples before each boundary, on its way.

    Of rays that go down the last boundary comes first. The samples in a slab lie between its two cuts.
    """
    n_slabs = len(bounds) - 1
    for ray in range(start, stop):
        up, n = rays.directions[ray, 1] >= _F(0), rays.first[ray + 1] - rays.first[ray]
        for slab in range(1, n_slabs):
            cuts[ray, slab] = _cut(rays, box, ray, _F(bounds[slab]))
        cuts[ray, 0] = 0 if up else n
        cuts[ray, n_slabs] = n if up else 0


@njit
def _clear_slab(grad_density, grad_color, slab, bounds, resolution):
    """Write zeros to the layers that a slab writes; an odd one leaves out what its even neighbours wrote."""
    odd, last = slab % 2, len(bounds) - 2
    low, high = bounds[slab] + odd, bounds[slab + 1] + (1 if slab == last else 1 - odd)
    for z in range(resolution):
        begin, end = (z * resolution + low) * resolution, (z * resolution + high) * resolution
        grad_density[begin:end] = _F(0)
        grad_color[begin * CHANNELS : end * CHANNELS] = _F(0)


@njit(fastmath=SUMS)
def _add_density(grad_density, grad, n, at, share, resolution):
    """Add the gradients of n samples' raw density to the voxels around them."""
    x0, x1, y0, y1, z0, z1 = share[0], share[1], share[2], share[3], share[4], share[5]
    row, layer, one = _U(resolution), _U(resolution**2), _U(1)
    for i in range(n):
        a, c = at[i], at[i] + layer
        b, d = a + row, c + row
        near, far = z0[i] * grad[i], z1[i] * grad[i]
        in_a, in_b, in_c, in_d = near * y0[i], near * y1[i], far * y0[i], far * y1[i]
        grad_density[a] += in_a * x0[i]
        grad_density[a + one] += in_a * x1[i]
        grad_density[b] += in_b * x0[i]
        grad_density[b + one] += in_b * x1[i]
        grad_density[c] += in_c * x0[i]
        grad_density[c + one] += in_c * x1[i]
        grad_density[d] += in_d * x0[i]
        grad_density[d + one] += in_d * x1[i]


@njit(fastmath=SUMS)
def _add_color(grad_color, g, weight, threshold, n, at, share, resolution):
    """Add the gradients of n samples' colors, w * g, to the voxels around those of w > threshold."""
    row, layer = _U(resolution), _U(resolution**2)
    g0, g1, g2, g3 = g[0], g[1], g[2], g[3]
    for i in range(n):
        if weight[i] > threshold:
            for k in range(2):
                for j in range(2):
                    zy = weight[i] * share[4 + k, i] * share[2 + j, i]
                    for h in range(2):
                        v = (at[i] + _U(k) * layer + _U(j) * row + _U(h)) * _U(CHANNELS)
                        amount = zy * share[h, i]
                        grad_color[v] += amount * g0
                        grad_color[v + _U(1)] += amount * g1
                        grad_color[v + _U(2)] += amount * g2
                        grad_color[v + _U(3)] += amount * g3


@njit
def _add_slab(rays, box, slab, cuts, buffers, weight, grads, grad_density, grad_color):
    """Add the gradients of all samples in one slab."""
    at, share, (grad_latent, grad_raw) = buffers.at, buffers.share, grads
    for ray in range(len(rays.enter)):
        low = min(cuts[ray, slab], cuts[ray, slab + 1])
        n = max(cuts[ray, slab], cuts[ray, slab + 1]) - low
        if n > 0:
            begin, end = rays.first[ray] + low, rays.first[ray] + low + n
            walk(rays, box, ray, low, n, buffers.own[0], at, share)
            _add_density(grad_density, grad_raw[begin:end], n, at, share, box.resolution)
            g, w = grad_latent[ray], weight[begin:end]
            _add_color(grad_color, g, w, box.threshold, n, at, share, box.resolution)


@njit(fastmath=SUMS)
def _inner_product(a, b):
    total = 0.0
    for i in range(len(a)):
        total += _D(a[i]) * _D(b[i])
    return total


@njit(parallel=True, cache=True)
def voxel_gradients(density, rays, box, n_parts, weight, grads, grad_density, grad_color):
    """Fill in the voxels' gradients: grad_density [1, 1, z, y, x], grad_color [1, z, y, x, 4].

    Returns the sum of density * grad_density, float64.

    Args:
        density: [1, 1, z, y, x]. weight: `Samples.weight`.
        grads: the loss's derivatives in latent [n, 4] and in every sample's raw density.
    """
    density, grad_density, grad_color = density.reshape(-1), grad_density.reshape(-1), grad_color.reshape(-1)
    bounds = _slab_bounds(rays, box, make_buffers(rays))
    cuts = np.empty((len(rays.enter), len(bounds)), np.int64)
    for part in prange(n_parts):
        start, stop = part_of_rays(rays, part, n_parts)
        _cut_rays(rays, box, bounds, start, stop, cuts)
    for odd in range(2):
        for part in prange(n_parts):
            buffers = make_buffers(rays)
            for slab in range(2 * part + odd, len(bounds) - 1, 2 * n_parts):
                _clear_slab(grad_density, grad_color, slab, bounds, box.resolution)
                _add_slab(rays, box, slab, cuts, buffers, weight, grads, grad_density, grad_color)
    products, n_voxels = np.empty(_MAX_SLABS), len(density)
    for part in prange(n_parts):
        for i in range(part, _MAX_SLABS, n_parts):
            begin, end = i * n_voxels // _MAX_SLABS, (i + 1) * n_voxels // _MAX_SLABS
            products[i] = _inner_product(density[begin:end], grad_density[begin:end])
    return products.sum()
