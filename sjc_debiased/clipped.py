"""How much of a run's direction the bound clipped, as its log says, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterable

_NOTHING = 5e-4  # of the values: a smaller share is 0.0 % as it is shown
_FINDING = ": the bound does nothing here"


def clipped_share(rows: Iterable[dict]) -> float | None:
    """Return the share of a run's values that were beyond the bound, or None where it does not clip.

    Args:
        rows: of `stats.jsonl`, a step each.
    """
    shares = [row["clipped_fraction"] for row in rows if row.get("clip_value") is not None]
    return sum(shares) / len(shares) if shares else None


def does_nothing(share: float) -> bool:
    """Return whether so small a share of clipped values means that the bound does nothing."""
    return share < _NOTHING


def say_clipped(share: float) -> str:
    """Return the share in words, and where it is near zero what that means.

    >>> say_clipped(0.0313)
    'clipped 3.1 %'
    >>> say_clipped(0.0001)
    'clipped 0.0 %: the bound does nothing here'
    """
    return f"clipped {share:.1%}".replace("%", " %") + (_FINDING if does_nothing(share) else "")
