"""The doctor and the estimate: what is missing is said before any work; the time follows from the steps."""

import json
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import torch

from prompts.suites import load_suite
from sjc_debiased import doctor, needs, sweep
from sjc_debiased.doctor import DoctorOptions
from sjc_debiased.making import estimate
from sjc_debiased.making.estimate import FRAMES, TIMED_STEPS, WARMUP_STEPS, Cost, measure_cost, sample_run
from sjc_debiased.making.prepare import load_denoiser
from sjc_debiased.models.choose import choose_model
from sjc_debiased.models.machine import Machine
from sjc_debiased.optimize import optimize_step
from tests.options import sweep_options
from tests.small_models import write_bert

N_PROMPTS = len(load_suite("menagerie").prompts)

CPU = Machine("cpu", "float32", "")
COST = Cost(pack=2, step_s=3.0, preview_s=0.5, pictures_s=36.0, mesh_s=7.0)


@pytest.fixture(scope="module")
def whole(make_pipeline):
    """A tiny model with its language model and a profile."""
    folder = make_pipeline("epsilon")
    write_bert(folder / "mlm")
    profile = {"masked_lm": "mlm", "resolution": 10, "n_steps": 60, "emptiness_weight": 1.0}
    (folder / "profile.json").write_text(json.dumps(profile))
    return folder


@pytest.fixture
def report(whole, tmp_path, monkeypatch, capsys):
    """Return a function that runs the doctor in an empty folder, and returns exit code and rows."""
    monkeypatch.chdir(tmp_path)

    def call(**fields):
        code = doctor.main(DoctorOptions(**{"model": str(whole), "device": "cpu"} | fields))
        assert not list(tmp_path.iterdir()), "the doctor leaves no file"
        rows, text = {}, capsys.readouterr().out
        for line in text.splitlines():
            name, state, rest = line[:18].strip(), line[18:26].strip(), line[26:]
            if name and state in ("OK", "MISSING", "SLOW"):
                rows[name] = last = [state, rest]
            elif line.startswith(" "):
                last[1] += " " + rest
        return code, rows, text

    return call


def copy(folder, tmp_path_factory):
    return shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "model")


class Clocked:
    """A 2D model whose steps take 90 s, 90 s, then 1, 2, 3, ... s, and a picture 0.5 s."""

    def __init__(self, denoiser):
        self._denoiser, self.now, self.batches, self.pictures = denoiser, 0.0, [], 0

    def __getattr__(self, name):
        return getattr(self._denoiser, name)

    def clock(self):
        return self.now

    def denoise(self, noised, *rest):
        self.batches.append(len(noised))
        timed = len(self.batches) - WARMUP_STEPS
        self.now += timed if timed > 0 else 90.0
        return self._denoiser.denoise(noised, *rest)

    def decode(self, latent):
        self.now += 0.5 * len(latent)
        self.pictures += len(latent)
        return self._denoiser.decode(latent)


@pytest.mark.parametrize("pack", [1, 3])
def test_steps_are_those_of_the_loop_timed_after_warming_up(whole, pack, monkeypatch):
    choice = choose_model(str(whole), "cpu")
    model = Clocked(load_denoiser(CPU, choice, local_files_only=True))
    kernels = set()

    def step(scenes, *rest):
        kernels.update(s.field.kernel for s in scenes)
        return optimize_step(scenes, *rest)

    monkeypatch.setattr(estimate, "optimize_step", step)
    machine = replace(CPU, kernel="torch")
    cost = measure_cost(sample_run(choice.profile), machine, model, pack, 48, model.clock)
    assert kernels == {"torch"}
    assert model.batches == [pack] * (WARMUP_STEPS + TIMED_STEPS)
    assert (cost.pack, cost.step_s, cost.preview_s) == (pack, 3.0, 0.5)
    assert cost.pictures_s == 48 * 0.5
    assert cost.mesh_s == 16 * 0.5, "the twelve of the turntable are not taken again"
    assert model.pictures == 2 + 1 + FRAMES, "and its own are counted, not decoded"


def test_a_ball_has_a_mesh(whole):
    from sjc_debiased.making.fields import build_ball
    from voxnerf.snapshot import mesh_snapshots

    choice = choose_model(str(whole), "cpu")
    denoiser = load_denoiser(CPU, choice, local_files_only=True)
    ball = build_ball(sample_run(choice.profile), denoiser)
    mesh = ball.to_mesh(list(mesh_snapshots(ball, denoiser.decode, denoiser.size)))
    assert abs(mesh.vertices).max() == pytest.approx(0.6, abs=0.15)


def test_the_time_of_an_object_by_hand():
    assert COST.object_s(1000) == 1000 * 3 / 2 + 100 * 0.5 + 36 + 7
    assert COST.object_s(2000) - COST.object_s(1000) == 1500
    assert COST.object_s(10) == 15 + 10 * 0.5 + 43


def test_the_hours_of_a_sweep_by_hand(whole):
    profile = choose_model(str(whole), "cpu").profile
    runs = [sample_run(profile, n_steps) for n_steps in (1000, 2000, 10)]
    assert COST.hours(runs) == pytest.approx((1593 + 3093 + 63) / 3600)
    assert COST.of_sweep(runs) == "about 1.3 hours"
    assert COST.of_sweep(runs[2:]) == "about 0.018 hours"


def test_a_sampled_run_is_a_models_own_debiased_one(whole):
    profile = choose_model("menagerie", "cpu").profile
    run = sample_run(profile)
    assert (run.preset, run.field.resolution, run.n_steps) == ("dsds", profile.resolution, profile.n_steps)
    assert sample_run(profile, n_steps=7, seed=3).seed == 3


def test_a_whole_model_can_start(report, whole):
    code, rows, text = report(suite="menagerie", presets="sjc,dsds", seeds="0,1", pack=2)
    assert code == 0
    assert text.rstrip().endswith("A run can start.")
    for name in (
        *("packages", "device", "precision", "model", "weights", "language model", "video", "disk"),
        *("memory", "loading", "memory in use", "step"),
    ):
        assert rows[name][0] == "OK", name
    assert str(whole) in rows["weights"][1]
    assert "unet" in rows["weights"][1]
    assert "ms a step of 2 objects together" in rows["step"][1]
    assert "for 60 steps" in rows["one object"][1]
    assert f"{4 * N_PROMPTS} runs to do (at most {240 * N_PROMPTS:,} steps)" in rows["sweep menagerie"][1]
    assert "hours in one process" in rows["sweep menagerie"][1]


def test_the_menagerie_can_start(report):
    code, rows, _ = report(model="menagerie", n_steps=20)
    assert code == 0
    assert "for 20 steps" in rows["one object"][1]
    assert rows["kernel"][0] == "OK"


def test_missing_weights_are_said_and_nothing_is_timed(report, whole, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(
        "sjc_debiased.models.stable_diffusion.load_pipeline", lambda *_: pytest.fail("a model was loaded")
    )
    folder = copy(whole, tmp_path_factory)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    code, rows, text = report(model=str(folder))
    assert code == 1
    assert rows["weights"][0] == "MISSING"
    assert "lacks unet/diffusion_pytorch_model.safetensors" in rows["weights"][1]
    assert "one object" not in rows
    assert "A run cannot start" in text


def test_a_hub_name_outside_the_cache_is_missing_with_the_way_to_get_it(report):
    code, rows, _ = report(model="nobody/no-model")
    assert code == 1
    assert rows["weights"][0] == rows["language model"][0] == "MISSING"
    assert "hf download nobody/no-model" in rows["weights"][1]
    assert "hf download google-bert/bert-base-uncased" in rows["language model"][1]


def test_weights_that_do_not_fit_the_memory_are_missing(report, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**40, available=1000))
    code, rows, _ = report()
    assert code == 1
    assert rows["memory"][0] == "MISSING"
    assert "1.0 kB free" in rows["memory"][1] or "1 kB free" in rows["memory"][1]
    assert "step" not in rows


@pytest.mark.parametrize(("load", "states"), [(0.5, ["OK", "OK"]), (99.0, ["OK", "OK", "SLOW"])])
def test_others_at_work_on_the_machine_are_said(monkeypatch, load, states):
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert [line.state for line in needs.machine(CPU)] == states


def test_a_driver_that_pytorch_does_not_see_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert needs.machine(CPU)[0].state == "SLOW"


def test_a_missing_language_model_alone_leaves_the_time(report, whole, tmp_path_factory):
    folder = copy(whole, tmp_path_factory)
    (folder / "mlm" / "model.safetensors").unlink()
    code, rows, _ = report(model=str(folder))
    assert code == 1
    assert rows["language model"][0] == "MISSING"
    assert rows["step"][0] == "OK"


def test_what_only_measuring_needs_does_not_keep_a_run_from_starting(report, tmp_path_factory, monkeypatch):
    empty = str(tmp_path_factory.mktemp("empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", empty)
    monkeypatch.setenv("TORCH_HOME", empty)
    code, rows, _ = report()
    assert code == 0
    assert rows["LPIPS"][0] == "MISSING"
    assert empty in rows["LPIPS"][1]


def test_packages_that_are_old_or_absent_are_named(report, monkeypatch):
    listed = [("torch", "99.0"), ("no-such-package", "1.0"), ("numpy", "1.26")]
    monkeypatch.setattr(needs, "_requirements", lambda: listed)
    code, rows, _ = report()
    assert code == 1
    assert list(rows) == ["packages"]
    assert f"torch is {torch.__version__.split('+')[0]}" in rows["packages"][1]
    assert "no-such-package is not installed" in rows["packages"][1]
    assert "numpy" not in rows["packages"][1]


def test_every_requirement_is_looked_up():
    names = [name for name, _ in needs._requirements()]
    assert {"torch", "imageio-ffmpeg", "scikit-image", "tyro"} <= {*names}
    lines = (needs.Path(needs.__file__).parents[1] / "requirements.txt").read_text().split()
    assert len(names) == len(lines)


def test_versions_are_compared_as_numbers():
    assert needs._numbers("2.14.1+cpu") > needs._numbers("2.9")
    assert needs._numbers("3.20.3") == [3, 20, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_device_that_is_not_there_is_missing(report):
    code, rows, _ = report(device="cuda")
    assert code == 1
    assert rows["device"][0] == "MISSING"


def test_a_place_that_cannot_take_a_run_is_missing(report, monkeypatch):
    code, rows, _ = report(run_root=needs.Path("/proc/nowhere"))
    assert (code, rows["disk"][0]) == (1, "MISSING")


def test_options_that_are_wrong_are_refused_before_anything_is_loaded(report, monkeypatch):
    monkeypatch.setattr("sjc_debiased.making.prepare.load_denoiser", None)
    assert report(suite="nonsense")[0] == 2
    assert report(suite="menagerie", presets="sjc,dsdd")[0] == 2
    assert report(suite="menagerie", seeds="x")[0] == 2
    assert report(pack=0)[0] == 2
    assert report(model="nonsense")[0] == 2


def test_a_slow_object_says_what_is_faster(whole):
    profile = choose_model(str(whole), "cpu").profile
    line = doctor._object(COST, sample_run(profile, n_steps=3000), load_s=12.0)
    assert line.state == "SLOW"
    assert line.text.startswith("about 77 min for 3,000 steps")
    assert doctor._object(COST, sample_run(profile), load_s=12.0).state == "OK"
    assert [doctor.duration(s) for s in (75, 720, 12_240)] == ["75 s", "12 min", "3.4 hours"]


def test_a_plain_renderer_is_slow(report):
    code, rows, _ = report(kernel="torch")
    assert (code, rows["kernel"][0]) == (0, "SLOW")


def test_a_kernel_that_does_not_work_is_missing(report, monkeypatch):
    def refuse(grid, wanted):
        raise ValueError("the triton kernel cannot draw this field")

    monkeypatch.setattr("sjc_debiased.making.prepare.usable_kernel", refuse)
    code, rows, _ = report(kernel="triton")
    assert (code, rows["kernel"][0]) == (1, "MISSING")
    assert "--kernel triton: the triton kernel cannot" in rows["kernel"][1]
    assert "step" not in rows


def test_a_sweep_that_the_disk_does_not_hold_is_missing_and_a_run_can_start(report, monkeypatch):
    monkeypatch.setattr("sjc_debiased.doctor._sweep", partial(with_little_room, doctor._sweep, monkeypatch))
    code, rows, _ = report(suite="menagerie", presets="sjc", seeds="0")
    assert (code, rows["sweep menagerie"][0]) == (0, "MISSING")
    assert "of disk" in rows["sweep menagerie"][1]


def with_little_room(original, monkeypatch, *arguments):
    monkeypatch.setattr("sjc_debiased.folder.runs.needed_bytes", lambda runs: 10**18)
    return original(*arguments)


@pytest.fixture
def plan(whole, tmp_path, capsys):
    def call(**fields):
        o = sweep_options(
            **{"suite": "menagerie", "model": str(whole), "device": "cpu", "plan": True}
            | {"presets": "sjc", "seeds": "0", "run_root": tmp_path / "runs"}
            | fields
        )
        code = sweep.main(o, [])
        return code, capsys.readouterr().out.splitlines()

    return call


def test_a_plan_says_the_hours(plan, monkeypatch):
    asked = []
    monkeypatch.setattr(estimate, "measure_cost", lambda run, *rest: asked.append((run, rest[2])) or COST)
    code, lines = plan(pack=2, n_steps=1000)
    assert code == 0
    assert (
        lines[0] == f"{N_PROMPTS} runs to do (at most {N_PROMPTS},000 steps), 0 finished already, 0 refused"
    )
    assert f"about {N_PROMPTS * 1593 / 3600:.1f} hours in one process" in lines[-1]
    assert "cpu (" in lines[-1]
    assert "float32" in lines[-1] or "bfloat16" in lines[-1]
    ((run, pack),) = asked
    assert (run.n_steps, pack) == (1000, 2)


def test_a_prompt_that_is_too_long_is_why_there_are_no_hours(plan, monkeypatch):
    monkeypatch.setattr(estimate, "measure_cost", Mock(side_effect=ValueError("a prompt may have 77 tokens")))
    code, lines = plan(n_steps=1000)
    assert (code, lines[-1]) == (0, "no estimate of the time: a prompt may have 77 tokens")


def test_a_plan_of_fewer_objects_than_a_pack_times_that_many(plan, monkeypatch):
    packs = []
    monkeypatch.setattr(estimate, "measure_cost", lambda *arguments: packs.append(arguments[3]) or COST)
    plan(limit=1, pack=8)
    assert packs == [1]


def test_a_plan_without_weights_gives_no_number(plan, whole, tmp_path_factory):
    folder = copy(whole, tmp_path_factory)
    shutil.rmtree(folder / "unet")
    code, lines = plan(model=str(folder))
    assert code == 0
    assert lines[0].startswith(f"{N_PROMPTS} runs to do")
    assert lines[-1].startswith("no estimate of the time: ")
    assert not any("hours" in line for line in lines)
