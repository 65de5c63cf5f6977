"""What an object costs on this machine: a few steps of the real loop, timed, and what follows from them.

    object = n_steps * step / pack + previews * preview + pictures + mesh

Steps, a preview, frames of the turntable and a mesh are measured on a throw-away scene in memory; frames and
mesh are those of a ball, because a scene at its start has none, and the mesh's own views are counted, not
decoded. What grows with an object's details, such as its number of faces, is not in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prompts.debias import ViewPrompts, plain_prompts
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.making.fields import build_ball
from sjc_debiased.making.scene import build_scene
from sjc_debiased.making.session import PREVIEW_SHARE
from sjc_debiased.models.machine import Machine
from sjc_debiased.optimize import Scene, optimize_step
from sjc_debiased.options.command import Basic, Options
from sjc_debiased.options.config import Resolved, resolve
from sjc_debiased.options.profiles import Profile
from sjc_debiased.seeing import decoder_of, looking_size
from voxnerf.field import Field
from voxnerf.settings import TURNTABLE_FRAMES, Kernel
from voxnerf.snapshot import mesh_snapshots, take_snapshots, turn_cameras

if TYPE_CHECKING:
    from sjc_debiased.making.work import Work

WARMUP_STEPS, TIMED_STEPS = 2, 5
FRAMES = 4
Timed = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Cost:
    """Hold what was measured, in seconds.

    Attributes:
        pack: objects in one call of the 2D model.
        step_s: one step of a whole pack, the median of `TIMED_STEPS`.
        preview_s: one picture on the way. pictures_s, mesh_s: what an object leaves after its last step.
    """

    pack: int
    step_s: float
    preview_s: float
    pictures_s: float
    mesh_s: float

    def object_s(self, n_steps: int) -> float:
        """Return the time of one object among a pack, without loading the model."""
        n_previews = min(n_steps, round(1 / PREVIEW_SHARE))
        on_the_way = n_steps * self.step_s / self.pack + n_previews * self.preview_s
        return on_the_way + self.pictures_s + self.mesh_s

    def hours(self, runs: Sequence[Resolved]) -> float:
        """Return the time of all these runs, one pack after the other."""
        return sum(self.object_s(run.n_steps) for run in runs) / 3600

    def of_sweep(self, runs: Sequence[Resolved]) -> str:
        """Return the time of all these runs in words."""
        hours = self.hours(runs)
        return f"about {hours:.1f} hours" if hours >= 1 else f"about {hours:.2g} hours"

    def __str__(self) -> str:
        together = f" of {self.pack} objects together" if self.pack > 1 else ""
        return (
            f"{1e3 * self.step_s:.0f} ms a step{together}, {self.pictures_s:.0f} s of pictures and "
            f"{self.mesh_s:.0f} s of mesh for each object"
        )


def sample_run(profile: Profile, n_steps: int | None = None, seed: int = 0) -> Resolved:
    """Return a debiased run with a model's own settings, to be timed and thrown away."""
    basic = Basic(prompt=("a smiling cat",), debias=True, n_steps=n_steps, seed=seed)
    return resolve(Options(basic), profile, "throw-away", "")[0]


def throwaway_prompts(run: Resolved) -> ViewPrompts:
    """Return a run's view prompts with all words in them, which need no language model."""
    return plain_prompts(run.prompt, run.prompting.scheme)


def throwaway_scene(run: Resolved, denoiser: Denoiser, kernel: Kernel = "auto") -> Scene:
    """Return the scene of a run at its start, with `throwaway_prompts`; it has no folder."""
    return build_scene(run, throwaway_prompts(run), denoiser, kernel)[0]


def measure_cost(
    run: Resolved,
    machine: Machine,
    denoiser: Denoiser,
    pack: int = 1,
    frames: int = TURNTABLE_FRAMES,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Time a run's steps, pictures and mesh; leaves no file.

    Args:
        machine: its kernel renders (`prepare.try_kernel`). denoiser: on the machine's device.
        pack: scenes that take their steps together. frames: of a turntable.
        clock: returns seconds.
    """

    def timed(work: Callable[[], object]) -> float:
        wait_for(denoiser.device)
        began = clock()
        work()
        wait_for(denoiser.device)
        return clock() - began

    short = replace(run, settings=replace(run.settings, n_steps=WARMUP_STEPS + TIMED_STEPS))
    scenes = [throwaway_scene(replace(short, seed=seed), denoiser, machine.kernel) for seed in range(pack)]
    steps = [timed(lambda: optimize_step(scenes, denoiser)) for _ in range(short.n_steps)][WARMUP_STEPS:]
    decode = decoder_of(scenes[0].field, denoiser)
    size = looking_size(scenes[0].field, denoiser)
    cameras = turn_cameras(size)
    with torch.no_grad():
        latent = scenes[0].field.render(cameras[0]).latent
    timed(lambda: decode(latent))  # the first of a size prepares it
    preview_s = timed(lambda: decode(latent))
    ball = build_ball(run, denoiser, machine.kernel)
    for part in (cameras[:1], cameras[:FRAMES]):  # the first of a size prepares it
        views = take_snapshots(ball, decode, part, upscale=2)
        frame_s = timed(lambda views=views: list(views)) / len(part)
    mesh_s, n_previews = _time_mesh(ball, size, timed)
    pictures_s = frames * frame_s
    return Cost(pack, statistics.median(steps), preview_s, pictures_s, mesh_s + n_previews * preview_s)


def _time_mesh(field: Field, size: int, timed: Timed) -> tuple[float, float]:
    """Return the seconds that a mesh takes without decoding, and how many previews' pixels it decodes.

    Decoding Stable Diffusion's views on a CPU takes minutes, so they are counted, and get plain pictures.
    """
    n_previews, enlarged = 0.0, 1 if field.rgb else 8

    def count(latents: Tensor) -> Tensor:
        nonlocal n_previews
        n_previews += len(latents) * (latents.shape[-1] / size) ** 2
        return latents[:, :3].repeat_interleave(enlarged, -1).repeat_interleave(enlarged, -2)

    # A run has this turn from its turntable.
    turn = list(take_snapshots(field, count, turn_cameras(size), upscale=2))
    n_previews = 0.0
    return timed(lambda: field.to_mesh(list(mesh_snapshots(field, count, size, turn)))), n_previews


def time_of_sweep(work: Work) -> str:
    """Say how long a sweep takes, by steps that are timed now, or why that cannot be said.

    Nothing is downloaded for it: weights that are not there are the reason.
    """
    from sjc_debiased.making.prepare import load_denoiser, try_kernel
    from sjc_debiased.making.provenance import device_name

    runs, options = work.todo, work.options.machine
    try:
        prompts = throwaway_prompts(runs[0]).sent.values()
        denoiser = load_denoiser(
            work.machine, work.choice, local_files_only=True, compiled=options.compile, prompts=prompts
        )
        machine = try_kernel(work.machine, options.kernel, runs[0], denoiser)
        pack, frames = min(options.at_a_time, len(runs)), work.options.mesh.turntable
        cost = measure_cost(runs[0], machine, denoiser, pack, frames)
    except (ValueError, RuntimeError, MemoryError) as error:
        return f"no estimate of the time: {error}"
    where = f"{machine.device} ({device_name(machine.device)}) in {machine.precision}"
    return f"{cost.of_sweep(runs)} in one process, by steps timed on {where}: {cost}"


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
