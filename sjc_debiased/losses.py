"""The two regularisers of SJC: emptiness, and depth of the centre against the border."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

DepthLoss = Literal["published", "corrected"]
_CENTER_SHARE = 50 / 64  # 50 of 64 rows and columns are the centre


def emptiness_loss(weights: Tensor, scale: float = 10.0) -> Tensor:
    """Return mean log(1 + scale * w) over all samples and rays, those outside the box included.

    It asks for few, opaque samples instead of many faint ones (SJC Sec. 4.3).

    Args:
        weights: [n_samples, n_rays].
    """
    return torch.log1p(scale * weights).mean()


def center_depth_loss(depth: Tensor, form: DepthLoss = "published") -> Tensor:
    """Return -log(difference of mean depth between the border and the centre of the picture).

    It asks for an object that is nearer than what surrounds it. "published" has the sign of SJC's code,
    -log(centre - border + 1e-12): its value is NaN when the centre is nearer, but its gradient is right.
    "corrected" is -log(border - centre), and zero where the centre is not nearer.

    Args:
        depth: [height, width], scene units.
    """
    height, width = depth.shape
    top, left = round(height * (1 - _CENTER_SHARE) / 2), round(width * (1 - _CENTER_SHARE) / 2)
    inside = torch.zeros_like(depth, dtype=torch.bool)
    inside[top : height - top, left : width - left] = True
    center, border = depth[inside].mean(), depth[~inside].mean()
    if form == "published":
        return -torch.log(center - border + 1e-12)
    gap = border - center
    return -torch.log(torch.where(gap > 0, gap, torch.ones_like(gap)))
