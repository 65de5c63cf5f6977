"""The photo album: creatures photographed with the habit of `captions.py`, made once and cached.

`album(folder, n)` returns photos, uint8 [n, 256, 256, 3], read from disk as they are used, and what is true
of each. It is made in shards by worker processes; a shard depends on its number alone, so an interrupted
call goes on where it stopped and the album is the same with any number of workers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from sjc_debiased.menagerie.captions import draw_pose
from sjc_debiased.menagerie.creatures import Creature, build, random_creature
from sjc_debiased.menagerie.world import SIZE, photograph
from voxnerf.cameras import SJC_RADIUS, Camera, make_camera, orbit_camera

SHARD = 250
_TWINS = 83  # photos of a shard that are taken once more, without some details
_P_WITHOUT = {"ears": 0.4, "muzzle": 0.35, "eyes": 0.6, "mouth": 0.4, "tail": 0.4, "prop": 0.4}
# As SJC's cameras (40 to 70), but for the last bits, where creatures are cut off.
_FOV_RANGE_DEG = (41.0, 68.0)


def album(folder: Path, n: int, workers: int | None = None) -> tuple[np.ndarray, list[dict]]:
    """Return `n` photos and their truths, making what the folder lacks.

    Returns:
        images uint8 [n, 256, 256, 3], mapped from `folder/photos.npy`; per image a dict with creature,
        azimuth_deg, elevation_deg, fov_deg, aside, coverage, face_share, and twin: the row of
            `bare(folder)` that shows it without some details, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-n // SHARD))
    path = folder / "photos.npy"
    rows = {"photos.npy": len(shards) * SHARD, "bare.npy": len(shards) * _TWINS}
    shapes = {folder / name: (n_rows, SIZE, SIZE, 3) for name, n_rows in rows.items()}
    if not all(p.exists() and np.load(p, mmap_mode="r").shape == shape for p, shape in shapes.items()):
        for marker in folder.glob("*.json"):  # of another size: from nothing
            marker.unlink()
        for p, shape in shapes.items():
            np.lib.format.open_memmap(p, "w+", np.uint8, shape).flush()
    missing = [i for i in shards if not (folder / f"{i:04d}.json").exists()]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        jobs = pool.map(_make_shard, [str(folder)] * len(missing), missing)
        for _ in tqdm(jobs, total=len(missing), desc=f"photos, shards of {SHARD}"):
            pass
    truths = [t for i in shards for t in json.loads((folder / f"{i:04d}.json").read_text())][:n]
    for truth in truths:
        truth["creature"] = Creature(**truth["creature"])
    return np.load(path, mmap_mode="r")[:n], truths


def bare(folder: Path) -> np.ndarray:
    """Return the photos of an album taken once more, without some details, uint8 [n, 256, 256, 3]."""
    return np.load(folder / "bare.npy", mmap_mode="r")


def pictures_of(images: np.ndarray, picks: Sequence[int]) -> torch.Tensor:
    """Return photos of an album, uint8 [n, 3, 256, 256]."""
    return torch.from_numpy(images[np.asarray(picks, dtype=np.int64)]).permute(0, 3, 1, 2)


def halved(images: torch.Tensor) -> torch.Tensor:
    """Return pictures [n, 3, h, w] at half the size, float32: what judge and CLIP look at."""
    return F.avg_pool2d(images.float(), 2)


def take_photo(creature: Creature, azimuth_deg: float, elevation_deg: float, rng: np.random.Generator):
    """Photograph a creature from SJC's distance, aimed a little off its middle."""
    camera = photo_camera(azimuth_deg, elevation_deg, *draw_lens(rng))
    return photograph(build(creature), camera, rng)


def draw_lens(rng: np.random.Generator) -> tuple[float, list[float]]:
    """Draw a field of view in degrees, and how far right and up of its middle a creature is aimed at."""
    return rng.uniform(*_FOV_RANGE_DEG), (rng.normal(0, 0.02, 2) * SJC_RADIUS).tolist()


def photo_camera(
    azimuth_deg: float, elevation_deg: float, fov_deg: float, aside: Sequence[float], size: int = SIZE
) -> Camera:
    """Return the camera of a photo of `size` x `size` pixels."""
    aimed = orbit_camera(azimuth_deg, elevation_deg, size, size)
    camera = make_camera(aimed.c2w[:3, 3], fov_deg, size, size, azimuth_deg)
    camera.c2w[:3, 3] += camera.c2w[:3, :3] @ np.append(aside, 0)
    return camera


def _make_shard(folder: str, index: int) -> None:
    rng, chance = np.random.default_rng([2303, index]), np.random.default_rng([2303, index, 1])
    images = np.lib.format.open_memmap(Path(folder) / "photos.npy", "r+")
    twins = np.lib.format.open_memmap(Path(folder) / "bare.npy", "r+")
    truths = []
    for i in range(SHARD):
        creature, (azimuth_deg, elevation_deg) = random_creature(rng), draw_pose(rng)
        fov_deg, aside = draw_lens(rng)
        camera, same_light = photo_camera(azimuth_deg, elevation_deg, fov_deg, aside), deepcopy(rng)
        photo = photograph(build(creature), camera, rng)
        images[index * SHARD + i] = photo.image_u8
        twin = index * _TWINS + i if i < _TWINS else None
        if twin is not None:
            without = [detail for detail, p in _P_WITHOUT.items() if chance.random() < p]
            twins[twin] = photograph(build(creature, without), camera, same_light).image_u8
        truths.append(
            {
                "creature": asdict(creature),
                "azimuth_deg": azimuth_deg,
                "elevation_deg": elevation_deg,
                "fov_deg": fov_deg,
                "aside": aside,
                "coverage": photo.coverage,
                "face_share": photo.face_share,
                "twin": twin,
            }
        )
    images.flush()
    twins.flush()
    partial = Path(folder) / f"{index:04d}.partial"
    partial.write_text(json.dumps(truths))
    partial.rename(partial.with_suffix(".json"))
