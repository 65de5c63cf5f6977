"""One step of the method on one or more scenes: render, estimate the score, clip it, push it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sjc_debiased.clipping import ClipSchedule, clip
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.losses import DepthLoss, center_depth_loss
from sjc_debiased.score import paas_direction, perturb
from voxnerf.cameras import Camera
from voxnerf.grid import VoxelGrid
from voxnerf.rays import to_device
from voxnerf.render import Rendering, render


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; the defaults are SJC's on Stable Diffusion.

    Attributes:
        n_steps: optimisation steps.
        schedule_steps: over how many of them the schedules run, of bound and emptiness; 0 for all.
        guidance: scale of classifier-free guidance (`guided`).
        lr, background_lr: Adamax step sizes.
        n_noise: noise samples per step; var_red: SJC Eq. 16 (True) or 15.
        clip: bound on the direction; `ClipSchedule(None, None)` is SJC's.
        emptiness_weight, emptiness_scale: of the emptiness loss (`march` defines it); the weight is
            multiplied by `emptiness_multiplier` after the share `emptiness_step` of the schedule's steps.
        depth_weight, depth_loss: of `center_depth_loss`.
    """

    n_steps: int = 10_000
    schedule_steps: int = 0
    guidance: float = 100.0
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
        late = step >= self.emptiness_step * (self.schedule_steps or self.n_steps)
        return self.emptiness_weight * (self.emptiness_multiplier if late else 1.0)


@dataclass
class Scene:
    """Hold one object while it is optimised.

    Attributes:
        grid: changed in place.
        cameras, cond_of_step: one camera, and what the 2D model is told about its picture, per step.
        seed: decides, with the number of the step, what `draw_noise` returns.
        done: steps done; also the number of the next one.
    """

    grid: VoxelGrid
    optimizer: torch.optim.Optimizer
    cameras: list[Camera]
    cond_of_step: list[Conditioning]
    settings: Settings
    seed: int
    done: int = 0


@dataclass(frozen=True)
class Step:
    """What happened to a scene in one step: tensors without gradient, not yet read from the device.

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


def draw_noise(scene: Scene, denoiser: Denoiser) -> tuple[Tensor, Tensor]:
    """Draw sigma (scalar) and noise [n_noise, c, h, w] of the next step: a function of (seed, step) alone."""
    rng = np.random.default_rng([scene.seed, scene.done])
    sigma = denoiser.draw_sigma(rng)
    shape = scene.settings.n_noise, denoiser.channels, denoiser.size, denoiser.size
    noise = rng.standard_normal(shape, dtype=np.float32)
    return sigma, to_device(noise, scene.grid.density.device)


@dataclass(frozen=True)
class Estimate:
    """A scene's rendering for its next step, with its graph, and what the 2D model says about it.

    Attributes:
        direction: before clipping, [1, channels, height, width], in units of predicted noise.
    """

    rendering: Rendering
    sigma: Tensor
    direction: Tensor


def optimize_step(
    scenes: Sequence[Scene],
    draws: Sequence[tuple[Tensor, Tensor]],
    denoise: Callable[[Tensor, Tensor, Conditioning, Tensor], Tensor],
) -> list[Step]:
    """Do the next step of D-SDS on every scene, with one call of the 2D model for all of them.

    Scenes share nothing but that call, so each ends as it would alone, to rounding.

    Args:
        draws: sigma and noise of each scene, see `draw_noise`.
        denoise: `Denoiser.denoise`.

    Returns:
        The record of each scene's step, whose rendering is that before the update.
    """
    return [update(scene, found) for scene, found in zip(scenes, estimate(scenes, draws, denoise))]


def estimate(
    scenes: Sequence[Scene],
    draws: Sequence[tuple[Tensor, Tensor]],
    denoise: Callable[[Tensor, Tensor, Conditioning, Tensor], Tensor],
) -> list[Estimate]:
    """Render every scene for its next step and estimate the score there; the scenes stay as they are.

    Args: as those of `optimize_step`.
    """
    renderings = [render(s.grid, s.cameras[s.done], s.settings.emptiness_scale) for s in scenes]
    noised = [perturb(r.latent, *draw) for r, draw in zip(renderings, draws)]
    counts = [len(copies) for copies in noised]
    denoised = denoise(
        torch.cat(noised),
        torch.cat([sigma.expand(n) for n, (sigma, _) in zip(counts, draws)]),
        Conditioning.cat([s.cond_of_step[s.done].repeated(n) for n, s in zip(counts, scenes)]),
        torch.cat(
            [copies.new_full((n,), s.settings.guidance) for n, copies, s in zip(counts, noised, scenes)]
        ),
    ).split(counts)
    found = []
    for scene, rendering, (sigma, _), before, after in zip(scenes, renderings, draws, noised, denoised):
        direction = paas_direction(after, rendering.latent, before, sigma, scene.settings.var_red)
        found.append(Estimate(rendering, sigma, direction))
    return found


def update(scene: Scene, found: Estimate) -> Step:
    """Push the clipped direction and the regularisers back into a scene."""
    settings, step = scene.settings, scene.done
    rendering, direction = found.rendering, found.direction
    clip_value = settings.clip.value(step, settings.schedule_steps or settings.n_steps)

    regularizer = settings.emptiness_weight_at(step) * rendering.emptiness
    depth_term = None
    if settings.depth_weight > 0:
        depth_term = center_depth_loss(rendering.depth, settings.depth_loss)
        regularizer = regularizer + settings.depth_weight * depth_term

    scene.optimizer.zero_grad()
    torch.autograd.backward([rendering.latent, regularizer], [-clip(direction, clip_value), None])
    scene.optimizer.step()
    scene.done += 1

    seen = Rendering(*(t.detach() for t in vars(rendering).values()))
    depth_term = depth_term if depth_term is None else depth_term.detach()
    return Step(step, scene.cameras[step], found.sigma, seen, direction, clip_value, depth_term)
