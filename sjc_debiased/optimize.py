"""The loop: render, estimate the score, clip it, push it back into the field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sjc_debiased.clipping import ClipSchedule, clip
from sjc_debiased.denoiser import TIMESTEPS, Denoiser
from sjc_debiased.losses import DepthLoss, center_depth_loss
from sjc_debiased.score import paas_direction
from voxnerf.cameras import Camera
from voxnerf.grid import VoxelGrid
from voxnerf.render import Rendering, render


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; the defaults are SJC's on Stable Diffusion.

    Attributes:
        n_steps: optimisation steps.
        lr, background_lr: Adamax step sizes.
        n_noise: noise samples per step; var_red: SJC Eq. 16 (True) or 15.
        clip: bound on the direction; `ClipSchedule(None, None)` is SJC's.
        emptiness_weight, emptiness_scale: of the emptiness loss (`march` defines it); the weight is
            multiplied by `emptiness_multiplier` from step `emptiness_step` * n_steps on.
        depth_weight, depth_loss: of `center_depth_loss`.
    """

    n_steps: int = 10_000
    lr: float = 0.05
    background_lr: float = 1e-4
    n_noise: int = 1
    var_red: bool = True
    clip: ClipSchedule = ClipSchedule(None, None)
    emptiness_weight: float = 1e4
    emptiness_scale: float = 10.0
    emptiness_step: float = 0.5
    emptiness_multiplier: float = 20.0
    depth_weight: float = 0.0
    depth_loss: DepthLoss = "published"

    def emptiness_weight_at(self, step: int) -> float:
        """Return the weight of the emptiness loss at a step."""
        late = step >= self.emptiness_step * self.n_steps
        return self.emptiness_weight * (self.emptiness_multiplier if late else 1.0)


@dataclass(frozen=True)
class Step:
    """What happened in one step: tensors without gradient, not yet read from the device.

    Attributes:
        direction: before clipping, [1, channels, height, width], in units of predicted noise.
        clip_value: the bound on it, or None.
        depth_term: the unweighted centre-depth loss, scalar, or None.
    """

    step: int
    camera: Camera
    sigma: Tensor
    rendering: Rendering
    direction: Tensor
    clip_value: float | None
    depth_term: Tensor | None


def make_optimizer(grid: VoxelGrid, settings: Settings) -> torch.optim.Adamax:
    """Return SJC's optimiser: Adamax, betas (0.9, 0.999), eps 1e-8, the background at its own rate."""
    return torch.optim.Adamax(grid.parameter_groups(settings.lr, settings.background_lr))


def draw_noise(
    seed: int, step: int, settings: Settings, denoiser: Denoiser, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw sigma (scalar) and noise [n_noise, c, h, w] of a step: a function of (seed, step) alone."""
    rng = np.random.default_rng([seed, step])
    timestep = int(rng.integers(*TIMESTEPS))
    shape = settings.n_noise, denoiser.latent_channels, denoiser.latent_size, denoiser.latent_size
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    return denoiser.sigmas[timestep], noise.to(device)


def optimization_step(
    grid: VoxelGrid,
    optimizer: torch.optim.Optimizer,
    denoise,
    camera: Camera,
    sigma: Tensor,
    noise: Tensor,
    step: int,
    settings: Settings,
) -> Step:
    """Do one step of D-SDS on a scene.

    Args:
        denoise: (noised, sigma) -> denoised, under this step's view prompt.

    Returns:
        The record of the step, whose rendering is that before the update.
    """
    rendering = render(grid, camera, settings.emptiness_scale)
    direction = paas_direction(denoise, rendering.latent, sigma, noise, settings.var_red)
    clip_value = settings.clip.value(step, settings.n_steps)

    regularizer = settings.emptiness_weight_at(step) * rendering.emptiness
    depth_term = None
    if settings.depth_weight > 0:
        depth_term = center_depth_loss(rendering.depth, settings.depth_loss)
        regularizer = regularizer + settings.depth_weight * depth_term

    optimizer.zero_grad()
    torch.autograd.backward([rendering.latent, regularizer], [-clip(direction, clip_value), None])
    optimizer.step()

    seen = Rendering(*(t.detach() for t in vars(rendering).values()))
    depth_term = depth_term if depth_term is None else depth_term.detach()
    return Step(step, camera, sigma, seen, direction, clip_value, depth_term)


def optimize(
    grid: VoxelGrid,
    optimizer: torch.optim.Optimizer,
    denoiser: Denoiser,
    cameras: list[Camera],
    text_of_step: list[Tensor],
    settings: Settings,
    seed: int,
    first_step: int = 0,
) -> Iterator[Step]:
    """Yield after every step from `first_step` on; the scene is `grid`, changed in place.

    Args:
        cameras, text_of_step: one camera and one text embedding [1, tokens, width] per step.
    """
    device = grid.density.device
    for step in range(first_step, settings.n_steps):
        sigma, noise = draw_noise(seed, step, settings, denoiser, device)
        text = text_of_step[step].expand(settings.n_noise, -1, -1)
        yield optimization_step(
            grid,
            optimizer,
            partial(denoiser.denoise, text=text),
            cameras[step],
            sigma,
            noise,
            step,
            settings,
        )
