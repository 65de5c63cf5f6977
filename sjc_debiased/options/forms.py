"""What a form of guidance makes of a model's numbers: its guidance scale, and the bounds of its clip.

One rule for all models and forms; docs/frameworks.md has the reasons.
"""

from __future__ import annotations

from sjc_debiased.options.profiles import NoiseTable, Profile
from sjc_debiased.schedules import ClipSchedule
from sjc_debiased.settings import GuidanceForm, GuidanceSettings, Weighting

VSD_SCALE = 7.5  # ProlificDreamer's
MEAN_WEIGHTS: dict[NoiseTable, dict[Weighting, float]] = {
    "linear": {"sds": 0.632, "uniform": 1.0, "fantasia3d": 0.241},
    "cosine": {"sds": 0.505, "uniform": 1.0, "fantasia3d": 0.222},
}
"""Means of w(t) over timesteps 20 to 980 of Stable Diffusion's table of noise, and of IF's."""


def guidance_scale(profile: Profile, form: GuidanceForm) -> float:
    """Return a form's classifier-free guidance scale, as `denoiser.guided` counts it.

    DreamFusion (and threestudio) count from the conditional side: (1 + w) eps_c - w eps_u, which is
    eps_u + (w + 1) (eps_c - eps_u). Its w = 100 with Stable Diffusion is 101 here; SJC's 100 is 100.
    """
    if form == "vsd":
        return VSD_SCALE
    return (profile.guidance_sds or profile.guidance) if form == "sds" else profile.guidance


def clip_bounds(profile: Profile, form: GuidanceForm, weighting: Weighting | None) -> tuple[float, float]:
    """Return the bounds of dynamic clipping, (start, end), in the units of what a form clips.

    PAAS clips the direction, SDS and VSD w(t) times it. The paper's bounds hold for all of them unchanged: it
    has 2 to 8 "for all experiments using Stable Diffusion" and 0.5 to 2 for DeepFloyd IF (App. C.2), and its
    other frameworks clip what is weighted (threestudio). Bounds that a model's own profile has were chosen
    for the direction of PAAS: for SDS and VSD they are multiplied by the mean of w(t).

    Args:
        weighting: None with PAAS.

    >>> clip_bounds(Profile(clip_start=0.5, clip_end=2.0), "sds", "sds")
    (0.316, 1.26)
    """
    weighed = None if form == "paas" or profile.clip_published else weighting
    factor = 1.0 if weighed is None else MEAN_WEIGHTS[profile.noise_table][weighed]
    start, end = (float(f"{factor * bound:.3g}") for bound in (profile.clip_start, profile.clip_end))
    return start, end


def clip_rule(profile: Profile, told: GuidanceSettings, clip: ClipSchedule) -> str:
    """Return where the bounds of a run come from, in words."""
    if clip.start is None:
        return "not clipped"
    form, weighting = told.guidance_form, told.weighting
    what = "the direction" if form == "paas" else "w(t) times the direction"
    if not {clip.start, clip.end} <= {*clip_bounds(profile, form, weighting)}:
        return f"as given, on {what}"
    if form == "paas":
        return f"the model's, on {what}"
    if profile.clip_published:
        return f"the model's, on {what}: the paper's for every framework (App. C.2)"
    mean = f"{MEAN_WEIGHTS[profile.noise_table][weighting or 'sds']:g}, the mean of w(t)"
    return f"the model's, which are of PAAS's direction, times {mean}; on {what}"
