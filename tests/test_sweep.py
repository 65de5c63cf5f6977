"""The sweep: a plan, one failing without the rest, and nothing left to do the second time."""

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from prompts.suites import SuiteError, load_suite, suite_names
from sjc_debiased import sweep
from sjc_debiased.evaluation.collect import collect
from sjc_debiased.evaluation.measure import VERSION
from sjc_debiased.folder.runs import FINISHED, METRICS, write_json
from sjc_debiased.making import session
from sjc_debiased.making.sweep_ray import _share
from sjc_debiased.making.work import plan_all
from sjc_debiased.models.choose import choose_model, identify
from sjc_debiased.options.command import OptionError
from sjc_debiased.sweep import SweepOptions, make_plan
from tests.faults.disks import NOT_ALLOWED
from tests.options import sweep_options
from tests.test_lora import write_lora

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def options(eps_folder, tmp_path):
    suite = tmp_path / "suite.json"
    prompts = [
        {"prompt": "a cat", "face": True},
        {"prompt": "a dog", "face": True, "settings": {"guidance": 2.0}},
    ]
    suite.write_text(json.dumps({"about": "two prompts", "prompts": prompts}))
    (eps_folder / "profile.json").write_text(json.dumps({"resolution": 10, "emptiness_weight": 1.0}))

    def make(**fields):
        return sweep_options(
            **{
                "suite": str(suite),
                "presets": "sjc,dsds-preserved",
                "seeds": "0,1",
                "model": str(eps_folder),
                "n_steps": 6,
                "device": "cpu",
                "precision": "float32",
                "run_root": tmp_path / "runs",
                "pack": 2,
            }
            | fields
        )

    yield make
    (eps_folder / "profile.json").unlink()


def test_a_sweep_does_everything_once(options, capsys):
    assert sweep.main(options(), ["--suite", "x"]) == 0
    folders = sorted((options().run.basic.run_root).glob("0*"))
    assert len(folders) == 8
    assert all((f / FINISHED).exists() for f in folders)
    capsys.readouterr()
    assert sweep.main(options(), []) == 0
    assert "0 runs to do (at most 0 steps), 8 finished already" in capsys.readouterr().out
    assert sorted((options().run.basic.run_root).glob("0*")) == folders


def test_a_suite_of_ones_own_says_which_objects_have_no_face(options, tmp_path):
    suite = tmp_path / "mine.json"
    prompts = [{"prompt": "a cat", "face": True}, {"prompt": "a chair ", "face": False}]
    suite.write_text(json.dumps({"prompts": prompts}), encoding="utf-8-sig")  # as Windows writes it
    assert sweep.main(options(suite=str(suite), presets="sjc", seeds="0"), []) == 0
    for folder in (options().run.basic.run_root).glob("0*"):
        write_json(folder / METRICS, {"version": VERSION, "parts": []})
    assert {r.prompt: r.face for r in collect(options().run.basic.run_root)} == {
        "a cat": True,
        "a chair": False,
    }


def test_one_that_fails_does_not_stop_the_rest(options, capsys, monkeypatch):
    original = session.Session.finish

    def finish(self, quiet):
        if "a-cat-seed1" in self.folder.name:
            raise OSError("no space left")
        original(self, quiet)

    monkeypatch.setattr(session.Session, "finish", finish)
    assert sweep.main(options(presets="sjc"), []) == 1
    out = capsys.readouterr().out
    assert "3 runs done, 0 finished before, 1 failed, 0 not started" in out
    assert "sjc: a cat, seed 1\n    no space left" in out
    monkeypatch.setattr(session.Session, "finish", original)
    assert sweep.main(options(presets="sjc"), []) == 0


def test_a_sweep_of_which_nothing_can_be_done_is_refused_as_a_whole(options, capsys):
    assert sweep.main(options(n_steps=0), []) == 2
    said = capsys.readouterr()
    assert "0 runs to do (at most 0 steps), 0 finished already, 4 refused" in said.out
    assert "sweep: every run was refused" in said.err


def test_shards_share_the_work(options):
    whole = make_plan(options(), []).work.todo
    parts = [make_plan(options(shard=f"{i}/3"), []).work.todo for i in (1, 2, 3)]
    assert sorted(map(str, whole)) == sorted(str(r) for part in parts for r in part)
    assert {len(part) for part in parts} <= {2, 3}


def test_a_prompt_that_the_model_does_not_know_is_refused_alone(options, eps_folder):
    profile = {"known_words": ["a", "cat"], "resolution": 10}
    (eps_folder / "profile.json").write_text(json.dumps(profile))
    plan = make_plan(options(), [])
    assert len(plan.work.todo) == 4
    assert [name for name, _ in plan.refused] == ["sjc: a dog", "dsds-preserved: a dog"]


def test_a_plan_says_why_what_is_refused_is_refused(options, eps_folder, tmp_path, capsys):
    """Refusals for one rule are counted together; the first of them is shown, with the way out."""
    (eps_folder / "profile.json").write_text(json.dumps({"known_words": ["a", "cat"]}))
    prompts = [{"prompt": f"a {animal}", "face": True} for animal in ("dog", "pig", "cat")]
    prompts[2]["settings"] = {"lr": -1.0}
    suite = tmp_path / "mine.json"
    suite.write_text(json.dumps({"prompts": prompts}))
    assert sweep.main(options(suite=str(suite), plan=True), []) == 0
    first, words, rate = capsys.readouterr().out.splitlines()
    assert first == "0 runs to do (at most 0 steps), 0 finished already, 6 refused"
    assert words.startswith("4 refused, the first of them 'sjc: a dog': a prompt for the ")
    assert words.endswith("It does not know dog. It knows: a, cat. Use these, or --model sd15 for any words.")
    assert rate.startswith(
        "2 refused, the first of them 'sjc: a cat': --lr must be finite and positive. It is"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"presets": "sjc,nonsense"}, "--presets must be of"),
        ({"shard": "4/3"}, "--shard must be i/n"),
        ({"shard": "x"}, "--shard must be i/n"),
        ({"model": "nonsense"}, "--model must be auto"),
        ({"prompt": ("a cat",)}, "but --prompt, --debias.* It was given --prompt. Name a suite"),
        ({"debias": True}, "It was given --debias. Name methods with --presets"),
        ({"preset": "dsds"}, "It was given --preset. Name methods with --presets"),
        ({"seed": 3}, "It was given --seed. Write --seeds"),
        ({"resume": Path("x")}, "It was given --resume. Leave it out"),
        ({"mesh_faces": 1}, "--mesh.faces must be between"),
        ({"alike": True}, "suite sets options for 'a dog' alone"),
        ({"limit": 0}, "--limit must be at least 1. It is 0"),
        ({"workers": 2}, "--workers must be 1 without --engine ray. It is 2"),
        ({"presets": "sjc,dsds", "keep": ("kat",)}, "No prompt has 'kat' as a word"),
        (
            {"presets": "sjc,score-only", "masked_lm": "x"},
            "--masked_lm belongs to prompt debiasing's removal",
        ),
    ],
)
def test_refusals(options, fields, message):
    with pytest.raises(OptionError, match=message):
        make_plan(options(**fields), [])


def test_runs_beside_others_that_were_made_otherwise_are_refused_before_they_are_made(options, tmp_path):
    """Tables would refuse them after hours."""
    suite = tmp_path / "alike.json"
    suite.write_text(json.dumps({"about": "x", "prompts": [{"prompt": "a cat", "face": True}]}))
    alike = partial(options, suite=str(suite), presets="sjc", seeds="0", alike=True)
    assert sweep.main(alike(), []) == 0
    assert make_plan(alike(seeds="0,1"), []).finished == 1
    with pytest.raises(OptionError, match=r"the sjc that is asked for differ in guidance \(.* and 7\.0\)"):
        make_plan(alike(guidance=7.0), [])
    assert make_plan(alike(guidance=7.0, run_root=tmp_path / "others"), []).finished == 0


def test_grids_that_do_not_fit_the_memory_are_refused(options, monkeypatch):
    monkeypatch.setattr("sjc_debiased.models.machine._BYTES_A_VOXEL", 2**40)
    with pytest.raises(OptionError, match="grids must fit the memory. 2 of --resolution 10 need"):
        make_plan(options(), [])


def test_workers_of_ray_have_a_gpu_of_their_own(options):
    """What a worker sees of two GPUs is one, cuda:0."""
    work = make_plan(options(), []).work
    two = SimpleNamespace(cluster_resources=lambda: {"CPU": 4, "GPU": 2})
    for device in ("cuda", "cuda:0"):
        on_gpu = replace(work, machine=replace(work.machine, device=device))
        assert _share(two, on_gpu, 2) == {"num_cpus": 2, "num_gpus": 1}
    with pytest.raises(OptionError, match="--device is cuda:1. Write --device cuda"):
        _share(two, replace(work, machine=replace(work.machine, device="cuda:1")), 1)


def test_a_sweep_takes_the_options_of_a_run(options, eps_folder, tmp_path):
    lora = tmp_path / "toon.safetensors"
    write_lora(lora)
    given = options(
        presets="dsds", lora=(f"{lora}:0.5",), pmi_normalized="probabilities", resolution=11, mesh=("obj",)
    )
    work = make_plan(given, []).work
    assert work.mesh.formats == ("obj",)
    assert {run.fingerprint for run in work.todo} == {
        identify(choose_model(str(eps_folder), "cpu", [f"{lora}:0.5"]))
    }
    for run in work.todo:
        assert run.prompting.pmi_normalized == "probabilities"
        assert run.field.resolution == 11
    command = sweep_command(options(), "--lora", "toon", "--pmi_normalized", "probabilities")[3:]
    parsed = tyro.cli(SweepOptions, args=command, use_underscores=True)
    assert parsed.run.basic.lora == ("toon",)
    assert parsed.run.method.pmi_normalized == "probabilities"


@pytest.mark.parametrize(
    ("given", "of_dog"), [({}, (2.0, False)), ({"guidance": 5.0, "var_red": True}, (5.0, True))]
)
def test_what_is_given_comes_before_what_the_suite_says(options, tmp_path, given, of_dog):
    settings = {"guidance": 2.0, "var_red": False}
    suite = tmp_path / "mine.json"
    suite.write_text(json.dumps({"prompts": [{"prompt": "a dog", "face": True, "settings": settings}]}))
    (run,) = make_plan(options(suite=str(suite), presets="sjc", seeds="0", **given), []).work.todo
    assert (run.guidance.scale, run.guidance.var_red) == of_dog


def test_presets_that_mean_the_same_run_make_it_once(options):
    todo = make_plan(options(presets="prompt-only,dsds", clip_kind="none"), []).work.todo
    assert len(todo) == len(set(todo)) == 4


def test_prompts_are_planned_once_and_before_a_model_is_loaded(options, monkeypatch):
    asked = []

    def plan_prompts(run, choice, local):
        asked.append((run.prompt, run.preset))
        if run.prompt == "a dog":
            raise OptionError("it is too long")
        return run.prompting

    monkeypatch.setattr("sjc_debiased.making.prepare.plan_prompts", plan_prompts)
    work, refused = plan_all(make_plan(options(), []).work)
    assert asked.count(("a cat", "sjc")) == asked.count(("a cat", "dsds-preserved")) == 1
    assert work.prompts == {run: run.prompting for run in work.todo}
    assert {run.prompt for run in work.todo} == {"a cat"}
    assert refused[0] == ("sjc: a dog, seed 0", "it is too long")
    assert len(refused) == 4


def test_models_out_of_reach_refuse_a_sweep(options, monkeypatch):
    def plan_prompts(run, choice, local):
        if run.preset == "sjc":
            return run.prompting
        raise OptionError("no weights") from FileNotFoundError()

    monkeypatch.setattr("sjc_debiased.making.prepare.plan_prompts", plan_prompts)
    with pytest.raises(OptionError, match="no weights"):
        plan_all(make_plan(options(), []).work)


@pytest.mark.parametrize("name", [name for name in suite_names() if "sealed" in name])
def test_the_sealed_prompts_are_those_that_were_sealed(name):
    """Their digest stands in docs/menagerie_3d.md since before the settings were tuned that they judge."""
    sealed = load_suite(name)
    digest = hashlib.sha256("\n".join(p.prompt for p in sealed.prompts).encode()).hexdigest()
    assert digest in (Path(__file__).parents[1] / "docs" / "menagerie_3d.md").read_text(encoding="utf-8")
    assert len(sealed.prompts) == 12
    assert not {p.prompt for p in sealed.prompts} & {p.prompt for p in load_suite("menagerie").prompts}


def test_the_suites_that_come_with_the_code():
    sealed = ["menagerie_sealed", "menagerie_sealed_2", "menagerie_sealed_3"]
    assert suite_names() == ["dsds70", "menagerie", *sealed, "sjc_readme"]
    assert len(load_suite("dsds70").prompts) == 70
    assert len(load_suite("menagerie").prompts) >= 16
    settings = {p.prompt: p.settings for p in load_suite("sjc_readme").prompts}
    assert settings["Obama figure"] == {"n_steps": 30000, "var_red": False}
    assert all(p.source for name in suite_names() for p in load_suite(name).prompts)


def test_the_menagerie_knows_every_word_of_its_suite():
    from sjc_debiased.models.choose import check_words

    for entry in load_suite("menagerie").prompts:
        check_words(entry.prompt, choose_model("menagerie", "cpu"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"prompts": []}',
        '{"prompts": [{"prompt": "a"}]}',
        '{"prompts": [{"prompt": 3, "face": true}]}',
        '{"prompts": [{"prompt": "a", "face": true, "nonsense": 1}]}',
        '{"prompts": [{"prompt": "a", "face": true}, {"prompt": "a", "face": true}]}',
        '{"prompts": [{"prompt": "a", "face": true, "settings": []}]}',
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path, text):
    path = tmp_path / "suite.json"
    path.write_text(text)
    with pytest.raises(SuiteError, match="a suite must be"):
        load_suite(str(path))


def test_a_sweep_that_must_not_ask_the_hub_does_not(options, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "identify", lambda choice, local: asked.append(local) or "0" * 64)
    for local in (True, False):
        make_plan(options(local_files_only=local), [])
    assert asked == [True, False]


def test_an_unknown_suite_is_refused():
    with pytest.raises(
        SuiteError,
        match="dsds70, menagerie, menagerie_sealed.*, sjc_readme, or a JSON file",
    ):
        load_suite("nonsense")


def sweep_command(options, *more):
    """Return the command line that means these options."""
    wanted = ("suite", "presets", "seeds", "model", "n_steps", "device", "precision", "run_root", "pack")
    given = vars(options) | vars(options.run.basic) | vars(options.run.machine)
    words = [word for name in wanted for word in (f"--{name}", str(given[name]))]
    return [sys.executable, "-m", "sjc_debiased.sweep", *words, *more]


def finished(root):
    return [f for f in root.glob("0*") if (f / FINISHED).exists()]


def test_a_killed_sweep_loses_no_finished_run(options):
    o = options(presets="sjc", pack=1)
    process = subprocess.Popen(
        sweep_command(o), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not finished(o.run.basic.run_root):
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = {f: (f / FINISHED).read_bytes() for f in finished(o.run.basic.run_root)}
    assert 1 <= len(kept) <= 4
    assert sweep.main(o, []) == 0
    assert len(finished(o.run.basic.run_root)) == 4
    assert all((f / FINISHED).read_bytes() == data for f, data in kept.items())


@pytest.mark.parametrize("engine", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_full_disk_loses_no_finished_run(options, engine, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
    disk = tmp_path / "disk"
    disk.mkdir()
    _, _, _, *words = sweep_command(options(presets="sjc", pack=1, run_root=disk / "runs"))
    script = [sys.executable, "tests/faults/full_disk_sweep.py", str(disk), *words, "--engine", engine]
    done = subprocess.run(script, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode == NOT_ALLOWED:
        pytest.skip("mounting a small disk is not allowed here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with room: exit code 0, 4 runs finished" in done.stdout


@pytest.mark.slow
def test_ray_does_the_same_and_replaces_a_killed_worker(options):
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    o = options(presets="sjc", pack=1)
    process = subprocess.Popen(
        sweep_command(o, "--engine", "ray", "--workers", "2"),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    killed = False
    while process.poll() is None and not killed:
        if finished(o.run.basic.run_root):
            workers = [
                p for p in psutil.Process(process.pid).children(recursive=True) if "_Worker" in p.name()
            ]
            if workers:
                workers[0].kill()
                killed = True
        time.sleep(0.02)
    out, _ = process.communicate(timeout=120)
    assert killed, "no worker was found to kill"
    assert process.returncode == 0, out
    assert len(finished(o.run.basic.run_root)) == 4
