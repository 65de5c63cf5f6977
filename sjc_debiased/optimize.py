"""One step of the method: render, estimate the score, clip it, push it back. And the loops around it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sjc_debiased.clipping import clip, within
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance import Guidance, Query, TrainedGuidance
from sjc_debiased.losses import center_depth_loss, sparsity_loss
from sjc_debiased.seeing import picture_of
from sjc_debiased.settings import Settings
from voxnerf.cameras import Camera
from voxnerf.field import Field, Rendering


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
        losses: those of `_regularizer` that the scene has beside emptiness, unweighted, scalars by name.
    """

    step: int
    camera: Camera
    sigma: Float[Tensor, ""]
    rendering: Rendering
    direction: Float[Tensor, "1 c h w"]
    clip_value: float | None
    losses: dict[str, Float[Tensor, ""]]


def make_optimizer(field: Field, settings: Settings) -> torch.optim.Adamax:
    """Return SJC's optimiser: Adamax, betas (0.9, 0.999), eps 1e-8, the background at its own rate."""
    return torch.optim.Adamax(field.parameter_groups(settings.lr, settings.background_lr))


def one_step(scene: Scene, denoiser: Denoiser) -> Generator[Query, Float[Tensor, "n c h w"], Step]:
    """Do the next step of D-SDS on a scene: yield what the 2D model is asked, and take its answer.

    Whatever is random is a function of the scene's seed and the number of the step.

    Returns:
        The record of the step, whose rendering is that before the update.
    """
    settings, step, camera = scene.settings, scene.done, scene.cameras[scene.done]
    rendering = scene.field.render(camera, settings.emptiness_scale)
    seen = picture_of(rendering.latent, scene.field, denoiser)
    picture = seen.detach()
    rng = np.random.default_rng([scene.seed, step])
    query = scene.guidance.ask(picture, scene.cond_of_step[step], step, rng, denoiser)
    denoised = within((yield query), settings.denoised_range)
    direction = scene.guidance.answer(picture, query, denoised)
    clip_value = settings.clip.value(step, settings.schedule_steps or settings.n_steps)
    push = direction.weight * clip(direction.value, clip_value)

    regularizer, losses = _regularizer(settings, step, rendering)
    for group in scene.optimizer.param_groups:
        group["lr"] = settings.lr_share_at(step) * group.setdefault("initial_lr", group["lr"])
    scene.optimizer.zero_grad()
    torch.autograd.backward([seen, regularizer], [-push, None])
    scene.optimizer.step()
    if isinstance(scene.guidance, TrainedGuidance):
        scene.guidance.learn(picture, query, rng)
    scene.done += 1

    losses = {name: loss.detach() for name, loss in losses.items()}
    return Step(step, camera, query.sigma, rendering.detached(), direction.value, clip_value, losses)


def _regularizer(settings: Settings, step: int, rendering: Rendering) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the losses on a rendering, and each but emptiness unweighted, by name."""
    weighted: dict[str, tuple[float, Tensor]] = {}
    if settings.depth_weight > 0:
        depth = center_depth_loss(rendering.depth, settings.depth_loss)
        weighted["depth"] = settings.depth_weight, depth
    if rendering.orientation is not None:
        weighted["orientation"] = settings.orientation_weight_at(step), rendering.orientation
    if rendering.roughness is not None:
        weighted["roughness"] = settings.roughness_weight, rendering.roughness
    if settings.sparsity_weight > 0:
        weighted["sparsity"] = settings.sparsity_weight, sparsity_loss(rendering.opacity)
    total = settings.emptiness_weight_at(step) * rendering.emptiness
    for weight, loss in weighted.values():
        total = total + weight * loss
    return total, {name: loss for name, (_, loss) in weighted.items()}


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
        torch.cat([torch.full((n,), float(query.scale)) for n, query in zip(counts, queries)]),
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
