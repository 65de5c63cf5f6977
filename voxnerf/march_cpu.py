"""Ray marching fused into one pass over each ray, compiled by numba: SJC's numbers without its samples.

Nothing is stored per sample. The backward pass marches again; what lies behind a sample is the ray's total,
kept from the forward pass, minus what was passed already. Colors are read and written interleaved, so the
grid's color parameter has to be in channels-last memory.

Every sample is kept, also those behind an opaque one: their gradients are tiny, but Adamax divides a
gradient by its own past size, so a voxel with a tiny gradient moves as far as any other.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

_F, _D = np.float32, np.float64  # numba's float() keeps a float32 as it is
_MATH = {"nnan", "ninf", "nsz", "arcp", "afn"}  # no reassociation: both passes must compute the same weights


@njit(inline="always", fastmath=_MATH)
def _absorb(tau):
    """Return 1 - exp(-tau) and exp(-tau), neither as a difference of nearly equal numbers."""
    if tau < _F(0.1):
        opacity = tau * (_F(1) - tau * _F(0.5) * (_F(1) - tau * _F(1 / 3) * (_F(1) - tau * _F(0.25))))
        return opacity, _F(1) - opacity
    kept = math.exp(-tau)
    return _F(1) - kept, kept


@njit(inline="always", fastmath=_MATH)
def _softplus(x):
    """Return log(1 + exp(x)); linear above 20, as torch has it."""
    if x > _F(20):
        return x
    return math.log1p(math.exp(x))


@njit(inline="always", fastmath=_MATH)
def _corners(origin, direction, dist, to_voxels, middle, resolution, lower, share):
    """Find the two voxels on each side of a point of a ray and the upper one's share, along each axis.

    A voxel outside the grid gets the share 0 and a harmless index.
    """
    for axis in range(3):
        position = (origin[axis] + direction[axis] * dist) * to_voxels + middle
        floor = math.floor(position)
        first = np.int64(floor)
        upper = _F(position - floor)
        low_share, high_share = _F(1) - upper, upper
        second = first + 1
        if first < 0 or first >= resolution:
            low_share = _F(0)
            first = min(max(first, 0), resolution - 1)
        if second < 0 or second >= resolution:
            high_share = _F(0)
            second = min(max(second, 0), resolution - 1)
        lower[axis, 0], lower[axis, 1] = first, second
        share[axis, 0], share[axis, 1] = low_share, high_share


@njit(inline="always", fastmath=_MATH)
def _density_lookup(density, index, share):
    total = _F(0)
    for k in range(2):
        for j in range(2):
            zy = share[2, k] * share[1, j]
            row = density[index[2, k], index[1, j]]
            total += zy * (share[0, 0] * row[index[0, 0]] + share[0, 1] * row[index[0, 1]])
    return total


@njit(inline="always", fastmath=_MATH)
def _color_lookup(color, index, share, found):
    found[:] = 0.0
    for k in range(2):
        for j in range(2):
            zy = share[2, k] * share[1, j]
            for h in range(2):
                amount = zy * share[0, h]
                voxel = color[index[2, k], index[1, j], index[0, h]]
                for c in range(len(found)):
                    found[c] += amount * voxel[c]


@njit(parallel=True, fastmath=_MATH, cache=True)
def march_forward(
    density, color, scale, shift, origin, directions, enter, passage, half_size, step, threshold,
    emptiness_scale, n_parts, latent, depth, remaining, emptiness, emptiness_slope,
):  # fmt: skip
    """March all rays; fill latent [n, c], depth, remaining, emptiness and emptiness_slope [n].

    Args:
        density: [z, y, x]. color: [z, y, x, c]. scale: exp(log_density_scale).
        enter, passage: [n], distance to the box and through it.
        emptiness: sum over samples of log(1 + emptiness_scale * w); emptiness_slope: of w / (1 +
            emptiness_scale * w), which the backward pass needs.
        latent, depth, remaining, emptiness_slope: float64, because the backward pass takes differences of
            them that are many digits smaller.
    """
    n_rays, channels, resolution = len(directions), color.shape[3], density.shape[0]
    to_voxels = _F(resolution / (2 * half_size))
    middle = _F(resolution / 2 - 0.5)
    for part in prange(n_parts):
        index, share = np.empty((3, 2), np.int64), np.empty((3, 2), np.float32)
        seen, found = np.empty(channels), np.empty(channels)
        for ray in range(part, n_rays, n_parts):
            light, far, empty, slope, i = 1.0, 0.0, 0.0, 0.0, 0
            seen[:] = 0.0
            while _F(i) * step < passage[ray]:
                dist = enter[ray] + _F(i) * step
                _corners(origin, directions[ray], dist, to_voxels, middle, resolution, index, share)
                raw = _density_lookup(density, index, share)
                opacity, kept = _absorb(_softplus(raw * scale + shift) * step)
                weight = _F(light) * opacity
                light *= kept
                far += _D(weight) * dist
                empty += math.log1p(emptiness_scale * weight)
                slope += weight / (1.0 + emptiness_scale * _D(weight))
                if weight > threshold:
                    _color_lookup(color, index, share, found)
                    for c in range(channels):
                        seen[c] += weight * found[c]
                i += 1
            latent[ray] = seen
            depth[ray], remaining[ray] = far, light
            emptiness[ray], emptiness_slope[ray] = empty, slope


@njit(parallel=True, fastmath=_MATH, cache=True)
def march_backward(  # noqa: PLR0912
    density, color, scale, shift, origin, directions, enter, passage, half_size, step, threshold,
    emptiness_scale, n_parts, latent, depth, remaining, emptiness_slope, grad_latent, grad_depth,
    grad_remaining, grad_emptiness, grad_density, grad_color, grad_scale,
):  # fmt: skip
    """Add the gradients to grad_density [parts, z, y, x], grad_color [parts, z, y, x, c], grad_scale [parts].

    For weight w_i = opacity_i * light_i and any loss, d loss / d optical depth_i = g_i * light_{i+1} -
    (sum over j > i of g_j w_j) - g_end * light_end, with g_i the loss's derivative in w_i.
    """
    n_rays, channels, resolution = len(directions), color.shape[3], density.shape[0]
    to_voxels = _F(resolution / (2 * half_size))
    middle = _F(resolution / 2 - 0.5)
    for part in prange(n_parts):
        index, share = np.empty((3, 2), np.int64), np.empty((3, 2), np.float32)
        found, scale_total = np.empty(channels), 0.0
        for ray in range(part, n_rays, n_parts):
            behind = grad_depth[ray] * depth[ray]
            behind += grad_emptiness * emptiness_scale * emptiness_slope[ray]
            for c in range(channels):
                behind += grad_latent[ray, c] * latent[ray, c]
            at_end = grad_remaining[ray] * remaining[ray]
            light, i = 1.0, 0
            while _F(i) * step < passage[ray]:
                dist = enter[ray] + _F(i) * step
                _corners(origin, directions[ray], dist, to_voxels, middle, resolution, index, share)
                x = _density_lookup(density, index, share) * scale + shift
                opacity, kept = _absorb(_softplus(x) * step)
                weight = _F(light) * opacity
                light *= kept
                own = _D(grad_depth[ray]) * dist
                own += grad_emptiness * emptiness_scale / (1.0 + emptiness_scale * _D(weight))
                if weight > threshold:
                    _color_lookup(color, index, share, found)
                    for c in range(channels):
                        own += grad_latent[ray, c] * found[c]
                    for k in range(2):
                        for j in range(2):
                            zy = weight * share[2, k] * share[1, j]
                            for h in range(2):
                                amount = zy * share[0, h]
                                voxel = grad_color[part, index[2, k], index[1, j], index[0, h]]
                                for c in range(channels):
                                    voxel[c] += amount * grad_latent[ray, c]
                behind -= own * weight
                grad_tau = own * light - behind - at_end
                grad_x = grad_tau * step / (1.0 + math.exp(-x))
                grad_raw = _F(grad_x * scale)
                scale_total += grad_x * (x - shift) / scale
                for k in range(2):
                    for j in range(2):
                        zy = grad_raw * share[2, k] * share[1, j]
                        row = grad_density[part, index[2, k], index[1, j]]
                        row[index[0, 0]] += zy * share[0, 0]
                        row[index[0, 1]] += zy * share[0, 1]
                i += 1
        grad_scale[part] += scale_total
