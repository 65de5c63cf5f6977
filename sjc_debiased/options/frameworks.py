"""Other frameworks than SJC: what each sets in its place. docs/frameworks.md has theirs beside ours."""

from __future__ import annotations

from typing import Any

from sjc_debiased.options.presets import FrameworkName
from sjc_debiased.options.profiles import Profile

SDS_TIMESTEPS = ("20", "981")  # 0.02 to 0.98 of 1,000, both ends in
_DREAMFUSION: dict[str, Any] = {
    "cameras": "dreamfusion",
    "light": "dreamfusion",
    "start": "dreamfusion",
    "color_scale": 0.0,
    "background": "seamless",
    "background_lr": 1e-3,
    "emptiness_weight": 0.0,
    "orientation_start": 10.0,
    "orientation_end": 1000.0,
    "sparsity_weight": 1.0,
    "guidance_form": "sds",
    "weighting": "sds",
    "timesteps": SDS_TIMESTEPS,
}
FRAMEWORKS: dict[FrameworkName, dict[str, Any]] = {
    "dreamfusion-sd": _DREAMFUSION | {"highest_deg": 45.0},
    "dreamfusion-if": _DREAMFUSION | {"highest_deg": 90.0},
    "magic3d": _DREAMFUSION | {"highest_deg": 45.0, "light": "magic3d", "weighting": "uniform"},
}
_UNLESS_THE_MODELS = ("start", "timesteps")
"""What a model's profile may name instead: a model that was trained to finish one start finishes no other."""


def framework_numbers(framework: FrameworkName, profile: Profile) -> dict[str, Any]:
    """Return what a framework sets for a model, by the names of options.

    What is not there is the model's own: resolution and box, steps, guidance scale, bounds, first colors, and
    the step size of the grid. So is what its profile names of lit scenes.
    """
    usual, numbers = Profile(), dict(FRAMEWORKS[framework])
    for name in _UNLESS_THE_MODELS:
        if (own := getattr(profile, name)) != getattr(usual, name):
            numbers[name] = own
    return numbers | profile.lit
