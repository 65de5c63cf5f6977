"""Score debiasing (D-SDS Sec. 4.1, Eq. 12): an elementwise bound on the direction.

How the bound grows (Eq. 13) is `schedules.ClipSchedule`, which options have before PyTorch is there.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def clip(direction: Float[Tensor, "*shape"], clip_value: float | None) -> Float[Tensor, "*shape"]:
    """Return max(min(direction, clip_value), -clip_value), elementwise (Eq. 12); None clips nothing."""
    return direction if clip_value is None else direction.clamp(-clip_value, clip_value)
