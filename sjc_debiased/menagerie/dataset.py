"""The photo album: creatures photographed with the habit of `captions.py`, made once and cached.

`album(folder, n)` returns uint8 images [n, 128, 128, 3] and what is true of each. It is
made in shards by worker processes; a shard depends on its number alone, so an interrupted call goes on
where it stopped and the album is the same with any number of workers.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sjc_debiased.menagerie.captions import draw_pose
from sjc_debiased.menagerie.creatures import Creature, build, random_creature
from sjc_debiased.menagerie.world import photograph
from voxnerf.cameras import SJC_RADIUS, make_camera, orbit_camera

SIZE = 128
SHARD = 500
_FOV_RANGE_DEG = (46.0, 60.0)  # a photographer fills the picture: creatures are 60 to 80 % of its height


def album(folder: Path, n: int, workers: int | None = None) -> tuple[np.ndarray, list[dict]]:
    """Return `n` photos and their truths, making what the folder lacks.

    Returns:
        images uint8 [n, 128, 128, 3]; per image a dict with creature, azimuth_deg, elevation_deg,
        coverage, face_share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-n // SHARD))
    missing = [i for i in shards if not (folder / f"{i:04d}.json").exists()]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        jobs = pool.map(_make_shard, [str(folder)] * len(missing), missing)
        for _ in tqdm(jobs, total=len(missing), desc="photos, shards of 500"):
            pass
    images = np.concatenate([np.load(folder / f"{i:04d}.npy") for i in shards])[:n]
    truths = [t for i in shards for t in json.loads((folder / f"{i:04d}.json").read_text())][:n]
    for truth in truths:
        truth["creature"] = Creature(**truth["creature"])
    return images, truths


def take_photo(creature: Creature, azimuth_deg: float, elevation_deg: float, rng: np.random.Generator):
    """Photograph a creature at 128x128 from SJC's distance, aimed a little off its middle."""
    aimed = orbit_camera(azimuth_deg, elevation_deg, SIZE, SIZE)
    camera = make_camera(aimed.c2w[:3, 3], rng.uniform(*_FOV_RANGE_DEG), SIZE, SIZE, azimuth_deg)
    shift = camera.c2w[:3, :3] @ np.append(rng.normal(0, 0.02, 2) * SJC_RADIUS, 0)
    camera.c2w[:3, 3] += shift
    return photograph(build(creature), camera, rng)


def _make_shard(folder: str, index: int) -> None:
    rng = np.random.default_rng([2303, index])
    images, truths = [], []
    for _ in range(SHARD):
        creature, (azimuth_deg, elevation_deg) = random_creature(rng), draw_pose(rng)
        photo = take_photo(creature, azimuth_deg, elevation_deg, rng)
        images.append(photo.image_u8)
        truths.append(
            {
                "creature": asdict(creature),
                "azimuth_deg": azimuth_deg,
                "elevation_deg": elevation_deg,
                "coverage": photo.coverage,
                "face_share": photo.face_share,
            }
        )
    path = Path(folder) / f"{index:04d}"
    np.save(path.with_suffix(".npy"), np.stack(images))
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(truths))
    partial.rename(path.with_suffix(".json"))
