"""SJC's centre-depth loss, and DreamFusion's sparsity.

SJC's emptiness and the orientation of lit fields are computed where the rays are marched
(`voxnerf.field.Rendering`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sjc_debiased.settings import DepthLoss, Settings

_CENTER_SHARE = 50 / 64  # 50 of 64 rows and columns are the centre


def center_depth_loss(
    depth: Float[Tensor, "h w"], form: DepthLoss = Settings.depth_loss
) -> Float[Tensor, ""]:
    """Return -log(difference of mean depth between the border and the centre of the picture).

    It asks for an object that is nearer than what surrounds it. "published" has the sign of SJC's code,
    -log(centre - border + 1e-12): its value is NaN when the centre is nearer, but its gradient is right.
    "corrected" is -log(border - centre), and zero where the centre is not nearer.

    Args:
        depth: [height, width], scene units.
    """
    height, width = depth.shape
    top, left = round(height * (1 - _CENTER_SHARE) / 2), round(width * (1 - _CENTER_SHARE) / 2)
    # Pieces, because a mask as an index would wait for the device.
    middle = depth[top : height - top]
    sides = torch.cat([middle[:, :left], middle[:, width - left :]], dim=1)
    border = torch.cat([depth[:top].flatten(), sides.flatten(), depth[height - top :].flatten()]).mean()
    center = middle[:, left : width - left].flatten().mean()
    if form == "published":
        return -torch.log(center - border + 1e-12)
    gap = border - center
    return -torch.log(torch.where(gap > 0, gap, torch.ones_like(gap)))


def sparsity_loss(opacity: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    """Return the mean of sqrt(opacity^2 + 0.01), scalar: threestudio's, for DreamFusion and Magic3D.

    0.1 for an empty picture, 1.005 for a full one. Its slope falls to 0 where the opacity does.

    Args:
        opacity: [height, width].
    """
    return (opacity.square() + 0.01).sqrt().mean()
