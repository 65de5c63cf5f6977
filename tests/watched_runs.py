"""Small runs in their folders, for tests of what looks at them: a grid, and a closed form for a 2D model."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import load_file

from sjc_debiased.folder.checkpoints import newest_state
from sjc_debiased.folder.runs import OPTIONS, write_json
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.making.by_hand import repeat_changes
from sjc_debiased.making.pack import run_packed
from sjc_debiased.making.session import Session
from sjc_debiased.optimize import Scene, Settings, make_optimizer
from sjc_debiased.options.mesh_settings import DEFAULT_MESH
from sjc_debiased.options.profiles import Profile
from sjc_debiased.schedules import ClipSchedule
from tests.test_contracts import CHANNELS, SIZE, Gaussian
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid

N_STEPS = 20
VIEW_PROMPT = "front view a cat"


class Guided(Gaussian):
    """The same, its mean further away with more guidance."""

    def denoise(self, noised, sigma, cond, scale):
        return super().denoise(noised, sigma, cond, scale) * (1 + scale / 100).view(-1, 1, 1, 1)


class ShortSession(Session):
    """A session without its results, which take long and are nothing to the steps."""

    def finish(self, quiet=False):
        pass


def changeable_scene():
    """Return a scene of PAAS with a bound, at its start."""
    settings = Settings(N_STEPS, emptiness_weight=1.0, clip=ClipSchedule(1.0, 2.0))
    grid = VoxelGrid(GridConfig(resolution=8, channels=CHANNELS), torch.Generator().manual_seed(0))
    grid.kernel = "torch"
    cameras = sample_sjc_cameras(N_STEPS, SIZE, np.random.RandomState(0))
    told = [Guided().condition([VIEW_PROMPT])] * N_STEPS
    return Scene(grid, make_optimizer(grid, settings), cameras, told, PAAS(7.0), settings, seed=0)


@contextmanager
def opened(folder, prompt):
    folder.mkdir(exist_ok=True, parents=True)
    if not (folder / OPTIONS).exists():
        sent = {"front": f"front view {prompt}"}
        resolved = {"n_steps": N_STEPS, "prompt": prompt}
        write_json(folder / OPTIONS, {"resolved": resolved, "view_prompts": {"sent": sent}})
    scene, state = changeable_scene(), newest_state(folder)
    session = ShortSession(scene, ["front"] * N_STEPS, Profile(), Guided(), folder, state, DEFAULT_MESH)
    repeat_changes(scene, folder)
    try:
        yield session
    finally:
        session.close()


def make_run(folder, *watchers, prompt="a cat"):
    """Make a run, or go on with it, and return how it ended."""
    job = SimpleNamespace(n_steps=N_STEPS), opened(folder, prompt)
    (ended,) = run_packed([job], Guided(), pack=1, quiet=True, watchers=watchers)
    if ended.error:
        raise ended.error
    return ended


def same_bits(folder, other):
    """Return whether the last states of two runs are the same to the bit."""
    one, two = (load_file(f / "checkpoints" / f"step_{N_STEPS:06d}.safetensors") for f in (folder, other))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
