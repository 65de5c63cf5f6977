"""One step of the method: render, estimate the score, clip it, push it back. And the loops around it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sjc_debiased.clipping import ClipSchedule, clip
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance import Guidance, Query, TrainedGuidance
from sjc_debiased.losses import DepthLoss, center_depth_loss
from voxnerf.cameras import Camera
from voxnerf.field import Field, Rendering


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; the defaults are SJC's on Stable Diffusion.

    Attributes:
        n_steps: optimisation steps.
        schedule_steps: over how many of them the schedules run, of bound and emptiness; 0 for all.
        lr, background_lr: Adamax step sizes.
        clip: bound on the direction; `ClipSchedule(None, None)` is SJC's.
        emptiness_weight, emptiness_scale: of the emptiness loss (`march` defines it); the weight is
            multiplied by `emptiness_multiplier` after the share `emptiness_step` of the schedule's steps.
        depth_weight, depth_loss: of `center_depth_loss`.
    """

    n_steps: int = 10_000
    schedule_steps: int = 0
    lr: float = 0.05
    background_lr: float = 1e-4
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
        field: changed in place.
        cameras, cond_of_step: one camera, and what the 2D model is told about its picture, per step.
        guidance: what draws its pictures to the prompt.
        seed: decides, with the number of the step, whatever is random.
        done: steps done; also the number of the next one.
    """

    field: Field
    optimizer: torch.optim.Optimizer
    cameras: list[Camera]
    cond_of_step: list[Conditioning]
    guidance: Guidance
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


def make_optimizer(field: Field, settings: Settings) -> torch.optim.Adamax:
    """Return SJC's optimiser: Adamax, betas (0.9, 0.999), eps 1e-8, the background at its own rate."""
    return torch.optim.Adamax(field.parameter_groups(settings.lr, settings.background_lr))


def one_step(scene: Scene, denoiser: Denoiser) -> Generator[Query, Tensor, Step]:
    """Do the next step of D-SDS on a scene: yield what the 2D model is asked, and take its answer.

    Whatever is random is a function of the scene's seed and the number of the step.

    Returns:
        The record of the step, whose rendering is that before the update.
    """
    settings, step, camera = scene.settings, scene.done, scene.cameras[scene.done]
    rendering = scene.field.render(camera, settings.emptiness_scale)
    picture = rendering.latent.detach()
    rng = np.random.default_rng([scene.seed, step])
    query = scene.guidance.ask(picture, scene.cond_of_step[step], step, rng, denoiser)
    denoised = yield query
    direction = scene.guidance.answer(picture, query, denoised)
    clip_value = settings.clip.value(step, settings.schedule_steps or settings.n_steps)
    push = direction.weight * clip(direction.value, clip_value)

    regularizer = settings.emptiness_weight_at(step) * rendering.emptiness
    depth_term = None
    if settings.depth_weight > 0:
        depth_term = center_depth_loss(rendering.depth, settings.depth_loss)
        regularizer = regularizer + settings.depth_weight * depth_term

    scene.optimizer.zero_grad()
    torch.autograd.backward([rendering.latent, regularizer], [-push, None])
    scene.optimizer.step()
    if isinstance(scene.guidance, TrainedGuidance):
        scene.guidance.learn(picture, query, rng)
    scene.done += 1

    seen = Rendering(*(t.detach() for t in vars(rendering).values()))
    depth_term = depth_term if depth_term is None else depth_term.detach()
    return Step(step, camera, query.sigma, seen, direction.value, clip_value, depth_term)


def begin_step(scenes: Sequence[Scene], denoiser: Denoiser) -> list[Callable[[], Step]]:
    """Begin the next step of every scene, with one call of the 2D model for all of them.

    The scenes stay as they are until what is returned is called, once for each, which ends its step.
    """
    begun = [one_step(scene, denoiser) for scene in scenes]
    queries = [next(one) for one in begun]
    counts = [len(query.noised) for query in queries]
    denoised = denoiser.denoise(
        torch.cat([query.noised for query in queries]),
        torch.cat([query.sigma.expand(n) for n, query in zip(counts, queries)]),
        Conditioning.cat([query.cond for query in queries]),
        torch.cat([query.noised.new_full((n,), query.scale) for n, query in zip(counts, queries)]),
    )
    return [partial(_end, *one) for one in zip(begun, denoised.split(counts))]


def optimize_step(scenes: Sequence[Scene], denoiser: Denoiser) -> list[Step]:
    """Do the next step of D-SDS on every scene, with one call of the 2D model for all of them.

    Scenes share nothing but that call, so each ends as it would alone, to rounding.
    """
    return [end() for end in begin_step(scenes, denoiser)]


def optimize(scene: Scene, denoiser: Denoiser) -> Iterator[Step]:
    """Do the steps that a scene still has; yield the record of each when it is done."""
    while scene.done < scene.settings.n_steps:
        yield from optimize_step([scene], denoiser)


def _end(begun: Generator[Query, Tensor, Step], denoised: Tensor) -> Step:
    try:
        begun.send(denoised)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a step asks the 2D model once")
