"""The truth as a field: what the loop would find if it found what the prompt says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.menagerie.colors import COLORS
from sjc_debiased.menagerie.creatures import KINDS, OWN_COLOR, PROPS, TAILS, Creature, build
from sjc_debiased.menagerie.profile import PROFILE
from sjc_debiased.menagerie.world import SIZE, photograph
from voxnerf.cameras import Camera, sample_sjc_cameras
from voxnerf.grid import VoxelGrid
from voxnerf.render import render

N_PHOTOS = 120
FIT_STEPS = 500
_SHAPE_SEED = 3
_BATCH = 20
_EMPTINESS = 1e-3  # what no photo shows stays empty


def creature_of(prompt: str) -> Creature:
    """Return the creature that a prompt in the captions' grammar speaks of.

    Raises:
        ValueError: it names no kind of the world.
    """
    words = prompt.replace(",", " ").split()
    kind = next((w for w in words if w in KINDS), None)
    if kind is None:
        raise ValueError(
            f"the prompt must name a creature of the world: {', '.join(KINDS)}. It is {prompt!r}."
        )
    face = next((w for w in ("smiling", "winking") if w in words), "plain")
    return Creature(
        kind=kind,
        color=next((w for w in words if w in COLORS), OWN_COLOR[kind]),
        face="big eyes" if {"big", "eyes"} <= {*words} else face,
        tail=next((w for w in words if w in TAILS), "own"),
        prop=next((w for w in words if w in PROPS), "none"),
        shape_seed=_SHAPE_SEED,
    )


def photos(creature: Creature, cameras: list[Camera], factor: int) -> Tensor:
    """Photograph a creature before one backdrop in one light.

    Args:
        factor: pixels of a photo to a pixel of the cameras.

    Returns:
        uint8 [n, 3, height, width].
    """
    parts = build(creature)
    taken = [photograph(parts, c.resized(factor), np.random.default_rng(_SHAPE_SEED)) for c in cameras]
    return torch.from_numpy(np.stack([photo.image_u8 for photo in taken])).permute(0, 3, 1, 2)


def fit(grid: VoxelGrid, creature: Creature, denoiser: Denoiser, n_steps: int) -> None:
    """Fit a field to the latents of a creature's photos from SJC's cameras, by plain regression."""
    size = denoiser.size
    cameras = sample_sjc_cameras(N_PHOTOS, size, np.random.RandomState(_SHAPE_SEED))
    images = photos(creature, cameras, SIZE // size).to(denoiser.device)
    with torch.no_grad():
        latents = torch.cat([denoiser.encode(some / 127.5 - 1) for some in images.split(_BATCH)])
    optimizer = torch.optim.Adamax(grid.parameter_groups(PROFILE.lr, PROFILE.background_lr))
    rng = np.random.default_rng(_SHAPE_SEED)
    for _ in trange(n_steps, desc="fitting the truth", leave=False):
        i = int(rng.integers(len(cameras)))
        seen = render(grid, cameras[i])
        loss = F.mse_loss(seen.latent, latents[i : i + 1], reduction="sum") + _EMPTINESS * seen.emptiness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Truths:
    """Fields fitted to true creatures, each fitted once."""

    def __init__(self, denoiser: Denoiser, n_steps: int):
        self._denoiser, self._n_steps = denoiser, n_steps
        self._fitted: dict[Creature, dict[str, Tensor]] = {}

    def show(self, grid: VoxelGrid, creature: Creature) -> None:
        """Make a grid, which is at its start, the field of a creature."""
        if creature not in self._fitted:
            fit(grid, creature, self._denoiser, self._n_steps)
            self._fitted[creature] = {name: value.clone() for name, value in grid.state_dict().items()}
        grid.load_state_dict(self._fitted[creature])


@torch.no_grad()
def blur(grid: VoxelGrid, width: int) -> None:
    """Average density and colors of a field over cubes of `width` voxels (odd)."""
    for values in (grid.density, grid.color):
        padded = F.pad(values, (width // 2,) * 6, "replicate")
        values.copy_(F.avg_pool3d(padded, width, 1))
