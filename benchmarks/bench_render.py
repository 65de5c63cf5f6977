"""Time of one rendering, forward and backward: plain, torch and fused, in one run.

    python benchmarks/bench_render.py [--out FILE.json] [--repeats 7]

"plain" is `tests/reference/plain_render.py`, in the style of the published code: its colors lie channel by
channel, ours voxel by voxel. "published" is the same with the published step's two backward passes, one for
the latent picture and one for the emptiness. Every path's values are compared with plain's before anything is
timed. A path is timed right after renderings of its own, as in a run, where a step follows a step.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import tyro

from benchmarks.common import describe, write_json
from tests.reference.plain_render import plain_render
from voxnerf.cameras import orbit_camera
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.render import render

SIZES = {"SJC": (64, GridConfig()), "menagerie": (32, GridConfig(resolution=48, half_size=0.6))}
SCENES = ("fog", "object")
PATHS = ("published", "plain", "torch", "numba")
REFERENCES = PATHS[:2]
VIEWS = [(30.0, 20.0), (200.0, 50.0)]
ROUNDS = 3  # of all views, timed together, after one that is not


def scene(name: str, config: GridConfig) -> VoxelGrid:
    """Return SJC's initial fog, or a converged object: an opaque ball that fills half of the box."""
    grid = VoxelGrid(config, torch.Generator().manual_seed(0))
    if name == "object":
        axis = (torch.arange(config.resolution) + 0.5) / config.resolution * 2 - 1
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        dist = (x**2 + y**2 + z**2).sqrt()
        with torch.no_grad():
            grid.density.copy_((40 * (0.5 - dist)).clamp(-12, 12)[None, None])
    return grid


def planar(grid: VoxelGrid) -> VoxelGrid:
    """Return a copy whose colors lie channel by channel, as in the published code."""
    copy = deepcopy(grid)
    copy.color = torch.nn.Parameter(grid.color.detach().contiguous())
    return copy


def one(path: str, grid: VoxelGrid, camera) -> tuple[float, float, list[torch.Tensor]]:
    """Return seconds forward, seconds backward, and latent, depth, emptiness and gradients."""
    grid.zero_grad(set_to_none=True)
    began = time.perf_counter()
    if path in REFERENCES:
        latent, depth, _, emptiness = plain_render(grid, camera)
    else:
        grid.kernel = path
        out = render(grid, camera)
        latent, depth, emptiness = out.latent, out.depth, out.emptiness
    rendered = time.perf_counter()
    losses = latent.square().sum(), 1e4 * emptiness
    if path == "published":
        losses[0].backward(retain_graph=True)
        losses[1].backward()
    else:
        sum(losses).backward()
    done = time.perf_counter()
    values = [latent.detach(), depth.detach(), emptiness.detach(), *(p.grad for p in grid.parameters())]
    return rendered - began, done - rendered, values


def extra_mib(path: str, grid: VoxelGrid, camera) -> float | None:
    """Return by how much one rendering and its backward pass raise the memory; None where Linux is not."""
    peak_reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not peak_reset.exists():
        return None

    def kib(field: str) -> int:
        return int(
            next(line for line in status.read_text().splitlines() if line.startswith(field)).split()[1]
        )

    one(path, grid, camera)  # what is kept for good is there already
    grid.zero_grad(set_to_none=True)
    ctypes.CDLL(None).malloc_trim(0)  # freed memory goes back, so that it counts again
    peak_reset.write_text("5")
    before = kib("VmRSS")
    one(path, grid, camera)
    return (kib("VmHWM") - before) / 1024


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Raise unless values agree to 1e-4 of the largest.

    One in 1,000 may differ by up to 1e-2: a sample whose weight is the color threshold to the last digit gets
    its color on one path and none on the other.
    """
    error = (ours - theirs).abs() / theirs.abs().max().clamp(min=1e-12)
    off = int((error > 1e-4).sum())
    if off > 1e-3 * error.numel() or error.max() > 1e-2:
        raise AssertionError(f"{off} of {error.numel()} values differ, by up to {error.max():.2g}")


def measure(size_name: str, scene_name: str, repeats: int) -> list[dict]:
    """Compare and time all paths on one scene, in turn, so that drift hits them alike."""
    size, config = SIZES[size_name]
    grid = scene(scene_name, config)
    grids = {path: planar(grid) if path in REFERENCES else grid for path in PATHS}
    cameras = [orbit_camera(a, e, size, size) for a, e in VIEWS]
    reference = [one("plain", grids["plain"], c)[2] for c in cameras]
    times: dict[str, list] = {path: [] for path in PATHS}
    for path in PATHS:
        for camera, expected in zip(cameras, reference):
            for ours, theirs in zip(one(path, grids[path], camera)[2], expected):
                compare(ours, theirs)
    for _ in range(repeats):
        for path in PATHS:
            rounds = [[one(path, grids[path], c)[:2] for c in cameras] for _ in range(1 + ROUNDS)]
            runs = [run for later in rounds[1:] for run in later]
            times[path].append([1e3 * statistics.mean(part) for part in zip(*runs)])
    memory = {path: extra_mib(path, grids[path], cameras[0]) for path in PATHS}
    rows = []
    for path in PATHS:
        forward, backward = (statistics.median(t) for t in zip(*times[path]))
        faster = {
            f"times_faster_than_{reference}": round(
                statistics.median(sum(r) / sum(t) for r, t in zip(times[reference], times[path])), 2
            )
            for reference in REFERENCES
        }
        rows.append(
            {
                "size": size_name,
                "scene": scene_name,
                "path": path,
                "forward_ms": round(forward, 1),
                "backward_ms": round(backward, 1),
                **faster,
                "extra_mib": memory[path] and round(memory[path]),
            }
        )
    return rows


def main(out: Path | None = None, repeats: int = 7) -> None:
    """Print the table; write it as JSON with the machine to `out`."""
    rows = [r for size in SIZES for name in SCENES for r in measure(size, name, repeats)]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row.values()) + " |")
    if out:
        write_json(out, {"machine": describe(), "rows": rows})


if __name__ == "__main__":
    tyro.cli(main)
