"""Show a run's mesh from four sides, below the same frames of its turntable.

python scripts/mesh_sides.py RUN OUT.png
"""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sjc_debiased.folder.reader import RunReader
from voxnerf.cameras import orbit_camera
from voxnerf.look import look, read_glb
from voxnerf.snapshot import TURN_ELEVATION_DEG

AZIMUTHS_DEG = (0, 45, 90, 180)


def four_sides(run: Path, name: str = "mesh") -> np.ndarray:
    """Return three rows: the turntable, the textured mesh, and its shape alone; uint8 [h, w, 3]."""
    frames = iio.imread(RunReader(run).turntable, plugin="FFMPEG")
    mesh = read_glb(run / f"{name}.glb")
    size = frames.shape[1]
    cameras = [orbit_camera(a, TURN_ELEVATION_DEG, size, size) for a in AZIMUTHS_DEG]
    rows = [
        [frames[round(a * len(frames) / 360)] for a in AZIMUTHS_DEG],
        [look(mesh, camera)[0] for camera in cameras],
        [look(mesh, camera, gray=True)[0] for camera in cameras],
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    iio.imwrite(sys.argv[2], four_sides(Path(sys.argv[1]), *sys.argv[3:]))
