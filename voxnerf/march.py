"""March rays through a voxel grid: the plain torch path, and the fused kernels behind the same call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from voxnerf.field import KernelError
from voxnerf.rays import intersect_box
from voxnerf.volrend import compositing_weights

if TYPE_CHECKING:
    from voxnerf.grid import Kernel, VoxelGrid

WEIGHT_THRESHOLD = 1e-4  # samples below it get no color (SJC's ray_march_weight_thres)


class March(NamedTuple):
    """What n rays meet inside the box.

    Attributes:
        latent: [n, channels], sum of w * color over samples of w > 1e-4.
        depth: [n], sum of w * dist.
        remaining: [n], transmittance behind the box.
        emptiness: scalar, mean of log(1 + scale * w) over all k x n samples, k being the longest ray's
            number of samples; those outside the box count as w = 0 (SJC Sec. 4.3).
    """

    latent: Float[Tensor, "n channels"]
    depth: Float[Tensor, "n"]
    remaining: Float[Tensor, "n"]
    emptiness: Float[Tensor, ""]


def march(
    grid: VoxelGrid,
    origin: Float[Tensor, "3"],
    directions: Float[Tensor, "n 3"],
    emptiness_scale: float,
) -> March:
    """March rays from one origin in equal steps from the box's entrance: left edges, no jitter.

    A sample counts while its distance from the entrance is below the ray's passage.

    Args:
        origin: [3]. directions: [n, 3], unit length.

    Raises:
        KernelError: the grid's kernel cannot render it.
    """
    enter, leave = intersect_box(origin, directions, grid.aabb)
    passage = leave - enter
    kernel = kernel_for(grid)
    if kernel == "torch":
        return _march_torch(grid, origin, directions, enter, passage, emptiness_scale)
    fused = {"numba": _NumbaMarch, "triton": _TritonMarch}[kernel]
    args = origin, directions, enter, passage, grid.config, emptiness_scale
    latent, depth, remaining, emptiness = fused.apply(grid.density, grid.color, grid.log_density_scale, *args)
    n_samples = (passage.max() / grid.config.step_size).floor().clamp(min=0) + 1  # not read: no device sync
    return March(latent, depth, remaining, emptiness / (n_samples * len(directions)))


def kernel_for(grid: VoxelGrid) -> Kernel:
    """Return the kernel that marches through a grid: its own, and for "auto" the fused one where it fits.

    "numba" is fused for the CPU and "triton" for CUDA; "torch" is plain and fits everything.

    Raises:
        KernelError: the grid's own kernel cannot.
    """
    if grid.kernel == "auto":
        fused = grid.kernels[0]
        return "torch" if refusal(fused, grid) else fused
    if why := refusal(grid.kernel, grid):
        raise KernelError(grid.kernel, why)
    return grid.kernel


def refusal(kernel: Kernel, grid: VoxelGrid) -> str | None:
    """Say why a kernel cannot render a grid, as far as that shows without running it, or None."""
    if kernel == "torch":
        return None
    if kernel not in ("numba", "triton"):
        return f"the kernels are torch, numba and triton. Received {kernel!r}."
    dtypes = {grid.density.dtype, grid.color.dtype} - {torch.float32}
    if dtypes:
        return f"it computes in float32. Received {dtypes.pop()}."
    try:
        if kernel == "numba":
            from voxnerf import march_cpu_places as module
        else:
            from voxnerf import march_triton as module
    except ImportError as error:
        return f"{kernel} must be installed. Received: {error}."
    return module.refusal(grid.density, grid.color)


def _march_torch(
    grid: VoxelGrid,
    origin: Tensor,
    directions: Tensor,
    enter: Tensor,
    passage: Tensor,
    emptiness_scale: float,
) -> March:
    """Evaluate and keep every sample: the reference, and the path for every device and dtype."""
    step_size = grid.config.step_size
    n_samples = max(int(passage.max() / step_size), 0) + 1
    travelled = torch.arange(n_samples, device=enter.device)[:, None] * step_size
    dists, counts = enter + travelled, travelled < passage
    points = origin + directions * dists[..., None]
    density = torch.zeros_like(dists)
    density[counts] = grid.density_at(points[counts])
    weights, remaining = compositing_weights(density, step_size)
    visible = weights > WEIGHT_THRESHOLD
    colors = grid.color_at(points[visible]) * weights[visible][:, None]
    latent = colors.new_zeros(len(directions), colors.shape[1])
    latent = latent.index_add(0, visible.nonzero()[:, 1], colors)
    depth = (weights * dists).sum(dim=0)
    return March(latent, depth, remaining, torch.log1p(emptiness_scale * weights).mean())


class _NumbaMarch(torch.autograd.Function):
    """Latent, depth, remaining and the sum (not the mean) of the emptiness terms, by `march_cpu`."""

    @staticmethod
    def forward(ctx, density, color, log_scale, origin, directions, enter, passage, config, emptiness_scale):
        from voxnerf.march_cpu import empty_results, march_forward
        from voxnerf.march_cpu_places import Rays, count_samples, make_box

        box = make_box(config, WEIGHT_THRESHOLD, emptiness_scale)
        first = count_samples(_array(passage), box.step)
        rays = Rays(_array(origin), _array(directions), _array(enter), first)
        samples, sums = empty_results(rays)
        scale, shift = np.float32(log_scale.exp().item()), np.float32(config.density_shift)
        threads = torch.get_num_threads()
        grid = _array(density), _array(_four_channels(_by_voxel(color)))
        march_forward(*grid, scale, shift, rays, box, threads, samples, sums)
        kept = map(torch.from_numpy, (first, *samples, *sums))
        ctx.save_for_backward(density, color, log_scale, origin, directions, enter, *kept)
        ctx.box, ctx.threads = box, threads
        latent, depth, remaining, emptiness = sums
        seen = (torch.from_numpy(a).float() for a in (latent[:, : color.shape[1]], depth, remaining))
        return *seen, torch.tensor(emptiness.sum(), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_latent, grad_depth, grad_remaining, grad_emptiness):
        from voxnerf.march_cpu import Samples, Sums, sample_gradients
        from voxnerf.march_cpu_places import Rays
        from voxnerf.march_cpu_voxels import voxel_gradients

        density, color, log_scale, *rest = ctx.saved_tensors
        rest = [_array(t) for t in rest]
        rays, samples, sums = Rays(*rest[:4]), Samples(*rest[4:7]), Sums(*rest[7:])
        box, threads, colors = ctx.box, ctx.threads, _array(_four_channels(_by_voxel(color)))
        grads = (
            _array(_four_channels(grad_latent)),
            _array(grad_depth),
            _array(grad_remaining),
            grad_emptiness.item(),
        )
        grad_raw = np.empty_like(samples.weight)
        sample_gradients(colors, rays, box, threads, samples, sums, grads, grad_raw)
        grad_density, grad_color = np.empty(density.shape, np.float32), np.empty(colors.shape, np.float32)
        to_add = samples.weight, (grads[0], grad_raw)
        product = voxel_gradients(_array(density), rays, box, threads, *to_add, grad_density, grad_color)
        # Density and exp(log_scale) enter as a product alone, so this is the derivative in log_scale.
        grad_log_scale = torch.full_like(log_scale, product)
        grad_color = torch.from_numpy(grad_color[..., : color.shape[1]]).permute(0, 4, 1, 2, 3)
        return torch.from_numpy(grad_density), grad_color, grad_log_scale, *(None,) * 6


class _TritonMarch(torch.autograd.Function):
    """The same by `march_triton`."""

    @staticmethod
    def forward(ctx, density, color, log_scale, origin, directions, enter, passage, config, emptiness_scale):
        from voxnerf.march_triton import march_forward

        scale, step = log_scale.detach().exp(), config.step_size
        numbers = config.density_shift, *config.to_voxels, step, WEIGHT_THRESHOLD, emptiness_scale
        numbers = tuple(map(float, numbers))  # the kernels would be compiled anew for a whole number
        rays = tuple(t.contiguous() for t in (origin, directions, enter, passage))
        grid = density.detach()[0, 0].contiguous(), _by_voxel(color.detach())[0].contiguous()
        latent, depth, optical_depth, emptiness = march_forward(rays, numbers, *grid, scale)
        ctx.save_for_backward(*rays, *grid, scale, optical_depth)
        ctx.numbers = numbers
        return latent, depth, torch.exp(-optical_depth), emptiness.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        from voxnerf.march_triton import march_backward

        *rays, density, color, scale, optical_depth = ctx.saved_tensors
        grads = tuple(g.contiguous() for g in grads)
        made = march_backward(tuple(rays), ctx.numbers, density, color, scale, optical_depth, grads)
        grad_density, grad_color, grad_scale = made
        return (
            grad_density[None, None],
            grad_color.permute(3, 0, 1, 2)[None],
            grad_scale * scale,
            *(None,) * 6,
        )


def _by_voxel(color: Tensor) -> Tensor:
    """Return color as [1, z, y, x, channels]."""
    return color.permute(0, 2, 3, 4, 1)


def _four_channels(values: Tensor) -> Tensor:
    """Return values, [..., channels], with zeros for the channels that the CPU kernels have and they lack."""
    from voxnerf.march_cpu_places import CHANNELS

    missing = CHANNELS - values.shape[-1]
    return F.pad(values, (0, missing)) if missing else values


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
