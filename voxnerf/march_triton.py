"""Ray marching fused into one pass over each ray, on a GPU: SJC's numbers without its samples.

A program takes a block of rays and walks along them together, one sample at a time. Nothing is stored per
sample and nothing is read by the host. The backward pass walks from the back to the front: the optical
depth before a sample is the ray's total, kept from the forward pass, minus what was met already, and what
lies behind it is a running sum. The kernels run on the CPU too, in Triton's interpreter, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import JITFunction

_BLOCK = 32  # rays of a program: one warp, so that 64 x 64 rays fill a large GPU


@triton.jit
def _twice_atanh(s):
    """Return 2 atanh(s) = log((1 + s) / (1 - s)) for 0 <= s <= 1 / 3."""
    q = s * s
    tail = 1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15)))
    return 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * tail))))


@triton.jit
def _along(start, slope, dist, to_voxels, middle, last):
    """Return the lower voxel along one axis, and the shares of it and the next; 0 outside the grid."""
    position = (start + slope * dist) * to_voxels + middle
    floor = tl.floor(position)
    first, upper = floor.to(tl.int32), position - floor
    low = tl.where((first >= 0) & (first <= last), 1 - upper, 0.0)
    high = tl.where((first >= -1) & (first < last), upper, 0.0)
    return first, low, high


@triton.jit
def _corner(corner: tl.constexpr, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution):
    """Return the flat index and the share of one of the eight voxels around a sample."""
    k: tl.constexpr = corner // 4
    j: tl.constexpr = corner // 2 % 2
    h: tl.constexpr = corner % 2
    share = (sz1 if k else sz0) * (sy1 if j else sy0) * (sx1 if h else sx0)
    return ((z + k) * resolution + y + j) * resolution + x + h, share


@triton.jit
def _absorb(raw, scale, shift, step):
    """Return x = raw * scale + shift, exp(-|x|), the optical depth softplus(x) * step, and alpha."""
    x = raw * scale + shift
    decay = tl.exp(-tl.abs(x))
    tau = (tl.maximum(x, 0.0) + _twice_atanh(decay / (2 + decay))) * step
    thin = tau * (1 - tau * 0.5 * (1 - tau * (1 / 3) * (1 - tau * 0.25)))
    return x, decay, tau, tl.where(tau < 0.1, thin, 1 - tl.exp(-tau))


@triton.jit
def _forward(
    density, color, scale_at, origin, directions, enter, passage, shift, to_voxels, middle, step, threshold,
    emptiness_scale, n_rays, resolution, latent, depth, optical_depth, emptiness,
    channels: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0) * block + tl.arange(0, block)
    inside = ray < n_rays
    start, way = tl.load(enter + ray, inside, 0.0), tl.load(passage + ray, inside, 0.0)
    dx = tl.load(directions + 3 * ray, inside, 0.0)
    dy = tl.load(directions + 3 * ray + 1, inside, 0.0)
    dz = tl.load(directions + 3 * ray + 2, inside, 0.0)
    ox, oy, oz = tl.load(origin), tl.load(origin + 1), tl.load(origin + 2)
    scale, last = tl.load(scale_at), resolution - 1
    channel = tl.arange(0, width)
    met = tl.zeros([block], tl.float32)
    far = tl.zeros([block], tl.float32)
    empty = tl.zeros([block], tl.float32)
    seen = tl.zeros([block, width], tl.float32)
    n = tl.ceil(tl.maximum(tl.max(way, 0) / step, 0.0)).to(tl.int32) + 1
    index = tl.zeros([block], tl.float32)
    for _ in range(0, n):
        travelled = index * step
        index += 1
        counts = inside & (travelled < way)
        dist = start + travelled
        x, sx0, sx1 = _along(ox, dx, dist, to_voxels, middle, last)
        y, sy0, sy1 = _along(oy, dy, dist, to_voxels, middle, last)
        z, sz0, sz1 = _along(oz, dz, dist, to_voxels, middle, last)
        raw = tl.zeros([block], tl.float32)
        for c in tl.static_range(8):
            at, share = _corner(c, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution)
            raw += share * tl.load(density + at, counts & (share > 0), 0.0)
        _, _, tau, alpha = _absorb(raw, scale, shift, step)
        weight = tl.where(counts, tl.exp(-met) * alpha, 0.0)
        met += tl.where(counts, tau, 0.0)
        far += weight * dist
        # log(1 + z) = 4 log(1 + u), halved twice so that the series is short
        u = emptiness_scale * weight
        u = u / (1 + tl.sqrt(1 + u))
        u = u / (1 + tl.sqrt(1 + u))
        empty += 4 * _twice_atanh(u / (2 + u))
        visible = weight > threshold
        if tl.max(visible.to(tl.int32), 0) > 0:
            for c in tl.static_range(8):
                at, share = _corner(c, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution)
                wanted = (visible & (share > 0))[:, None] & (channel < channels)[None, :]
                values = tl.load(color + at[:, None] * channels + channel[None, :], wanted, 0.0)
                seen += (weight * share)[:, None] * values
    tl.store(depth + ray, far, inside)
    tl.store(optical_depth + ray, met, inside)
    tl.store(emptiness + ray, empty, inside)
    at = ray[:, None] * channels + channel[None, :]
    tl.store(latent + at, seen, inside[:, None] & (channel < channels)[None, :])


@triton.jit
def _backward(  # noqa: PLR0915, one pass is one list of statements
    density, color, scale_at, origin, directions, enter, passage, shift, to_voxels, middle, step, threshold,
    emptiness_scale, n_rays, resolution, optical_depth, grad_latent, grad_depth, grad_remaining,
    grad_emptiness, grad_density, grad_color, grad_scale,
    channels: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Add the gradients; see `march_cpu._gradients_along` for the formula."""
    ray = tl.program_id(0) * block + tl.arange(0, block)
    inside = ray < n_rays
    start, way = tl.load(enter + ray, inside, 0.0), tl.load(passage + ray, inside, 0.0)
    dx = tl.load(directions + 3 * ray, inside, 0.0)
    dy = tl.load(directions + 3 * ray + 1, inside, 0.0)
    dz = tl.load(directions + 3 * ray + 2, inside, 0.0)
    ox, oy, oz = tl.load(origin), tl.load(origin + 1), tl.load(origin + 2)
    scale, last = tl.load(scale_at), resolution - 1
    channel = tl.arange(0, width)
    own_latent = ray[:, None] * channels + channel[None, :]
    g_latent = tl.load(grad_latent + own_latent, inside[:, None] & (channel < channels)[None, :], 0.0)
    g_depth = tl.load(grad_depth + ray, inside, 0.0)
    g_empty = tl.load(grad_emptiness) * emptiness_scale
    met = tl.load(optical_depth + ray, inside, 0.0)
    at_end = tl.load(grad_remaining + ray, inside, 0.0) * tl.exp(-met)
    behind, of_scale = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    n = tl.ceil(tl.maximum(tl.max(way, 0) / step, 0.0)).to(tl.int32) + 1
    index = tl.zeros([block], tl.float32) + n
    for _ in range(0, n):
        index -= 1
        travelled = index * step
        counts = inside & (travelled < way)
        dist = start + travelled
        x, sx0, sx1 = _along(ox, dx, dist, to_voxels, middle, last)
        y, sy0, sy1 = _along(oy, dy, dist, to_voxels, middle, last)
        z, sz0, sz1 = _along(oz, dz, dist, to_voxels, middle, last)
        raw = tl.zeros([block], tl.float32)
        for c in tl.static_range(8):
            at, share = _corner(c, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution)
            raw += share * tl.load(density + at, counts & (share > 0), 0.0)
        activation, decay, tau, alpha = _absorb(raw, scale, shift, step)
        after = tl.exp(-met)
        met = tl.where(counts, tl.maximum(met - tau, 0.0), met)
        weight = tl.where(counts, tl.exp(-met) * alpha, 0.0)
        own = g_depth * dist + g_empty / (1 + emptiness_scale * weight)
        visible = weight > threshold
        if tl.max(visible.to(tl.int32), 0) > 0:
            for c in tl.static_range(8):
                at, share = _corner(c, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution)
                wanted = (visible & (share > 0))[:, None] & (channel < channels)[None, :]
                where = at[:, None] * channels + channel[None, :]
                values = tl.load(color + where, wanted, 0.0)
                own += tl.sum(share[:, None] * values * g_latent, 1)
                tl.atomic_add(grad_color + where, (weight * share)[:, None] * g_latent, wanted)
        grad_tau = own * after - behind - at_end
        behind += own * weight
        logistic = tl.where(activation >= 0, 1.0, decay) / (1 + decay)
        grad_x = tl.where(counts, grad_tau * step * logistic, 0.0)
        of_scale += grad_x * raw
        for c in tl.static_range(8):
            at, share = _corner(c, x, y, z, sx0, sx1, sy0, sy1, sz0, sz1, resolution)
            tl.atomic_add(grad_density + at, grad_x * scale * share, counts & (share > 0))
    tl.atomic_add(grad_scale, tl.sum(of_scale, 0))


def refusal(density: Tensor, color: Tensor) -> str | None:
    """Say why the kernels cannot take these tensors, float32, or None."""
    if not density.is_cuda and isinstance(_forward, JITFunction):  # in the interpreter it is no JITFunction
        return f"it runs on CUDA. Received a grid on {density.device}."
    if color.numel() >= 2**31:
        return f"it counts colors in 32 bits, up to 2,147,483,647. Received {color.numel():,}."
    return None


def march_forward(rays: tuple, numbers: tuple, density: Tensor, color: Tensor, scale: Tensor) -> tuple:
    """March all rays; return latent [n, c], depth [n], optical_depth [n] and the sum of emptiness terms [n].

    Args:
        rays: origin [3], directions [n, 3], enter [n], passage [n]. numbers: shift, to_voxels, middle, step,
            threshold, emptiness_scale. density: [z, y, x]. color: [z, y, x, c]. scale: scalar.
    """
    n, channels = len(rays[1]), color.shape[-1]
    latent = color.new_empty(n, channels)
    depth, optical_depth, emptiness = color.new_empty(3, n)
    with torch.cuda.device_of(color):  # a no-op for the CPU
        _forward[_grid(n)](
        density, color, scale, *rays, *numbers, n, density.shape[0], latent, depth, optical_depth, emptiness,
        channels=channels, width=triton.next_power_of_2(channels), block=_BLOCK, num_warps=1,
    )  # fmt: skip
    return latent, depth, optical_depth, emptiness


def march_backward(
    rays: tuple,
    numbers: tuple,
    density: Tensor,
    color: Tensor,
    scale: Tensor,
    optical_depth: Tensor,
    grads: tuple,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of density, color and scale.

    Args:
        grads: of latent [n, c], depth [n], remaining [n], and of the sum of the emptiness terms (scalar).
    """
    n, channels = len(rays[1]), color.shape[-1]
    made = torch.zeros_like(density), torch.zeros_like(color), torch.zeros_like(scale)
    with torch.cuda.device_of(color):
        _backward[_grid(n)](
        density, color, scale, *rays, *numbers, n, density.shape[0], optical_depth, *grads, *made,
        channels=channels, width=triton.next_power_of_2(channels), block=_BLOCK, num_warps=1,
    )  # fmt: skip
    return made


def _grid(n: int) -> tuple[int]:
    return (triton.cdiv(n, _BLOCK),)
