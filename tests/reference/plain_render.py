"""A plain renderer in the style of the published code: dense samples, `grid_sample`, a running product.

Written for comparison only: benchmarks time against it, tests compare with it.
"""

import torch
import torch.nn.functional as F

from voxnerf.rays import camera_rays, intersect_box
from voxnerf.render import BACKGROUND_DIST


def plain_render(grid, camera, emptiness_scale=10.0, weight_threshold=1e-4):
    """Return latent [1, c, h, w], depth [h, w], weights [k, n] and the emptiness loss."""
    config = grid.config
    origin, directions = camera_rays(camera)
    enter, leave = intersect_box(origin, directions, grid.aabb)
    n_samples = int(((leave - enter) / config.step_size).max()) + 1
    steps = torch.arange(n_samples)[:, None] * config.step_size
    dists = enter + steps
    inside = steps < (leave - enter)
    points = origin + directions * dists[..., None]
    where = points / config.half_size

    raw = torch.zeros(dists.shape)
    raw[inside] = F.grid_sample(grid.density, where[inside][None, None, None], align_corners=False).view(-1)
    density = F.softplus(raw * grid.log_density_scale.exp() + config.density_shift)
    density = torch.where(inside, density, torch.zeros_like(density))

    alpha = 1 - torch.exp(-density * config.step_size)
    kept = torch.cumprod(1 - alpha, dim=0)
    transmittance = torch.cat([torch.ones(1, dists.shape[1]), kept[:-1]])
    weights = alpha * transmittance

    seen = weights > weight_threshold
    colors = torch.zeros(*dists.shape, config.channels)
    found = F.grid_sample(grid.color, where[seen][None, None, None], align_corners=False)
    colors[seen] = found[0, :, 0, 0].T
    behind = 1 - weights.sum(0)
    latent = (weights[..., None] * colors).sum(0) + behind[:, None] * grid.background_at(directions)
    depth = (weights * dists).sum(0) + behind * BACKGROUND_DIST
    size = camera.height, camera.width
    emptiness = torch.log(1 + emptiness_scale * weights).mean()
    return latent.T.reshape(1, -1, *size), depth.view(size), weights, emptiness
