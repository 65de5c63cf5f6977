"""Show objects of a folder of runs from eight sides, one preset beside or below the other.

python scripts/suite_sheet.py OUT.jpg runs/menagerie-menagerie --suite menagerie
python scripts/suite_sheet.py OUT.jpg runs/menagerie-menagerie --prompts "a cat" "a winking dog" --below
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from prompts.suites import load_suite
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import run_folders
from sjc_debiased.making.pictures import turn_of

_GAP = 8  # white pixels between groups that stand below each other


def main(
    out: tyro.conf.Positional[Path],
    run_root: tyro.conf.Positional[Path],
    prompts: tuple[str, ...] = (),
    suite: str = "",
    presets: tuple[str, ...] = ("sjc", "dsds"),
    seeds: tuple[int, ...] = (0,),
    pixels: int = 64,
    below: bool = False,
) -> None:
    """Write one picture of finished runs.

    Args:
        out: the picture, a .png or .jpg.
        run_root: parent of the run folders.
        prompts: which objects, in this order.
        suite: those of a suite instead, in its order.
        presets: from left to right.
        seeds: a row each.
        pixels: width and height of a view.
        below: presets from top to bottom.
    """
    if bool(prompts) == bool(suite):
        sys.exit("which objects is said by either --prompts or --suite. Name one: --suite menagerie.")
    wanted = prompts or [entry.prompt for entry in load_suite(suite).prompts]
    found = {_key(run): run for run in map(RunReader, run_folders(run_root)) if run.finished}
    rows = []
    for prompt in wanted:
        for seed in seeds:
            turns = [_turn(found, (prompt, preset, seed), run_root, pixels) for preset in presets]
            rows += [*turns, np.full((_GAP, 8 * pixels, 3), 255, np.uint8)] if below else [np.hstack(turns)]
    iio.imwrite(out, np.vstack(rows[:-1] if below else rows))


def _key(run: RunReader) -> tuple[str, str, int]:
    return run.options["prompt"], run.options["preset"], run.options["seed"]


def _turn(
    found: dict[tuple, RunReader], key: tuple[str, str, int], run_root: Path, pixels: int
) -> np.ndarray:
    """Return eight views of a run's object, uint8 [pixels, 8 pixels, 3]."""
    if key not in found:
        prompt, preset, seed = key
        sys.exit(
            f'every object needs a finished run. {run_root} has none of "{prompt}" with {preset} and seed '
            f"{seed}. Make it, or name other --prompts, --presets and --seeds."
        )
    turn = turn_of(iio.imread(found[key].contact_sheet))
    return np.asarray(Image.fromarray(turn).resize((8 * pixels, pixels), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    tyro.cli(main)
