"""Volume rendering along rays: density -> alpha, transmittance, weights -> composites. Pure functions.

Samples run along dim 0, rays along dim 1: every array here is [n_samples, n_rays, ...].
Source: NeRF (arXiv:2003.08934) Eq. 3, with samples at the left edge of equal steps, as SJC takes them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def compositing_weights(
    density: Float[Tensor, "n_samples n_rays"], step_size: float
) -> tuple[Float[Tensor, "n_samples n_rays"], Float[Tensor, "n_rays"]]:
    """Return each sample's share of its ray, and what light is left behind the last one.

    alpha_i = 1 - exp(-density_i * step_size); transmittance_i = prod_{j<i} (1 - alpha_j);
    weight_i = alpha_i * transmittance_i. For densities (0, ln 2, ln 2) and step_size 1 the weights are
    (0, 0.5, 0.25) and 0.25 is left.

    Args:
        density: >= 0, per scene unit, [n_samples, n_rays]; 0 where a sample does not count.
        step_size: scene units.

    Returns:
        weights [n_samples, n_rays], >= 0, whose sum over samples is 1 - remaining; remaining [n_rays].
    """
    optical_depth = density * step_size
    total = optical_depth.cumsum(dim=0)
    transmittance = torch.exp(optical_depth - total)
    weights = transmittance * -torch.expm1(-optical_depth)
    return weights, torch.exp(-total[-1])
