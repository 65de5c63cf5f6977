"""Check that a folder of runs holds one whole, finished run, and say what it took."""

import json
import sys
from pathlib import Path

import imageio.v3 as iio
import trimesh


def check(root: Path) -> None:
    """Raise unless the newest run under `root` is finished and what it left can be read."""
    folder = max(root.glob("0*"))
    result = json.loads((folder / "result.json").read_text())
    options = json.loads((folder / "options.json").read_text())
    n_steps = options["resolved"]["n_steps"]
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(n_steps)), "a line per step"
    mesh = trimesh.load(folder / "mesh.glb", force="mesh")
    assert len(mesh.faces) > 500, "the mesh has a body"
    assert mesh.visual.vertex_colors[:, :3].std() > 5, "and colors"
    frames = iio.imread(folder / "turntable.mp4", plugin="FFMPEG")
    assert len(frames) == 72, "a whole turn"
    assert frames.std() > 5, "that shows something"
    seconds = result["optimization_time_s"] + result["rendering_time_s"]
    print(f"{folder.name}: {n_steps} steps in {seconds:.0f} s, {len(mesh.faces)} faces")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
