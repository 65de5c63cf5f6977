"""The ladder: at which rung, from the truth down to an object from nothing, does a model or a setting fail?

    python -m sjc_debiased.menagerie.ladder --prompt "a smiling panda" --debias [--rungs keep scratch]

Each rung starts the loop from less, and what fails on one need not be tried on the next:

- `fit`: no loop. The field fitted to the true creature's photos. Fails: renderer, grid, or autoencoder.
- `keep`: the loop from there. Fails: the 2D model does not want what is true.
- `erased`: from the creature without its face. Fails: nothing pulls a face in from the front.
- `blurred`: from the truth averaged over cubes of 9 voxels. Fails: coarse shape does not lead to fine.
- `scratch`: from the model's own start, the whole run. Fails: nothing leads to the coarse shape.

All options of `run_sjc.py` that make an object hold, so that a setting is tried here before it is tried on
objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm, trange
from tyro.conf import OmitArgPrefixes

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.evaluation.orbit import face_pictures
from sjc_debiased.evaluation.success import FaceCount, count_faces
from sjc_debiased.making.pictures import contact_sheet, write_png
from sjc_debiased.menagerie.judge import Judge
from sjc_debiased.menagerie.truth import FIT_STEPS, Truths, blur, creature_of
from sjc_debiased.optimize import Scene, optimize_step
from sjc_debiased.options.command import OptionError, Options
from sjc_debiased.options.config import Resolved, resolve
from sjc_debiased.options.rules import check_others, require
from sjc_debiased.proposals import sheet
from voxnerf.grid import VoxelGrid
from voxnerf.snapshot import take_snapshots, turn_cameras

Rung = Literal["fit", "keep", "erased", "blurred", "scratch"]
RUNGS: tuple[Rung, ...] = ("fit", "keep", "erased", "blurred", "scratch")
_OTHERS = {
    "run_root": "Write --out.",
    **dict.fromkeys(("best_of", "dry_run", "resume", "mesh", "mesh_level", "mesh_faces"), "Leave it out."),
    **dict.fromkeys(("mesh_texture", "turntable", "pack"), "Leave it out."),
    **dict.fromkeys(("viewer", "viewer_host", "tensorboard"), "Leave it out."),
}
"""The options of a run that make no other object here."""
_BLUR_VOXELS = 9
_N_FACES = 36
_N_SHOWN = 8


@dataclass(frozen=True)
class LadderOptions:
    """Climb down the ladder with the options of a run, and say where it fails."""

    run: OmitArgPrefixes[Options]
    rungs: tuple[Rung, ...] = RUNGS
    """Which rungs, in the ladder's order."""
    fit_steps: int = FIT_STEPS
    """Steps of the regression that fits a field to the truth."""
    mend_steps: int = 300
    """Steps of the loop on keep, erased and blurred; scratch takes all of its run's."""
    proposals: bool = False
    """Also show what the 2D model wants of every field before the loop (timesteps by guidance)."""
    out: Path = Path("runs/ladder")
    """Folder for the pictures and `ladder.json`; a new one is made beside it if it exists."""


@dataclass(frozen=True)
class Found:
    """What became of one object on one rung; `coverage` is the share of opaque pixels over a turn."""

    prompt: str
    rung: Rung
    faces: FaceCount
    coverage: float
    a_lpips: float | None

    def __str__(self) -> str:
        """Return the line that is printed."""
        f = self.faces
        word = "one face, in front" if f.success else f"{f.arcs} faces"
        seen = f"front {f.in_front!s:5} back {f.at_back!s:5} share {f.share:.2f}"
        perceptual = "A-LPIPS not measured" if self.a_lpips is None else f"A-LPIPS {self.a_lpips:.4f}"
        return f"{self.rung:8} {self.prompt:40} {word:20} {seen}  coverage {self.coverage:.2f}  {perceptual}"


def climb(o: LadderOptions) -> Iterator[Found]:
    """Yield what became of every prompt on every rung; leave pictures and a table in a new folder."""
    from sjc_debiased.folder.runs import write_json
    from sjc_debiased.making.prepare import load_denoiser, plan_prompts, try_kernel
    from sjc_debiased.making.scene import build_scene
    from sjc_debiased.models.choose import choose_model, identify
    from sjc_debiased.models.machine import choose_machine

    machine = choose_machine(o.run.machine.device, o.run.machine.precision)
    check_others(o.run, _OTHERS, "the ladder")
    choice = choose_model(o.run.basic.model, machine.device, o.run.basic.lora)
    runs = resolve(o.run, choice.profile, choice.name, identify(choice, True))
    _check(o, runs[0])
    creatures = [creature_of(run.prompt) for run in runs]
    prompts = [plan_prompts(run, choice, local_files_only=True) for run in runs]
    denoiser = load_denoiser(machine, choice, local_files_only=True, compiled=o.run.machine.compile)
    kernel = try_kernel(machine, o.run.machine.kernel, runs[0], denoiser).kernel
    judge, folder, all_found = Judge(), new_folder(o.out), []
    truths = Truths(denoiser, o.fit_steps)
    rungs: list[Rung] = [rung for rung in RUNGS if rung in o.rungs]
    for rung in rungs:
        scenes = [build_scene(run, p, denoiser, kernel)[0] for run, p in zip(runs, prompts)]
        grids = [scene.field for scene in scenes if isinstance(scene.field, VoxelGrid)]  # all are
        for i, (grid, creature) in enumerate(zip(grids, creatures)):
            if rung != "scratch":
                truths.show(grid, replace(creature, faceless=rung == "erased"))
            if rung == "blurred":
                blur(grid, _BLUR_VOXELS)
            if o.proposals:
                write_png(folder / f"proposals_{rung}_{i}.png", sheet(grid, denoiser, prompts[i].sent))
        n_steps = {"fit": 0, "scratch": runs[0].n_steps}.get(rung, o.mend_steps)
        optimize_all(scenes, denoiser, n_steps, rung)
        rows = []
        for run, grid in zip(runs, grids):
            found, row = judged(run.prompt, rung, grid, denoiser, judge)
            rows.append(row)
            all_found.append(found)
            yield found
        write_png(folder / f"{rung}.png", np.concatenate(rows))
        write_json(folder / "ladder.json", {"found": [asdict(found) for found in all_found]})


def _check(o: LadderOptions, run: Resolved) -> None:
    """Refuse what no rung can do, before anything is loaded.

    Raises:
        OptionError: says what.
    """
    mended = set(o.rungs) & {"keep", "erased", "blurred"}
    require(
        not mended or 0 <= o.mend_steps <= run.n_steps,
        "--mend_steps",
        f"0 to --n_steps, {run.n_steps}",
        o.mend_steps,
    )
    require(o.fit_steps >= 1, "--fit_steps", "at least 1", o.fit_steps)
    if run.viewing.light:
        raise OptionError(
            "the ladder compares a scene of the 2D model's own pictures with the truth. --preset "
            f"{run.preset} is of RGB that is lit. Choose another."
        )


def optimize_all(scenes: list[Scene], denoiser: Denoiser, n_steps: int, rung: Rung) -> None:
    """Do the loop's steps on all scenes, with one call of the 2D model for all of them."""
    for _ in trange(n_steps, desc=rung, leave=False):
        optimize_step(scenes, denoiser)


def judged(
    prompt: str, rung: Rung, grid: VoxelGrid, denoiser: Denoiser, judge: Judge
) -> tuple[Found, np.ndarray]:
    """Return the verdict on a field, and its contact sheet."""
    images = face_pictures(grid, denoiser, _N_FACES)
    turn = list(take_snapshots(grid, denoiser.decode, turn_cameras(denoiser.size, _N_SHOWN)))
    coverage = float(np.mean([view.opacity_of_rays > 0.5 for view in turn]))
    faces = count_faces(judge(images).face.numpy())
    return Found(prompt, rung, faces, coverage, _a_lpips(images)), contact_sheet(turn)


def _a_lpips(images: torch.Tensor) -> float | None:
    """Return A-LPIPS with AlexNet, or None where its backbone is not there."""
    from sjc_debiased.evaluation.a_lpips import a_lpips, find_backbone

    return a_lpips(images, "alex") if find_backbone("alex") else None


def new_folder(wanted: Path) -> Path:
    """Make a folder of this name, or of the next free one: `ladder`, `ladder-2`, ..."""
    for i in range(1, 10_000):
        folder = wanted if i == 1 else wanted.with_name(f"{wanted.name}-{i}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{wanted} and 9,998 more of its names are taken. Choose another --out.")


def main(o: LadderOptions) -> int:
    """Print a line for each rung and prompt; return 0, or 2 where an option is wrong."""
    try:
        for found in climb(o):
            tqdm.write(str(found))
    except ValueError as error:
        print(f"ladder: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    chosen = tyro.cli(
        LadderOptions,
        prog="python -m sjc_debiased.menagerie.ladder",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    sys.exit(main(chosen))
