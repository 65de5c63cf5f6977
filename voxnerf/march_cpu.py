"""Ray marching fused into one pass over each ray, compiled by numba: SJC's numbers without its samples.

Only one ray's samples exist at a time, in buffers that stay in the processor's cache; each quantity is one
plain loop over them, so that the compiler can do many samples at once. The backward pass marches again; what
lies behind a sample is the ray's total, kept from the forward pass, minus what was passed already.

Every sample is kept, also those behind an opaque one: their gradients are tiny, but Adamax divides a
gradient by its own past size, so a voxel with a tiny gradient moves as far as any other.
"""

from __future__ import annotations

import numpy as np
from numba import config, njit, prange

config.SLP_VECTORIZE = 1  # four channels at once: LLVM's pass for that is off by default

CHANNELS = 4  # the kernels are written for Stable Diffusion's latents

# Two habits for the sake of numba's vectoriser: rows are taken by index, because unpacking an array gives
# strided views, and offsets are unsigned, because a signed index may count from the end.
_F, _I, _U, _D = np.float32, np.int32, np.uint32, np.float64  # numba's float() keeps a float32 as it is
_MATH = {"nnan", "ninf", "nsz"}  # nothing that may round otherwise: both passes must compute the same
_SUMS = _MATH | {"arcp", "contract", "reassoc"}  # where only one pass computes it
_LOG2_E, _LN2_HIGH, _LN2_LOW = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4)
_FACTORS = 32  # (1 + scale)^32 is a float64 up to a scale of 10^9
_MAX_EXPONENT = _F(87)  # exp(-87) is the smallest that a float32 holds in full


@njit(fastmath=_MATH)
def _exp_of_minus(y, n, bits, out):
    """Write exp(-y) for y >= 0, to 2 units in the last place: 2^-k exp(r), |r| <= ln(2) / 2."""
    for i in range(n):
        value = min(y[i], _MAX_EXPONENT)
        k = np.floor(value * _LOG2_E + _F(0.5))
        bits[i] = _U((_I(127) - _I(k)) << _I(23))
        r = k * _LN2_HIGH - value + k * _LN2_LOW
        tail = _F(1 / 120) + r * (_F(1 / 720) + r * _F(1 / 5040))
        out[i] = _F(1) + r * (_F(1) + r * (_F(0.5) + r * (_F(1 / 6) + r * (_F(1 / 24) + r * tail))))
    powers = bits.view(np.float32)
    for i in range(n):
        out[i] *= powers[i]


@njit(inline="always", fastmath=_MATH)
def _twice_atanh(s):
    """Return 2 atanh(s) = log((1 + s) / (1 - s)) for 0 <= s <= 1 / 3."""
    q = s * s
    tail = _F(1 / 9) + q * (_F(1 / 11) + q * (_F(1 / 13) + q * _F(1 / 15)))
    return _F(2) * s * (_F(1) + q * (_F(1 / 3) + q * (_F(1 / 5) + q * (_F(1 / 7) + q * tail))))


@njit(fastmath=_MATH)
def _locate(
    start, slope, dist, n, to_voxels, middle, resolution, stride, low, high, low_share, high_share
):  # fmt: skip
    """Find along one axis the voxels on both sides of every sample, as offsets, and their shares.

    A voxel outside the grid gets the share 0 and a harmless offset.
    """
    last = _I(resolution - 1)
    for i in range(n):
        position = (start + slope * dist[i]) * to_voxels + middle
        floor = np.floor(position)
        first, upper = _I(floor), position - floor
        low_share[i] = _F(1) - upper if first >= 0 and first <= last else _F(0)
        high_share[i] = upper if first >= -1 and first < last else _F(0)
        low[i] = _U(min(max(first, _I(0)), last)) * stride
        high[i] = _U(min(max(first + _I(1), _I(0)), last)) * stride


@njit(fastmath=_MATH)
def _density_along(density, n, place, share, scale, shift, x):
    """Write the interpolated raw density of every sample, times scale plus shift."""
    x0, x1, y0, y1, z0, z1 = place[0], place[1], place[2], place[3], place[4], place[5]
    sx0, sx1, sy0, sy1, sz0, sz1 = share[0], share[1], share[2], share[3], share[4], share[5]
    for i in range(n):
        a, b = z0[i] + y0[i], z0[i] + y1[i]
        c, d = z1[i] + y0[i], z1[i] + y1[i]
        p, q = x0[i], x1[i]
        near = sy0[i] * (sx0[i] * density[a + p] + sx1[i] * density[a + q])
        near += sy1[i] * (sx0[i] * density[b + p] + sx1[i] * density[b + q])
        far = sy0[i] * (sx0[i] * density[c + p] + sx1[i] * density[c + q])
        far += sy1[i] * (sx0[i] * density[d + p] + sx1[i] * density[d + q])
        x[i] = (sz0[i] * near + sz1[i] * far) * scale + shift


@njit(fastmath=_MATH)
def _absorb(x, n, step, bits, decay, tau, kept, alpha):
    """Write exp(-|x|), the optical depth softplus(x) * step, exp(-depth), and alpha = 1 - exp(-depth)."""
    for i in range(n):
        tau[i] = abs(x[i])
    _exp_of_minus(tau, n, bits, decay)
    for i in range(n):  # softplus(x) = max(x, 0) + log(1 + exp(-|x|))
        above = x[i] if x[i] > _F(0) else _F(0)
        tau[i] = (above + _twice_atanh(decay[i] / (_F(2) + decay[i]))) * step
    _exp_of_minus(tau, n, bits, kept)
    for i in range(n):  # neither of the two as a difference of nearly equal numbers
        t = tau[i]
        thin = t * (_F(1) - t * _F(0.5) * (_F(1) - t * _F(1 / 3) * (_F(1) - t * _F(0.25))))
        alpha[i] = thin if t < _F(0.1) else _F(1) - kept[i]
        kept[i] = _F(1) - thin if t < _F(0.1) else kept[i]


@njit(fastmath=_MATH)
def _composite(kept, alpha, n, emptiness_scale, weight, thinness):
    """Write every sample's weight w and 1 / (1 + scale * w); return the transmittance behind the last."""
    transmittance = 1.0
    for i in range(n):
        weight[i] = _F(transmittance) * alpha[i]
        transmittance *= kept[i]
    for i in range(n):
        thinness[i] = _F(1) / (_F(1) + emptiness_scale * weight[i])
    return transmittance


@njit(fastmath=_MATH)
def _trace(
    density, scale, shift, origin, direction, enter, n, step, to_voxels, middle, resolution,
    emptiness_scale, place, share, own,
):  # fmt: skip
    """March one ray: fill its samples' places, shares and `own`; return the transmittance behind it.

    Args:
        density: flat. place: uint32 [7, n], offsets along x, y, z, low and high, and room for bits.
        share: float32 [6, n], in the same order. own: float32 [8, n], see the first lines.
    """
    dist, x, decay, tau = own[0], own[1], own[2], own[3]
    kept, alpha, weight, thinness = own[4], own[5], own[6], own[7]
    for i in range(n):
        dist[i] = enter + _F(i) * step
    for axis in range(3):
        _locate(
            origin[axis], direction[axis], dist, n, to_voxels, middle, resolution, _U(resolution**axis),
            place[2 * axis], place[2 * axis + 1], share[2 * axis], share[2 * axis + 1],
        )  # fmt: skip
    _density_along(density, n, place, share, scale, shift, x)
    _absorb(x, n, step, place[6], decay, tau, kept, alpha)
    return _composite(kept, alpha, n, emptiness_scale, weight, thinness)


@njit(fastmath=_SUMS)
def _sum_up(weight, dist, thinness, n, emptiness_scale):
    """Return the sums of w * dist, log(1 + scale * w) and w / (1 + scale * w) over a ray."""
    far, empty, slope = 0.0, 0.0, 0.0
    for i in range(n):
        far += _D(weight[i]) * _D(dist[i])
        slope += _D(weight[i]) * _D(thinness[i])
    for start in range(0, n, _FACTORS):  # a sum of logarithms is the logarithm of a product
        product = 1.0
        for i in range(start, min(start + _FACTORS, n)):
            product *= 1.0 + _D(emptiness_scale) * _D(weight[i])
        empty += np.log(product)
    return far, empty, slope


@njit(inline="always")
def _n_samples(passage, step):
    """Return how many samples i have i * step < passage, in float32 as the plain path compares."""
    n = max(np.int64(passage / step), 0)
    while _F(n) * step < passage:
        n += 1
    while n > 0 and _F(n - 1) * step >= passage:
        n -= 1
    return n


@njit(parallel=True, fastmath=_MATH, cache=True)
def march_forward(
    density, color, scale, shift, origin, directions, enter, passage, half_size, step, resolution, threshold,
    emptiness_scale, n_parts, latent, depth, remaining, emptiness, emptiness_slope,
):  # fmt: skip
    """March all rays; fill latent [n, 4], depth, remaining, emptiness and emptiness_slope [n].

    Args:
        density: flat [z * y * x]. color: flat [z * y * x * 4]. scale: exp(log_density_scale).
        enter, passage: [n], distance to the box and through it.
        emptiness: sum over samples of log(1 + emptiness_scale * w); emptiness_slope: of w / (1 +
            emptiness_scale * w), which the backward pass needs.
        latent, depth, remaining, emptiness_slope: float64, because the backward pass takes differences of
            them that are many digits smaller.
    """
    n_rays = len(directions)
    to_voxels, middle = _F(resolution / (2 * half_size)), _F(resolution / 2 - 0.5)
    longest = _n_samples(passage.max(), step) + 1
    for part in prange(n_parts):
        place, share = np.empty((7, longest), np.uint32), np.empty((6, longest), np.float32)
        own = np.empty((8, longest), np.float32)
        for ray in range(part * n_rays // n_parts, (part + 1) * n_rays // n_parts):  # neighbours share voxels
            n = _n_samples(passage[ray], step)
            remaining[ray] = _trace(
                density, scale, shift, origin, directions[ray], enter[ray], n, step, to_voxels, middle,
                resolution, emptiness_scale, place, share, own,
            )  # fmt: skip
            dist, weight, thinness = own[0], own[6], own[7]
            sums = _sum_up(weight, dist, thinness, n, emptiness_scale)
            depth[ray], emptiness[ray], emptiness_slope[ray] = sums
            l0, l1, l2, l3 = 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                w = weight[i]
                if w > threshold:
                    c0, c1, c2, c3 = _color_at(color, place, share, i)
                    l0 += _D(w) * _D(c0)
                    l1 += _D(w) * _D(c1)
                    l2 += _D(w) * _D(c2)
                    l3 += _D(w) * _D(c3)
            latent[ray, 0], latent[ray, 1], latent[ray, 2], latent[ray, 3] = l0, l1, l2, l3


@njit(inline="always", fastmath=_MATH)
def _color_at(color, place, share, i):
    """Return the four latent channels at sample i."""
    c0, c1, c2, c3 = _F(0), _F(0), _F(0), _F(0)
    for k in range(2):
        for j in range(2):
            row = place[4 + k, i] + place[2 + j, i]
            zy = share[4 + k, i] * share[2 + j, i]
            for h in range(2):
                at = (row + place[h, i]) * _U(CHANNELS)
                amount = zy * share[h, i]
                c0 += amount * color[at]
                c1 += amount * color[at + _U(1)]
                c2 += amount * color[at + _U(2)]
                c3 += amount * color[at + _U(3)]
    return c0, c1, c2, c3


@njit(inline="always", fastmath=_SUMS)
def _add_color(grad_color, place, share, i, g0, g1, g2, g3):
    """Add a gradient of the color at sample i to the voxels around it."""
    for k in range(2):
        for j in range(2):
            row = place[4 + k, i] + place[2 + j, i]
            zy = share[4 + k, i] * share[2 + j, i]
            for h in range(2):
                at = (row + place[h, i]) * _U(CHANNELS)
                amount = zy * share[h, i]
                grad_color[at] += amount * g0
                grad_color[at + _U(1)] += amount * g1
                grad_color[at + _U(2)] += amount * g2
                grad_color[at + _U(3)] += amount * g3


@njit(fastmath=_SUMS)
def _add_density(grad_density, grad, n, place, share):
    """Add the gradients of all samples of a ray to the voxels around them."""
    x0, x1, y0, y1, z0, z1 = place[0], place[1], place[2], place[3], place[4], place[5]
    sx0, sx1, sy0, sy1, sz0, sz1 = share[0], share[1], share[2], share[3], share[4], share[5]
    for i in range(n):
        near, far = sz0[i] * grad[i], sz1[i] * grad[i]
        a, b, c, d = near * sy0[i], near * sy1[i], far * sy0[i], far * sy1[i]
        p, q = x0[i], x1[i]
        grad_density[z0[i] + y0[i] + p] += a * sx0[i]
        grad_density[z0[i] + y0[i] + q] += a * sx1[i]
        grad_density[z0[i] + y1[i] + p] += b * sx0[i]
        grad_density[z0[i] + y1[i] + q] += b * sx1[i]
        grad_density[z1[i] + y0[i] + p] += c * sx0[i]
        grad_density[z1[i] + y0[i] + q] += c * sx1[i]
        grad_density[z1[i] + y1[i] + p] += d * sx0[i]
        grad_density[z1[i] + y1[i] + q] += d * sx1[i]


@njit(fastmath=_SUMS)
def _to_raw(grad_tau, x, decay, n, step, scale, shift, grad_raw):
    """Write the gradient of every sample's raw density; return that of the scale.

    density = softplus(x), x = raw * scale + shift; the slope of softplus is the logistic function of x.
    """
    scale_total = 0.0
    for i in range(n):
        logistic = (_F(1) if x[i] >= _F(0) else decay[i]) / (_F(1) + decay[i])
        grad_x = grad_tau[i] * _D(step * logistic)
        grad_raw[i] = _F(grad_x * scale)
        scale_total += grad_x * _D((x[i] - shift) / scale)
    return scale_total


@njit(parallel=True, fastmath=_MATH, cache=True)
def march_backward(
    density, color, scale, shift, origin, directions, enter, passage, half_size, step, resolution, threshold,
    emptiness_scale, n_parts, latent, depth, remaining, emptiness_slope, grad_latent, grad_depth,
    grad_remaining, grad_emptiness, grad_density, grad_color, grad_scale,
):  # fmt: skip
    """Add the gradients to grad_density [parts, voxels], grad_color [parts, 4 * voxels], grad_scale [parts].

    For weight w_i = alpha_i * T_i, T the transmittance, and any loss, d loss / d optical depth_i = g_i *
    T_{i+1} - (sum over j > i of g_j w_j) - g_end * T_end, with g_i the loss's derivative in w_i.
    """
    n_rays = len(directions)
    to_voxels, middle = _F(resolution / (2 * half_size)), _F(resolution / 2 - 0.5)
    longest = _n_samples(passage.max(), step) + 1
    for part in prange(n_parts):
        place, share = np.empty((7, longest), np.uint32), np.empty((6, longest), np.float32)
        own, gradient = np.empty((8, longest), np.float32), np.empty(longest)
        scale_total = 0.0
        for ray in range(part * n_rays // n_parts, (part + 1) * n_rays // n_parts):  # neighbours share voxels
            n = _n_samples(passage[ray], step)
            _trace(
                density, scale, shift, origin, directions[ray], enter[ray], n, step, to_voxels, middle,
                resolution, emptiness_scale, place, share, own,
            )  # fmt: skip
            dist, x, decay, tau, kept = own[0], own[1], own[2], own[3], own[4]
            weight, thinness = own[6], own[7]
            g0, g1, g2, g3 = grad_latent[ray]
            d0, d1, d2, d3 = _D(g0), _D(g1), _D(g2), _D(g3)
            far, empty = _D(grad_depth[ray]), grad_emptiness * _D(emptiness_scale)
            for i in range(n):
                gradient[i] = far * _D(dist[i]) + empty * _D(thinness[i])
            behind = far * depth[ray] + empty * emptiness_slope[ray]
            behind += d0 * latent[ray, 0] + d1 * latent[ray, 1] + d2 * latent[ray, 2] + d3 * latent[ray, 3]
            at_end, transmittance = grad_remaining[ray] * remaining[ray], 1.0
            for i in range(n):
                w = weight[i]
                if w > threshold:
                    c0, c1, c2, c3 = _color_at(color, place, share, i)
                    gradient[i] += d0 * _D(c0) + d1 * _D(c1) + d2 * _D(c2) + d3 * _D(c3)
                    _add_color(grad_color[part], place, share, i, w * g0, w * g1, w * g2, w * g3)
                transmittance *= kept[i]
                behind -= gradient[i] * _D(w)
                gradient[i] = gradient[i] * transmittance - behind - at_end
            scale_total += _to_raw(gradient, x, decay, n, step, scale, shift, tau)
            _add_density(grad_density[part], tau, n, place, share)
        grad_scale[part] += scale_total
