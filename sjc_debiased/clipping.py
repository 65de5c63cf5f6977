"""Score debiasing (D-SDS Sec. 4.1, Eqs. 12-13): an elementwise bound on the direction."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sjc_debiased.schedules import ClipSchedule  # Eq. 13; there, because options have it before PyTorch

__all__ = ["ClipSchedule", "clip"]


def clip(direction: Float[Tensor, "*shape"], clip_value: float | None) -> Float[Tensor, "*shape"]:
    """Return max(min(direction, clip_value), -clip_value), elementwise (Eq. 12); None clips nothing."""
    return direction if clip_value is None else direction.clamp(-clip_value, clip_value)
