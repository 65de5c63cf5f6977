"""The colors that creatures are told by."""

from __future__ import annotations

import colorsys

import numpy as np

COLORS = {  # hue, saturation, value
    "orange": (0.075, 0.85, 0.93),
    "brown": (0.065, 0.68, 0.50),
    "black": (0.62, 0.15, 0.13),
    "white": (0.12, 0.04, 0.97),
    "gray": (0.60, 0.06, 0.56),
    "pink": (0.96, 0.40, 0.95),
    "blue": (0.60, 0.70, 0.82),
    "green": (0.31, 0.62, 0.62),
    "yellow": (0.14, 0.78, 0.95),
    "red": (0.00, 0.80, 0.76),
}


def shade(color: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a shade of a color, RGB in [0, 1]."""
    h, s, v = COLORS[color]
    jitter = rng.normal(0, 1, 3) * [0.012, 0.04, 0.03]
    return colorsys.hsv_to_rgb((h + jitter[0]) % 1, *np.clip([s + jitter[1], v + jitter[2]], 0, 1))
