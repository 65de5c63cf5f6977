"""Score debiasing (D-SDS Sec. 4.1, Eqs. 12-13): an elementwise bound on the direction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

from sjc_debiased.schedules import Schedule

_NOTHING = 5e-4
"""Of the values: a share below it is 0.0 % as it is shown."""


@dataclass(frozen=True)
class ClipSchedule:
    """Bound the direction by a value that grows linearly from `start` to `end`.

    `start == end` is static clipping, `None` for both is no clipping. The unit is that of `direction`:
    predicted noise. Stable Diffusion: 2 -> 8; DeepFloyd IF: 0.5 -> 2 (App. C.2). With SDS and VSD
    it bounds w(t) times the direction, as threestudio does, so the same bound is looser: w is at most 1.
    `options.forms.clip_bounds` says which bounds a run has.

    >>> ClipSchedule(2.0, 8.0).value(2500, 10_000)
    3.5
    >>> ClipSchedule(2.0, 8.0).value(12_000, 10_000)
    8.0
    """

    start: float | None
    end: float | None

    def value(self, step: int, schedule_steps: int) -> float | None:
        """Return the bound at a step: (1 - tau) start + tau end, tau = step / schedule_steps (Eq. 13).

        The schedule is as long as the run, or shorter: then the bound stays at `end`.
        """
        if self.start is None or self.end is None:
            return None
        return Schedule(((0, self.start), (schedule_steps, self.end))).value(step)


def clip(direction: Tensor, clip_value: float | None) -> Tensor:
    """Return max(min(direction, clip_value), -clip_value), elementwise (Eq. 12); None clips nothing."""
    return direction if clip_value is None else direction.clamp(-clip_value, clip_value)


def clipped_share(rows: Iterable[dict]) -> float | None:
    """Return the share of a run's values that were beyond the bound, or None where it does not clip.

    Args:
        rows: of `stats.jsonl`, a step each.
    """
    shares = [row["clipped_fraction"] for row in rows if row.get("clip_value") is not None]
    return sum(shares) / len(shares) if shares else None


def say_clipped(share: float) -> str:
    """Return the share in words, and where it is near zero what that means.

    >>> say_clipped(0.0313)
    'clipped 3.1 %'
    >>> say_clipped(0.0001)
    'clipped 0.0 %: the bound does nothing here'
    """
    return f"clipped {share:.1%}".replace("%", " %") + ("" if share >= _NOTHING else _FINDING)


_FINDING = ": the bound does nothing here"
