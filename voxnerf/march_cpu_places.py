"""Where the samples of a ray lie in the grid, for the fused CPU kernels: `march_cpu`, `march_cpu_voxels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import config, njit

if TYPE_CHECKING:
    from voxnerf.grid import GridConfig

# Four channels at once; for all that numba compiles in this process from here on.
config.SLP_VECTORIZE = 1  # pyright: ignore[reportAttributeAccessIssue]  # numba makes its options at import

CHANNELS = 4  # written for Stable Diffusion's latents; with fewer, the rest is zero
MAX_RESOLUTION = 1625  # its cube is the largest below 2^32

# Habits for the sake of numba's vectoriser: rows are taken by index, because unpacking an array gives strided
# views; offsets are unsigned, because a signed index may count from the end; what divides has numpy's error
# model, because Python's looks for a zero each time; a parallel loop calls a function for each of its parts.
EXACT = {"nnan", "ninf", "nsz"}  # what both passes compute, to the same bits: places, distances, colors
MATH = EXACT | {"contract"}  # what one pass alone computes
SUMS = MATH | {"arcp", "reassoc"}

_F, _I, _U = np.float32, np.int32, np.uint32  # numba's float() keeps a float32 as it is


class Box(NamedTuple):
    """How the grid is sampled; float32 but for resolution.

    Attributes:
        to_voxels, middle: `GridConfig.to_voxels`. step: in scene units.
        threshold: of the weight, above which a sample has a color.
    """

    resolution: int
    to_voxels: np.float32
    middle: np.float32
    step: np.float32
    threshold: np.float32
    emptiness_scale: np.float32


class Rays(NamedTuple):
    """n rays from one origin, float32.

    Attributes:
        origin: [3]. directions: [n, 3]. enter: [n], distance to the box.
        first: int64 [n + 1], how many samples all rays before each one have.
    """

    origin: np.ndarray
    directions: np.ndarray
    enter: np.ndarray
    first: np.ndarray


class Buffers(NamedTuple):
    """Room for the samples of one ray at a time, in the processor's cache.

    Attributes:
        at, share: what `walk` finds, uint32 [n] and float32 [6, n].
        own: float32 [6, n], what a pass computes on its way. bits: uint32 [n], of powers of 2.
        visible: int64 [n], numbers of the samples that have a color. colors: float32 [n, 4], theirs.
        gradient: float64 [n], the loss's derivatives in the weights.
    """

    at: np.ndarray
    bits: np.ndarray
    visible: np.ndarray
    share: np.ndarray
    own: np.ndarray
    colors: np.ndarray
    gradient: np.ndarray


def refusal(density, color) -> str | None:
    """Say why the kernels cannot take these tensors, [1, 1, z, y, x] and [1, channels, z, y, x], or None."""
    resolution, channels = density.shape[-1], color.shape[1]
    if density.device.type != "cpu":
        return f"it runs on the CPU. Received a grid on {density.device}."
    if channels > CHANNELS:
        return f"it takes up to {CHANNELS} channels. Received {channels}."
    if not 2 <= resolution <= MAX_RESOLUTION:
        return f"it takes 2 to {MAX_RESOLUTION} voxels along an axis. Received {resolution}."
    return None


def make_box(config: GridConfig, threshold: float, emptiness_scale: float) -> Box:
    """Return what the kernels need to know of a grid."""
    numbers = *config.to_voxels, config.step_size, threshold, emptiness_scale
    return Box(config.resolution, *map(_F, numbers))


@njit(cache=True)
def count_samples(passage, step):
    """Return `Rays.first`: sample i of a ray counts if i * step < passage, in float32 as the plain path."""
    first = np.zeros(len(passage) + 1, np.int64)
    for ray in range(len(passage)):
        n = max(np.int64(passage[ray] / step), 0)
        while _F(n) * step < passage[ray]:
            n += 1
        while n > 0 and _F(n - 1) * step >= passage[ray]:
            n -= 1
        first[ray + 1] = first[ray] + n
    return first


@njit
def make_buffers(rays):
    """Return buffers for the longest of the rays."""
    n = 0
    for ray in range(len(rays.enter)):
        n = max(n, rays.first[ray + 1] - rays.first[ray])
    offsets, floats = np.empty((2, n), _U), np.empty((12, n), _F)
    colors = np.empty((n, CHANNELS), _F)
    visible, gradient = np.empty(n, np.int64), np.empty(n)
    return Buffers(offsets[0], offsets[1], visible, floats[:6], floats[6:], colors, gradient)


@njit
def part_of_rays(rays, part, n_parts):
    """Return the first ray of a part and of the next one; parts have about equally many samples plus rays."""
    start, stop, total = 0, 0, rays.first[-1] + len(rays.enter)
    for ray in range(len(rays.enter)):
        before = (rays.first[ray] + ray) * n_parts
        start += before < part * total
        stop += before < (part + 1) * total
    return start, stop


@njit(fastmath=EXACT)  # LLVM inlines it; numba's own inlining would give it the caller's fastmath
def dist_at(i, enter, step):
    """Return the distance of a ray's sample i from the camera; both passes must get the same bits."""
    return enter + _F(i) * step


@njit(fastmath=EXACT)
def position_at(dist, start, slope, box):
    """Return where along one axis a sample lies, in voxels."""
    return (start + slope * dist) * box.to_voxels + box.middle


@njit(fastmath=EXACT)
def _locate(start, slope, dist, n, box, stride, at, low, high):
    """Find the pair of voxels around every sample along one axis: add the lower's offset to `at`.

    The share of a voxel is 1 minus its distance. The pair lies inside the grid always: of a sample with one
    neighbour alone, that is one of the pair, and the other's share is 0.
    """
    last = _F(box.resolution - 2)
    for i in range(n):
        position = position_at(dist[i], start, slope, box)
        pair = min(max(np.floor(position), _F(0)), last)
        beyond = position - pair
        low[i] = max(min(_F(1) - beyond, _F(1) + beyond), _F(0))
        high[i] = max(min(beyond, _F(2) - beyond), _F(0))
        at[i] += _U(_I(pair)) * stride


@njit(fastmath=EXACT)
def walk(rays, box, ray, begin, n, dist, at, share):
    """Fill in n samples of a ray from its sample `begin` on.

    Args:
        dist: [n]. at: uint32 [n], offset of the first of the 8 voxels around the sample; the others are 1,
            resolution and resolution^2 further on.
        share: [6, n], of the lower and the higher voxel along x, y and z.
    """
    for i in range(n):
        dist[i] = dist_at(begin + i, rays.enter[ray], box.step)
        at[i] = _U(0)
    stride = 1
    for axis in range(3):
        start, slope = rays.origin[axis], rays.directions[ray, axis]
        _locate(start, slope, dist, n, box, _U(stride), at, share[2 * axis], share[2 * axis + 1])
        stride *= box.resolution
