"""Several runs in one call of the U-Net: each as it would be alone, and none hurt by another."""

import json
import os
import time

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import FINISHED
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.making import session
from sjc_debiased.optimize import Scene, Settings, make_optimizer, optimize_step
from sjc_debiased.schedules import ClipSchedule
from tests.small_models import load_pipeline
from tests.watched_runs import make_run
from voxnerf.cameras import sample_sjc_cameras
from voxnerf.grid import GridConfig, VoxelGrid

SHORT = ("--n_steps", "12")  # for runs whose steps are not looked at


def scene_of(denoiser, prompt, seed, guidance, n_noise):
    settings = Settings(
        n_steps=20,
        emptiness_weight=1.0,
        clip=ClipSchedule(0.5, 2.0),
    )
    grid = VoxelGrid(GridConfig(resolution=12), torch.Generator().manual_seed(seed))
    cameras = sample_sjc_cameras(20, 8, np.random.RandomState(seed))
    text = [denoiser.condition([prompt])] * 20
    paas = PAAS(guidance, n_noise)
    return Scene(grid, make_optimizer(grid, settings), cameras, text, paas, settings, seed)


def test_scenes_together_equal_scenes_alone(eps_folder):
    denoiser = StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cpu"), torch.float32)
    kinds = [("a cat", 0, 2.0, 1), ("back view a dog", 1, 5.0, 2), ("a panda", 7, 3.0, 1)]
    alone = [scene_of(denoiser, *kind) for kind in kinds]
    for scene in alone:
        for _ in range(20):
            optimize_step([scene], denoiser)
    together = [scene_of(denoiser, *kind) for kind in kinds]
    for _ in range(5):  # one of them is ahead of the others
        optimize_step(together[1:2], denoiser)
    for _ in range(20):
        active = [s for s in together if s.done < 20]
        optimize_step(active, denoiser)
    for one, other in zip(alone, together):
        assert one.done == other.done == 20
        for (name, a), b in zip(one.field.named_parameters(), other.field.parameters()):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, msg=name)


def test_one_command_makes_several_objects(command):
    code, folders = command("--seeds", "0,1", "--pack", "2", "--prompt", "a dog", *SHORT)
    assert code == 0
    assert [f.name for f in folders] == [
        "00000-sjc-a-smiling-cat-seed0",
        "00001-sjc-a-smiling-cat-seed1",
        "00002-sjc-a-dog-seed0",
        "00003-sjc-a-dog-seed1",
    ]
    assert all((f / FINISHED).exists() for f in folders)


def test_one_that_diverges_leaves_the_rest_running(command, monkeypatch, capsys):
    original = session.Session._check

    def check(self, pending):
        if "seed1" in self.folder.name and pending[0][0].step >= 20:
            raise session.DivergedError("this one diverged")
        return original(self, pending)

    monkeypatch.setattr(session.Session, "_check", check)
    code, folders = command("--seeds", "0,1,2", "--pack", "2", "--n_steps", "24")
    assert code == 1
    assert "this one diverged" in capsys.readouterr().err
    assert [(f / FINISHED).exists() for f in folders] == [True, False, True]


def test_a_finished_one_is_left_alone(command, capsys):
    command("--seed", "1", *SHORT)
    code, folders = command("--seeds", "0,1,2", "--pack", "3", *SHORT)
    assert code == 0
    assert "finished already" in capsys.readouterr().out
    assert len(folders) == 3
    seeds = [json.loads((f / "options.json").read_text())["resolved"]["seed"] for f in folders]
    assert sorted(seeds) == [0, 1, 2]


@pytest.mark.parametrize("error", [OSError("no room"), ValueError("a bug")])
def test_whatever_a_run_fails_with_is_said(command, monkeypatch, capsys, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(session, "save_contact_sheet", fail)
    code, (folder,) = command(*SHORT)
    assert code == 1
    assert str(error) in capsys.readouterr().err
    assert not (folder / FINISHED).exists()


def test_a_full_disk_ends_one_run_and_not_the_rest(command, monkeypatch, capsys):
    class Full:
        def writelines(self, lines):
            raise OSError("no space left")

        close = flush = fileno = lambda self: (_ for _ in ()).throw(OSError("no space left"))

    original = session.StatsLog.__init__

    def init(self, folder, first_step):
        original(self, folder, first_step)
        if "seed1" in folder.name:
            self._file = Full()

    monkeypatch.setattr(session.StatsLog, "__init__", init)
    code, folders = command("--seeds", "0,1", "--pack", "2", *SHORT)
    assert code == 1
    assert "could not (no space left)" in capsys.readouterr().err
    assert [(f / FINISHED).exists() for f in folders] == [True, False]


def test_a_step_that_fails_for_all_is_tried_alone(command, monkeypatch, capsys):
    original = StableDiffusion.denoise

    def denoise(self, noised, *rest):
        if len(noised) > 1:
            raise torch.OutOfMemoryError("too many at a time")
        return original(self, noised, *rest)

    monkeypatch.setattr(StableDiffusion, "denoise", denoise)
    code, folders = command("--seeds", "0,1", "--pack", "2", "--n_steps", "20")
    assert code == 0
    assert all((f / FINISHED).exists() for f in folders)


def test_a_unet_that_overflows_is_named(command, monkeypatch, capsys):
    original = StableDiffusion._network

    def network(self, scaled, timestep, text):
        return original(self, scaled, timestep, text) * torch.where(timestep > 500, torch.inf, 1.0)[:1]

    monkeypatch.setattr(StableDiffusion, "_network", network)
    code, (folder,) = command("--precision", "float16")
    assert code == 1
    assert "the U-Net must stay within float16's range" in capsys.readouterr().err
    assert not (folder / FINISHED).exists()


def test_a_run_that_waits_shows_that_it_is_not_stopped(tmp_path):
    """As one that is paused in the viewer for an hour."""
    signs = []

    class Pause:
        def between_steps(self, session, step):
            for path in (p for p in session.folder.iterdir() if not signs):
                os.utime(path, (0, 0))
            signs.append(RunReader(session.folder).last_sign)
            return "wait" if len(signs) < 2 else "go on"

        def close(self):
            pass

    make_run(tmp_path / "run", Pause())
    assert signs[0] == 0
    assert time.time() - signs[1] < 60
