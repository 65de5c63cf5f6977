"""Ray marching fused into one pass over each ray and one back, compiled by numba, in a sixth of the memory.

Forward, the samples of one ray lie in buffers that stay in the processor's cache, and each quantity is one
plain loop over them, so that the compiler can do many samples at once; three numbers a sample are kept.
Backward, the gradient of every sample's density comes first, ray by ray: what lies behind a sample is the
ray's total, kept from the forward pass, minus what was passed already. `march_cpu_voxels` then adds all
gradients to the voxels. The results are the same bits for any number of threads.

Every sample is kept, also those behind an opaque one: their gradients are tiny, but Adamax divides a
gradient by its own past size, so a voxel with a tiny gradient moves as far as any other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from voxnerf.march_cpu_places import (
    CHANNELS,
    EXACT,
    MATH,
    SUMS,
    Rays,
    dist_at,
    make_buffers,
    part_of_rays,
    walk,
)

# The digest of march_cpu_places. Numba looks at this file alone to see whether it must compile again.
PLACES_DIGEST = "1f4ef431"

_F, _I, _U, _D = np.float32, np.int32, np.uint32, np.float64
_LOG2_E, _LN2_HIGH, _LN2_LOW = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4)
_FACTORS = 32  # (1 + scale)^32 is a float64 up to a scale of 10^9
_MAX_EXPONENT = _F(87)  # exp(-87) is the smallest that a float32 holds in full


class Samples(NamedTuple):
    """What the backward pass needs of all samples, one ray behind the other; float32 [samples].

    Attributes:
        weight: w. beyond: the transmittance behind the sample.
        slope: of the optical depth in the raw density.
    """

    weight: np.ndarray
    beyond: np.ndarray
    slope: np.ndarray


class Sums(NamedTuple):
    """What rays meet; float64, because the backward pass takes differences that are many digits smaller.

    Attributes:
        latent: [n, 4]. depth, remaining: [n].
        emptiness: [n], sum over samples of log(1 + emptiness_scale * w).
    """

    latent: np.ndarray
    depth: np.ndarray
    remaining: np.ndarray
    emptiness: np.ndarray


def empty_results(rays: Rays) -> tuple[Samples, Sums]:
    """Return arrays for what `march_forward` finds on these rays."""
    n = len(rays.enter)
    return Samples(*np.empty((3, rays.first[-1]), _F)), Sums(np.empty((n, CHANNELS)), *np.empty((3, n)))


@njit(fastmath=MATH)
def _exp_parts(y, n, bits, rest):
    """Write exp(-y), y >= 0, as 2^-k (1 + rest), rest = exp(r) - 1, |r| <= ln(2) / 2, and 2^-k's bits."""
    for i in range(n):
        value = min(y[i], _MAX_EXPONENT)
        k = np.floor(value * _LOG2_E + _F(0.5))
        bits[i] = _U((_I(127) - _I(k)) << _I(23))
        r = k * _LN2_HIGH - value + k * _LN2_LOW
        tail = _F(1 / 120) + r * (_F(1 / 720) + r * _F(1 / 5040))
        rest[i] = r * (_F(1) + r * (_F(0.5) + r * (_F(1 / 6) + r * (_F(1 / 24) + r * tail))))


@njit(inline="always", fastmath=MATH)
def _twice_atanh(s):
    """Return 2 atanh(s) = log((1 + s) / (1 - s)) for 0 <= s <= 1 / 3."""
    q = s * s
    tail = _F(1 / 9) + q * (_F(1 / 11) + q * (_F(1 / 13) + q * _F(1 / 15)))
    return _F(2) * s * (_F(1) + q * (_F(1 / 3) + q * (_F(1 / 5) + q * (_F(1 / 7) + q * tail))))


@njit(fastmath=MATH, error_model="numpy")
def _absorb(x, n, step, bits, decay, tau, kept, alpha):
    """Write exp(-|x|), the optical depth softplus(x) * step, exp(-depth), and alpha = 1 - exp(-depth)."""
    powers = bits.view(np.float32)  # decay and alpha hold the rest of an exponential until it is put together
    for i in range(n):
        tau[i] = abs(x[i])
    _exp_parts(tau, n, bits, decay)
    for i in range(n):  # softplus(x) = max(x, 0) + log(1 + exp(-|x|))
        decay[i] = powers[i] + powers[i] * decay[i]
        tau[i] = (max(x[i], _F(0)) + _twice_atanh(decay[i] / (_F(2) + decay[i]))) * step
    _exp_parts(tau, n, bits, alpha)
    for i in range(n):  # where 2^-k is 1 no digit of a thin sample is lost
        kept[i] = powers[i] + powers[i] * alpha[i]
        alpha[i] = (_F(1) - powers[i]) - powers[i] * alpha[i]


@njit(fastmath=MATH, error_model="numpy")
def _slope_along(x, decay, n, factor, slope):
    """Write the slope of softplus(x), the logistic function, times a factor."""
    for i in range(n):
        slope[i] = (_F(1) if x[i] >= _F(0) else decay[i]) / (_F(1) + decay[i]) * factor


@njit(fastmath=MATH)
def _composite(kept, alpha, n, weight, beyond):
    """Write every sample's weight and the transmittance behind it; return that behind the last."""
    transmittance = 1.0
    for i in range(n):
        weight[i] = _F(transmittance) * alpha[i]
        transmittance *= kept[i]
        beyond[i] = _F(transmittance)
    return transmittance


@njit(fastmath=SUMS)
def _sum_up(weight, dist, n, emptiness_scale):
    """Return the sums of w * dist and log(1 + scale * w) over a ray."""
    far, empty = 0.0, 0.0
    for i in range(n):
        far += _D(weight[i]) * _D(dist[i])
    for start in range(0, n, _FACTORS):  # a sum of logarithms is the logarithm of a product
        product = 1.0
        for i in range(start, min(start + _FACTORS, n)):
            product *= 1.0 + _D(emptiness_scale) * _D(weight[i])
        empty += np.log(product)
    return far, empty


@njit(fastmath=MATH)
def _density_along(density, n, at, share, resolution, scale, shift, x):
    """Write the interpolated raw density of every sample, times scale plus shift."""
    x0, x1, y0, y1, z0, z1 = share[0], share[1], share[2], share[3], share[4], share[5]
    row, layer, one = _U(resolution), _U(resolution**2), _U(1)
    for i in range(n):
        a, c = at[i], at[i] + layer
        b, d = a + row, c + row
        near = y0[i] * (x0[i] * density[a] + x1[i] * density[a + one])
        near += y1[i] * (x0[i] * density[b] + x1[i] * density[b + one])
        far = y0[i] * (x0[i] * density[c] + x1[i] * density[c + one])
        far += y1[i] * (x0[i] * density[d] + x1[i] * density[d + one])
        x[i] = (z0[i] * near + z1[i] * far) * scale + shift


@njit
def _find_visible(weight, threshold, n, visible):
    """Write the numbers of the samples of w > threshold to visible [n]; return how many they are."""
    count = 0
    for i in range(n):
        visible[count] = i
        count += weight[i] > threshold
    return count


@njit(fastmath=EXACT)
def _colors_along(color, visible, count, offset, at, share, resolution, colors):
    """Write the colors of the visible samples to colors [count, 4]; at, share: from sample `offset` on."""
    row, layer = _U(resolution), _U(resolution**2)
    for m in range(count):
        i = visible[m] - offset
        c0, c1, c2, c3 = _F(0), _F(0), _F(0), _F(0)
        for k in range(2):
            for j in range(2):
                zy = share[4 + k, i] * share[2 + j, i]
                for h in range(2):
                    v = (at[i] + _U(k) * layer + _U(j) * row + _U(h)) * _U(CHANNELS)
                    amount = zy * share[h, i]
                    c0 += amount * color[v]
                    c1 += amount * color[v + _U(1)]
                    c2 += amount * color[v + _U(2)]
                    c3 += amount * color[v + _U(3)]
        colors[m, 0], colors[m, 1], colors[m, 2], colors[m, 3] = c0, c1, c2, c3  # LLVM takes the four as one


@njit(fastmath=MATH)
def _march_rays(density, color, scale, shift, rays, box, start, stop, samples, sums):
    """Fill in the samples and sums from one ray to another."""
    buffers = make_buffers(rays)
    own, at, share = buffers.own, buffers.at, buffers.share
    dist, x, decay, tau, kept, alpha = own[0], own[1], own[2], own[3], own[4], own[5]
    visible, colors = buffers.visible, buffers.colors
    for ray in range(start, stop):
        begin, end = rays.first[ray], rays.first[ray + 1]
        n, weight, slope = end - begin, samples.weight[begin:end], samples.slope[begin:end]
        walk(rays, box, ray, 0, n, dist, at, share)
        _density_along(density, n, at, share, box.resolution, scale, shift, x)
        _absorb(x, n, box.step, buffers.bits, decay, tau, kept, alpha)
        _slope_along(x, decay, n, box.step * scale, slope)
        sums.remaining[ray] = _composite(kept, alpha, n, weight, samples.beyond[begin:end])
        sums.depth[ray], sums.emptiness[ray] = _sum_up(weight, dist, n, box.emptiness_scale)
        l0, l1, l2, l3 = 0.0, 0.0, 0.0, 0.0
        count = _find_visible(weight, box.threshold, n, visible)
        _colors_along(color, visible, count, 0, at, share, box.resolution, colors)
        for m in range(count):
            w = _D(weight[visible[m]])
            l0 += w * _D(colors[m, 0])
            l1 += w * _D(colors[m, 1])
            l2 += w * _D(colors[m, 2])
            l3 += w * _D(colors[m, 3])
        latent = sums.latent[ray]
        latent[0], latent[1], latent[2], latent[3] = l0, l1, l2, l3


@njit(parallel=True, fastmath=MATH, cache=True)
def march_forward(density, color, scale, shift, rays, box, n_parts, samples, sums):
    """March all rays; fill samples and sums.

    Args:
        density: [1, 1, z, y, x]. color: [1, z, y, x, 4]. scale: exp(log_density_scale).
        n_parts: shares of the rays, for as many threads.
    """
    density, color = density.reshape(-1), color.reshape(-1)
    for part in prange(n_parts):
        start, stop = part_of_rays(rays, part, n_parts)
        _march_rays(density, color, scale, shift, rays, box, start, stop, samples, sums)


@njit(fastmath=SUMS, error_model="numpy")
def _emptiness_gradients(weight, enter, n, box, far, empty, gradient):
    """Write a loss's derivatives in w, far * dist + empty / (1 + scale * w); return sum of w * the latter."""
    total = 0.0
    for i in range(n):
        slope = empty * _D(_F(1) / (_F(1) + box.emptiness_scale * weight[i]))
        total += slope * _D(weight[i])
        gradient[i] = slope + far * _D(dist_at(i, enter, box.step))
    return total


@njit(fastmath=MATH)
def _gradients_along(color, rays, box, start, stop, samples, sums, grads, grad_raw):
    """Fill in grad_raw from one ray to another.

    For weight w_i = alpha_i * T_i, T the transmittance, and any loss, d loss / d optical depth_i = g_i *
    T_{i+1} - (sum over j > i of g_j w_j) - g_end * T_end, with g_i the loss's derivative in w_i.
    """
    buffers = make_buffers(rays)
    at, share, dist, gradient = buffers.at, buffers.share, buffers.own[0], buffers.gradient
    grad_latent, grad_depth, grad_remaining, grad_emptiness = grads
    visible, colors = buffers.visible, buffers.colors
    for ray in range(start, stop):
        begin, end = rays.first[ray], rays.first[ray + 1]
        n, weight = end - begin, samples.weight[begin:end]
        beyond, slope = samples.beyond[begin:end], samples.slope[begin:end]
        far, empty = _D(grad_depth[ray]), grad_emptiness * _D(box.emptiness_scale)
        behind = far * sums.depth[ray]
        behind += _emptiness_gradients(weight, rays.enter[ray], n, box, far, empty, gradient)
        g, latent = grad_latent[ray], sums.latent[ray]
        g0, g1, g2, g3 = _D(g[0]), _D(g[1]), _D(g[2]), _D(g[3])
        behind += g0 * latent[0] + g1 * latent[1] + g2 * latent[2] + g3 * latent[3]
        count = _find_visible(weight, box.threshold, n, visible)
        if count > 0:
            first = visible[0]
            walk(rays, box, ray, first, visible[count - 1] + 1 - first, dist, at, share)
            _colors_along(color, visible, count, first, at, share, box.resolution, colors)
        for m in range(count):
            c0, c1, c2, c3 = colors[m, 0], colors[m, 1], colors[m, 2], colors[m, 3]
            gradient[visible[m]] += g0 * _D(c0) + g1 * _D(c1) + g2 * _D(c2) + g3 * _D(c3)
        at_end = grad_remaining[ray] * sums.remaining[ray]
        for i in range(n):
            behind -= gradient[i] * _D(weight[i])
            grad_raw[begin + i] = _F(gradient[i] * _D(beyond[i]) - behind - at_end) * slope[i]


@njit(parallel=True, fastmath=MATH, cache=True)
def sample_gradients(color, rays, box, n_parts, samples, sums, grads, grad_raw):
    """Fill grad_raw [samples], the loss's derivative in every sample's raw density.

    Args:
        grads: the loss's derivatives in latent [n, 4], depth [n], remaining [n] and emptiness (a number).
    """
    color = color.reshape(-1)
    for part in prange(n_parts):
        start, stop = part_of_rays(rays, part, n_parts)
        _gradients_along(color, rays, box, start, stop, samples, sums, grads, grad_raw)
