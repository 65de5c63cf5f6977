"""Other frameworks than SJC: what each sets in its place. docs/frameworks.md has theirs beside ours."""

from __future__ import annotations

from typing import Any

from sjc_debiased.options.presets import FrameworkName

_DREAMFUSION: dict[str, Any] = {
    "cameras": "dreamfusion",
    "light": "dreamfusion",
    "start": "dreamfusion",
    "color_scale": 0.0,
    "color_mean": (),
    "background_mean": (),
    "background": "seamless",
    "background_lr": 1e-3,
    "emptiness_weight": 0.0,
    "orientation_start": 10.0,
    "orientation_end": 1000.0,
    "sparsity_weight": 1.0,
    "guidance_form": "sds",
    "weighting": "sds",
    "timesteps": ("20", "981"),
}
FRAMEWORKS: dict[FrameworkName, dict[str, Any]] = {
    "dreamfusion-sd": _DREAMFUSION | {"highest_deg": 45.0},
    "dreamfusion-if": _DREAMFUSION | {"highest_deg": 90.0},
    "magic3d": _DREAMFUSION | {"highest_deg": 45.0, "light": "magic3d", "weighting": "uniform"},
}
"""By the names of options. What is not here is the model's own: resolution and box, steps, guidance scale,
bounds, and the step size of the grid."""
