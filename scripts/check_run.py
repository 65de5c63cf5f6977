"""Check that a folder of runs holds one whole, finished run whose mesh is its object, and say what it took.

python scripts/check_run.py RUN_ROOT
"""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import MESH
from sjc_debiased.making.made import load_scene
from sjc_debiased.seeing import looking_size
from voxnerf.grid import VoxelGrid
from voxnerf.look import SavedMesh, look, read_glb
from voxnerf.mesh import silhouette_overlap
from voxnerf.render import render_antialiased
from voxnerf.snapshot import turn_cameras

LEAST_IOU = 0.7  # 0.94 for a clean object, 0.37 for one in fog
MOST_COLOR_ERROR = 25  # of 255, mean over the object: 7 for a clean object
MOST_OPEN = 0.005  # of the edges


def check(root: Path) -> None:
    """Raise unless the newest run under `root` is finished and what it left is what it should be."""
    folder = max(root.glob("0*"))
    run = RunReader(folder)
    result, n_steps = run.result, run.options["n_steps"]
    assert [row["step"] for row in run.stats()] == list(range(n_steps)), "a line per step"
    frames = iio.imread(run.turntable, plugin="FFMPEG")
    assert len(frames) % 24 == 0 < len(frames), "a whole turn"
    assert frames.std() > 5, "that shows something"
    assert "error" not in result["mesh"], result["mesh"].get("error")
    _, grid, denoiser = load_scene(folder)
    mesh = read_glb(folder / f"{MESH}.glb")
    assert len(mesh.faces) == result["mesh"]["faces"], "the mesh that result.json tells of"
    iou, error = check_mesh(mesh, grid, looking_size(grid, denoiser), frames)
    seconds = result["optimization_time_s"] + result["rendering_time_s"]
    print(
        f"{folder.name}: {n_steps} steps in {seconds:.0f} s; a mesh of {len(mesh.faces)} faces whose "
        f"silhouettes overlap the pictures' by {iou:.2f} (IoU) and whose colors are {error:.0f} of 255 off"
    )


def check_mesh(mesh: SavedMesh, grid: VoxelGrid, size: int, frames: np.ndarray) -> tuple[float, float]:
    """Raise unless a mesh is the object of a field; return its IoU and its error of color.

    Args:
        size: pixels of the cameras that looked at it (`looking_size`).
        frames: the turntable, uint8 [n, h, w, 3].
    """
    check_shape(mesh, grid)
    assert mesh.material["metallicFactor"] == 0, "no metal"
    assert mesh.material["roughnessFactor"] == 1, "matte"
    assert mesh.texture_u8.std(axis=(0, 1)).max() > 5, "a texture that shows something"

    cameras = turn_cameras(size)
    opacities = [
        render_antialiased(grid, camera, subpixels=2, upscale=2).opacity.numpy() for camera in cameras
    ]
    iou = silhouette_overlap(mesh.vertices, mesh.faces, zip(cameras, opacities))
    assert iou > LEAST_IOU, f"silhouettes agree with the rendered opacities: IoU {iou:.2f}"

    errors = []
    for i, (camera, opacity) in enumerate(zip(cameras, opacities)):
        frame = frames[i * len(frames) // len(cameras)]
        image, there = look(mesh, camera.resized(len(frame) // size))
        factor = len(frame) // len(opacity)
        there &= opacity.repeat(factor, 0).repeat(factor, 1) > 0.9
        errors.append(np.abs(image[there].astype(float) - frame[there]).mean())
    error = float(np.mean(errors))
    assert error < MOST_COLOR_ERROR, f"its colors are the turntable's: {error:.0f} of 255 off"
    return iou, error


def check_shape(mesh: SavedMesh, grid: VoxelGrid) -> None:
    """Raise unless a mesh is one closed piece that stands free of the walls of its grid."""
    import trimesh
    from trimesh.graph import connected_components

    whole = trimesh.Trimesh(
        mesh.vertices, mesh.faces, process=True
    )  # merges what the seams of a texture part
    assert len(whole.faces) > 500, "the mesh has a body"
    pieces = connected_components(whole.edges_unique, min_len=1)
    assert len(pieces) == 1, f"one piece, not {len(pieces)}"
    n_faces_at = np.bincount(whole.edges_unique_inverse)
    is_open = (n_faces_at != 2).mean()
    assert is_open <= MOST_OPEN, f"closed: {is_open:.1%} of its edges are not between two faces"
    half, edge = grid.config.half_size, 2 * grid.config.half_size / grid.config.resolution
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    room = np.concatenate([low + half, half - high]) / edge  # voxels between it and each wall
    assert (room > 0.5).all(), f"it touches the walls of the grid: {room.round(1)} voxels are between"
    assert (room > 1.5).any(), f"it fills the grid: {room.round(1)} voxels are between it and the walls"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    check(Path(sys.argv[1]))
