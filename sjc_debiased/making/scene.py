"""The scene of a run at its start: the first field, and for every step its camera and its prompt."""

from __future__ import annotations

from prompts.debias import ViewPrompts
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance.build import build_guidance
from sjc_debiased.making.fields import build_field
from sjc_debiased.making.viewing import draw_views
from sjc_debiased.optimize import Scene, make_optimizer
from sjc_debiased.options.config import Resolved
from voxnerf.field import Field
from voxnerf.settings import Kernel


def build_scene(
    run: Resolved, prompts: ViewPrompts, denoiser: Denoiser, kernel: Kernel = "auto"
) -> tuple[Scene, list[str]]:
    """Build a run's scene on the device of its 2D model; return it with the view of every step.

    Args:
        kernel: draws its field (`prepare.try_kernel`).
    """
    return scene_around(build_field(run, denoiser, kernel), run, prompts, denoiser)


def scene_around(
    field: Field, run: Resolved, prompts: ViewPrompts, denoiser: Denoiser, sharper: int = 1
) -> tuple[Scene, list[str]]:
    """Build a run's scene around a field, which need not be at its start; return it as `build_scene` does.

    Args:
        sharper: by which factor the pictures of a field of RGB are larger than those of the 2D model.
    """
    settings, size = run.settings, sharper * denoiser.size
    cameras = draw_views(run.viewing, settings.n_steps, settings.schedule_steps, size, run.seed)
    scheme = run.prompting.scheme
    views = [scheme.view(c.azimuth_deg, c.elevation_deg) for c in cameras]
    told = _condition(prompts, denoiser)
    cond_of_step = [told[view] for view in views]
    guidance = build_guidance(run, denoiser, cameras)
    optimizer = make_optimizer(field, settings)
    return Scene(field, optimizer, cameras, cond_of_step, guidance, settings, run.seed), views


def _condition(prompts: ViewPrompts, denoiser: Denoiser) -> dict[str, Conditioning]:
    """Return what the 2D model is told about every view, each distinct prompt read once."""
    distinct = list(dict.fromkeys(prompts.sent.values()))
    rows = dict(zip(distinct, denoiser.condition(distinct).split()))
    return {view: rows[prompt] for view, prompt in prompts.sent.items()}
