"""The frameworks side by side: the table comes out of runs of tiny models, and says what did not run."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sjc_debiased import compare_frameworks, sweep
from sjc_debiased.compare_frameworks import CompareOptions, main, places_of, words_of
from sjc_debiased.evaluation import a_lpips, measure
from sjc_debiased.evaluation.comparison import COMPARED, split
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import RunError
from sjc_debiased.menagerie import EMBEDDED, WEIGHTS
from sjc_debiased.options import config
from sjc_debiased.sweep import parse
from tests.small_models import write_if

SHORT = ("--seeds", "0", "--n_steps", "4", "--resolution", "12", "--mesh.faces", "200", "--mesh.texture", "0")
LATENT = ("sds", "vsd", "dreamfusion-sd", "magic3d")
SOME = ("sds", "vsd", "magic3d")  # the fourth has Magic3D's scene


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Return a function that compares on a model, with a distance for LPIPS's; it returns code and places."""
    pytest.importorskip("matplotlib")
    suite = {"about": "a test", "prompts": [{"prompt": "a smiling cat", "face": True}]}
    (tmp_path / "one.json").write_text(json.dumps(suite))
    monkeypatch.setattr(measure, "a_lpips", lambda images, net, *_, **__: images.std().item())

    def call(model, *more):
        runs, out = tmp_path / "runs", tmp_path / "out"
        words = ("--suite", str(tmp_path / "one.json"), "--run_root", str(runs), "--out", str(out))
        device = ("--device", "cpu", "--precision", "float32")
        return main(["--model", str(model), *words, *device, *SHORT, *more]), runs, out

    return call


def profiled(model, folder, **profile):
    shutil.copytree(model, folder)
    (folder / "profile.json").write_text(json.dumps({"emptiness_weight": 1.0} | profile))
    return folder


def test_the_table_comes_out_of_runs(compared, eps_folder, bert_folder, tmp_path, capsys):
    """Bounds that all are beyond, or that none is: as the table says it, so say the runs' own logs."""
    bound = {"clip_start": 1e-6, "clip_end": 2e-6}
    model = profiled(eps_folder, tmp_path / "model", guidance=2.0, masked_lm=str(bert_folder), **bound)
    code, runs, out = compared(model, "--only", *SOME)
    assert code == 0
    said = capsys.readouterr()
    assert "NOT RUN: dreamfusion-if (DreamFusion on pixels (Fig. 10)) needs a pixel model" in said.err
    assert sorted(p.name for p in runs.iterdir()) == sorted(SOME)
    with (out / "frameworks.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 5 * len(SOME), "three presets, two differences"
    by_title = {f.title: f for f in COMPARED}
    for row in rows:
        framework = by_title[row["framework"]]
        assert (row["objects"], row["prompts"]) == ("1", "1")
        assert row["one face, in front"] == "–", "no judge knows this model"
        if row["preset"].endswith("paired"):
            continue
        (folder,) = (runs / framework.name).glob(f"*-{row['preset']}-a-smiling-cat-seed0")
        run = RunReader(folder)
        assert row["A-LPIPS VGG"].startswith(f"{run.metrics['a_lpips_vgg']:.4f}")
        assert row["clipped share"] == ("–" if row["preset"] == framework.presets[0] else "clipped 100.0 %")
        assert run.result.get("clipped_share") == (None if row["preset"] == framework.presets[0] else 1)
    form = {name: RunReader(next((runs / name).glob("0*"))).options["guidance_form"] for name in SOME}
    assert form == {"sds": "sds", "vsd": "vsd", "magic3d": "sds"}
    figures = {p.stem for p in (out / "figures").glob("*.jpg")}
    assert figures == {*SOME, "fig_15"}
    text = (out / "frameworks.md").read_text()
    assert "Finding" not in text
    assert "NOT RUN: dreamfusion-if" in text
    assert "Made by `python -m sjc_debiased.compare_frameworks --model model --suite one.json " in text


def test_pixels_and_a_bound_that_does_nothing(compared, bert_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_if(tmp_path / "if")
    model = profiled(
        tmp_path / "if", tmp_path / "model", masked_lm=str(bert_folder), clip_start=1e6, clip_end=2e6
    )
    code, runs, out = compared(model, "--only", "dreamfusion-if")
    assert code == 0
    assert [p.name for p in runs.iterdir()] == ["dreamfusion-if"]
    text = (out / "frameworks.md").read_text()
    assert "| clipped 0.0 %: the bound does nothing here |" in text
    finding = "the bound does nothing with dreamfusion-if: runs with it alone are the baseline's."
    assert f"**Finding: {finding}**" in text
    assert text.count("NOT RUN: ") == 3
    said = capsys.readouterr()
    assert "clipped 0.0 %: the bound does nothing here" in said.out + said.err
    baseline, *debiased = sorted((runs / "dreamfusion-if").glob("0*"))
    assert [RunReader(run).result["clipped_share"] for run in debiased] == [0, 0]
    assert "clipped_share" not in RunReader(baseline).result


def test_each_framework_runs_on_the_family_that_it_needs():
    on = {pixels: [f.name for f in split(pixels)[0]] for pixels in (False, True)}
    assert on == {False: [*LATENT], True: ["sds", "dreamfusion-if"]}
    assert all(said.startswith("NOT RUN: ") for said in split(True)[1])


def test_what_a_framework_is_told(tmp_path):
    """Its own options, and the person's behind them."""
    vsd = next(f for f in COMPARED if f.name == "vsd")
    o = parse(words_of(vsd, CompareOptions(limit=2), tmp_path, ["--n_steps", "7"]))
    assert (o.presets, o.limit, o.suite, o.run.basic.n_steps) == ("sjc,score-only,dsds", 2, "menagerie", 7)
    assert (o.run.sjc.guidance_form, o.run.sjc.vsd_model) == ("vsd", "copy")
    assert o.run.sjc.timesteps == ("20", "981")
    assert o.run.basic.run_root == tmp_path / "vsd"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--presets", "sjc"], "sets --presets"),
        (["--guidance-form=paas"], "Received --guidance-form=paas"),
        (["--only", "sjc"], "--only must be of sds, vsd"),
        (
            ["--only", "dreamfusion-if"],
            "NOT RUN: dreamfusion-if (DreamFusion on pixels (Fig. 10)) needs a pixel",
        ),
    ],
)
def test_what_would_make_another_table_is_refused(words, message, capsys, eps_folder, monkeypatch):
    monkeypatch.setattr(compare_frameworks, "words_of", None)
    assert main(["--model", str(eps_folder), "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_menagerie_is_the_menagerie_by_whatever_name(monkeypatch, tmp_path):
    """Its suite, and VSD with a copy, because it attends too little for a LoRA."""

    def plan(o, _):
        asked.append(o)
        return SimpleNamespace(all_refused=True, refused=[("x", "No.")])

    monkeypatch.setattr(sweep, "make_plan", plan)
    for name in ("menagerie", "auto", str(WEIGHTS)):
        asked = []
        assert main(["--model", name, "--device", "cpu", "--only", "vsd", "--run_root", str(tmp_path)]) == 2
        assert [(o.suite, o.run.sjc.vsd_model) for o in asked] == [("menagerie", "copy")]
    for name in ("menagerie-pixels", str(EMBEDDED["menagerie-pixels"])):
        asked, words = [], ["--device", "cpu", "--run_root", str(tmp_path)]
        assert main(["--model", name, *words, "--only", "dreamfusion-if"]) == 2
        assert [o.suite for o in asked] == ["menagerie"]


def never(*_, **__):
    raise AssertionError("too late")


def test_what_one_framework_refuses_is_said_before_another_is_made(eps_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "main", never)
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    words = ["--run_root", str(tmp_path), *"--only sds vsd --suite menagerie".split()]
    assert main(["--model", str(eps_folder), "--device", "cpu", *words]) == 2
    said = capsys.readouterr().err
    assert "vsd has none: --vsd_model lora needs the package peft" in said
    assert "Or choose others with --only" in said


def test_a_missing_backbone_is_said_before_a_framework_is_made(eps_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "main", never)
    monkeypatch.setattr(a_lpips, "load_lpips", Mock(side_effect=a_lpips.BackboneError("no VGG16 here")))
    words = ("--run_root", str(tmp_path), "--only", "sds", "--suite", "menagerie")
    assert main(["--model", str(eps_folder), "--device", "cpu", *words]) == 2
    assert "no VGG16 here" in capsys.readouterr().err


def test_a_framework_of_which_no_run_ended_does_not_take_the_table_away(
    eps_folder, tmp_path, monkeypatch, capsys
):
    written = Mock()
    monkeypatch.setattr(sweep, "main", lambda *_: 1)
    monkeypatch.setattr(a_lpips, "load_lpips", Mock())
    monkeypatch.setattr(compare_frameworks, "_write", written)

    def measured(root, *_, **__):
        if root.name == "sds":
            raise RunError("measure needs a folder with finished runs")

    monkeypatch.setattr(measure, "main", measured)
    words = ("--run_root", str(tmp_path), "--suite", "menagerie")
    given = ["--model", str(eps_folder), "--device", "cpu", *words]
    assert main([*given, "--only", "sds"]) == 2, "nothing to write"
    written.assert_not_called()
    assert main([*given, "--only", "sds", "magic3d"]) == 1
    assert "sds: measure needs a folder with finished runs" in capsys.readouterr().err
    ((_, _, not_run, _), _) = written.call_args
    assert [said for said in not_run if "NOT WHOLE: sds" in said]


def test_a_folder_of_a_model_names_no_place_outside_the_runs():
    root, out = places_of(CompareOptions(model="C:\\models\\sd15"))
    assert root == Path("runs/C-models-sd15-dsds70/frameworks")
    assert out == Path("results/C-models-sd15-dsds70/frameworks")


def test_other_numbers_of_steps_have_a_folder_of_their_own():
    usual, short = CompareOptions(), CompareOptions(n_steps=300)
    assert places_of(usual) == (
        Path("runs/menagerie-menagerie/frameworks"),
        Path("results/menagerie-menagerie/frameworks"),
    )
    assert places_of(short)[0] == Path("runs/menagerie-menagerie-300steps/frameworks")
    words = words_of(COMPARED[0], short, places_of(short)[0], [])
    assert words[words.index("--n_steps") + 1] == "300"
    assert "--n_steps" not in words_of(COMPARED[0], usual, places_of(usual)[0], [])
    assert words_of(COMPARED[0], CompareOptions(n_steps=0), Path("x"), []).count("--n_steps") == 1
