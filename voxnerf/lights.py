"""Lights: a lamp for a step, and the laws by which DreamFusion and Magic3D draw it.

Source: threestudio's configurations of DreamFusion (arXiv:2209.14988) and of Magic3D's coarse stage
(arXiv:2211.10440).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from voxnerf.settings import TEXTURELESS

LightLaw = Literal["dreamfusion", "magic3d"]
_PLAIN = 0.25  # of the draws
_DISTS = (0.8, 1.5)
_AMBIENT, _DIFFUSE = 0.1, 0.9
_WIDEST_DEG = 60.0  # between Magic3D's light and the camera, seen from the origin


@dataclass(frozen=True)
class Light:
    """A point light, and what it falls on: color = base * (ambient + diffuse * max(0, normal . to_light)).

    Attributes:
        position: scene units, float64 [3].
        ambient, diffuse: light from everywhere and from the point, in [0, 1].
        textureless: the base is white; otherwise it is the albedo.
    """

    position: Float[np.ndarray, "3"]
    ambient: float = _AMBIENT
    diffuse: float = _DIFFUSE
    textureless: bool = False


def draw_light(
    law: LightLaw,
    eye: Float[np.ndarray, "3"],
    rng: np.random.Generator,
    textureless: float = TEXTURELESS,
    least_ambient: float = 0.0,
) -> Light | None:
    """Draw how a view is lit: 25 % not at all (its albedo), a share textureless, the rest with its colors.

    The light is U(0.8, 1.5) from the origin. "dreamfusion": in direction eye + N(0, 1)^3, ambient 0.1 and
    diffuse 0.9. "magic3d": U(0, 60) degrees from the direction of the eye, turned around it by any angle;
    diffuse ~ U(0, 1), ambient = 1 - diffuse.

    Args:
        eye: the camera's position, [3].
        textureless: share of the draws without colors, in [0, 0.75]; the laws' own is 0.375.
        least_ambient: how much light comes from everywhere at least, in [0, 1]; what the lamp gives is never
            more than the rest. 0 leaves the laws as they are.
    """
    kind, dist, soft, tilt = rng.random(), rng.uniform(*_DISTS), rng.random(), rng.random()
    aside = rng.standard_normal(3)
    if kind < _PLAIN:
        return None
    white = kind < _PLAIN + textureless
    if law == "dreamfusion":
        ambient = max(_AMBIENT, least_ambient)
        return Light(dist * _unit(eye + aside), ambient, min(_DIFFUSE, 1 - ambient), white)
    axis, tilt = _unit(eye), np.deg2rad(_WIDEST_DEG) * tilt
    across = _unit(aside - (aside @ axis) * axis)
    position = dist * (np.cos(tilt) * axis + np.sin(tilt) * across)
    soft = min(soft, 1 - least_ambient)
    return Light(position, 1 - soft, soft, white)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
