"""The shell scripts before they begin: their help, the environment that they need; and those in Python."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest

from tests.page_runs import page_run

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def call(tmp_path):
    """Return a function that runs a script with a `python` that only notes how it was called.

    It refuses what is called with the word `refused`.
    """

    def run(name, *arguments, environment=True, refused="-"):
        calls = tmp_path / "calls"
        python = tmp_path / "bin" / "python"
        python.parent.mkdir(exist_ok=True)
        python.write_text(
            f'#!/bin/sh\necho "$@" >>"{calls}"\ncase " $* " in *" {refused} "*) exit 2 ;; esac\n'
            f"exit {0 if environment else 1}\n"
        )
        python.chmod(0o755)
        path = f"{python.parent}{os.pathsep}{os.defpath}"
        command = ["bash", str(SCRIPTS / name), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={"PATH": path}, cwd=tmp_path
        )
        return done, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("reproduce_tables.sh", ["--help"], "The paper's tables and figures from one command"),
        ("reproduce_tables.sh", ["--model", "sd15", "-h"], "  scripts/reproduce_tables.sh [--model"),
        ("run_fault_tests.sh", ["--help"], "The long reliability tests"),
        ("run_menagerie_pair.sh", ["--help"], "  scripts/run_menagerie_pair.sh OUT.png"),
    ],
)
def test_help_says_what_a_script_does_and_starts_nothing(call, name, arguments, says):
    done, calls = call(name, *arguments)
    assert (done.returncode, done.stderr, calls) == (0, "", [])
    assert says in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("name", "module"),
    [("run_prompts.sh", "sjc_debiased.sweep"), ("train_menagerie.sh", "sjc_debiased.menagerie.train")],
)
def test_help_of_a_script_that_is_one_command_is_that_commands(call, name, module):
    done, calls = call(name, "--help")
    assert done.returncode == 0
    assert calls[-1] == f"-m {module} --help"


@pytest.mark.parametrize("name", sorted(p.name for p in SCRIPTS.glob("*.sh") if p.name != "common.sh"))
def test_outside_the_environment_one_line_names_the_way_out(call, name):
    done, calls = call(name, "out.png", environment=False)
    assert done.returncode == 2
    assert len(calls) == 1  # the question whether the packages are there
    assert done.stderr.startswith(f"{name} needs the packages of requirements.txt. ")
    assert (
        "/bin/python lacks them. Activate the environment that has them (`. .venv/bin/activate`)"
        in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_frameworks_are_one_command_with_the_rest_of_the_options(call):
    done, calls = call("reproduce_tables.sh", "--model", "sd15", "--frameworks", "--limit", "2")
    assert done.returncode == 0
    assert calls[-1] == "-m sjc_debiased.compare_frameworks --model sd15 --limit 2"


def test_the_tables_have_each_debiasing_alone_on_every_prompt_and_fixed_bounds_on_twelve(call):
    done, calls = call("reproduce_tables.sh")
    assert done.returncode == 0, done.stderr
    sweeps = [c.partition("--presets ")[2] for c in calls if c.startswith("-m sjc_debiased.sweep")]
    assert sweeps == ["sjc,dsds,score-only,prompt-only,dsds-preserved", "static-low,static-high --limit 12"]


def test_the_tables_of_other_steps_or_another_model_have_a_folder_of_their_own(call):
    done, calls = call("reproduce_tables.sh", "--n-steps=300", "--model=sd15", "--pack", "2")
    assert done.returncode == 0, done.stderr
    sweeps = [c for c in calls if c.startswith("-m sjc_debiased.sweep")]
    begins = "-m sjc_debiased.sweep --model sd15 --suite dsds70 --run_root runs/sd15-dsds70-300steps --alike"
    assert [c.partition(" --presets")[0] for c in sweeps] == [f"{begins} --n_steps 300 --pack 2"] * 2
    assert (
        calls[-1]
        == "-m sjc_debiased.evaluation.results runs/sd15-dsds70-300steps results/sd15-dsds70-300steps"
    )


def test_labels_of_other_objects_do_not_cost_the_tables(call):
    results = SCRIPTS.parent / "results" / "menagerie-menagerie"
    folders = [f"results/{results.name}/{f.name}" for f in sorted(results.glob("labels*"))]
    assert len(folders) > 1
    tables = f"-m sjc_debiased.evaluation.results runs/{results.name} results/{results.name}"
    _, calls = call("reproduce_tables.sh")
    assert calls[-1] == f"{tables} --labels {' '.join(folders)}"
    done, calls = call("reproduce_tables.sh", refused=folders[0])
    assert calls[-1] == f"{tables} --labels {' '.join(folders[1:])}"
    assert (done.returncode, done.stderr) == (0, f"The tables are made without {folders[0]}.\n")
    done, calls = call("reproduce_tables.sh", refused="check")
    assert (done.returncode, calls[-1]) == (0, tables)


@pytest.mark.parametrize("word", ["--run_root", "--run-root=elsewhere", "--limit=2", "--presets"])
def test_what_the_tables_set_themselves_is_refused(call, word):
    done, calls = call("reproduce_tables.sh", word, "x")
    assert done.returncode == 2
    assert "reproduce_tables.sh runs whole tables. Received --" in done.stderr
    assert len(calls) == 1


def test_what_measures_is_asked_for_before_the_first_run(call):
    done, calls = call("reproduce_tables.sh", "--model", "sd15", refused="--check")
    assert done.returncode == 2
    assert calls[-1].startswith("-m sjc_debiased.evaluation.measure runs/sd15-dsds70 --skip success --clip ")
    assert not any("sweep" in words for words in calls)
    done, calls = call("reproduce_tables.sh", "--model", "auto")
    assert (done.returncode, "needs a model by its name" in done.stderr) == (2, True)


def test_both_embedded_models_have_their_suite_and_their_judge(call):
    done, calls = call("reproduce_tables.sh", "--model", "menagerie-pixels", refused="--check")
    assert calls[-1] == "-m sjc_debiased.evaluation.measure runs/menagerie-pixels-menagerie --check"


def test_an_option_without_its_value_is_refused(call):
    done, calls = call("reproduce_tables.sh", "--suite", "menagerie", "--model")
    assert done.returncode != 0
    assert "--model needs a value" in done.stderr
    assert len(calls) == 1


def test_coverage_is_held_against_the_truths(tmp_path):
    """A table of made-up objects: as large as the world's, a tenth too large, and half as large."""
    spec = importlib.util.spec_from_file_location("coverage_of_truth", SCRIPTS / "coverage_of_truth.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    truth = {prompt: script.true_coverage(prompt) for prompt in ("a smiling cat", "a frog wearing a hat")}
    assert all(0.1 < covered < 0.3 for covered in truth.values())
    assert truth["a frog wearing a hat"] > 1.1 * script.true_coverage("a frog"), "a hat covers something"
    table = tmp_path / "objects.csv"
    lines = [f"{p},sjc,{share * truth[p]}" for p in truth for share in (1, 1.1, 0.5)]
    table.write_text("\n".join(["prompt,preset,coverage", *lines]))
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "coverage_of_truth.py"), str(table)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("sjc: 67 % [")
    assert "of 6 objects are within a fifth" in done.stdout
    assert "all 0.50 to 1.10" in done.stdout


def test_rates_by_word(tmp_path):
    table = tmp_path / "objects.csv"
    lines = [
        *("prompt,preset,success", "a smiling cat,sjc,no", "a cat with big eyes,sjc,yes"),
        *("a cat,sjc,yes", "a dog,sjc,no", "a winking dog,dsds,yes", "a chair,sjc,"),
    ]
    table.write_text("\n".join(lines))
    command = [sys.executable, str(SCRIPTS / "rates_by_word.py"), str(table), str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "sjc: 2 of 4 with smiling, winking, big eyes; 2 of 4 with none of them",
        "dsds: 2 of 2 with smiling, winking, big eyes; 0 of 0 with none of them",
    ]


@pytest.fixture
def suite_sheet(tmp_path):
    """Return a function that makes a picture of four objects: a cat and a dog, each by two presets."""
    for i, (prompt, preset) in enumerate((p, m) for p in ("a cat", "a dog") for m in ("sjc", "dsds")):
        page_run(tmp_path / "runs", i, prompt, preset)

    def make(*options):
        script = [sys.executable, str(SCRIPTS / "suite_sheet.py")]
        places = [str(tmp_path / "sheet.png"), str(tmp_path / "runs")]
        done = subprocess.run([*script, *places, *options], capture_output=True, text=True, check=False)
        return done, tmp_path / "sheet.png"

    return make


def test_a_sheet_has_prompts_in_rows_and_presets_side_by_side(suite_sheet):
    done, picture = suite_sheet("--prompts", "a dog", "a cat", "--pixels", "16")
    assert done.returncode == 0, done.stderr
    sheet = iio.imread(picture)
    assert sheet.shape == (32, 256, 3)
    shades = [[int(sheet[8 + 16 * row, 64 + 128 * column, 0]) for column in (0, 1)] for row in (0, 1)]
    assert shades == [[6, 9], [0, 3]]  # the runs' own numbers
    done, _ = suite_sheet("--prompts", "a dog", "a cat", "--pixels", "16", "--below")
    assert iio.imread(picture).shape == (4 * 16 + 8, 128, 3)


def test_a_sheet_without_one_of_its_objects_is_refused(suite_sheet):
    done, picture = suite_sheet("--prompts", "a cat", "--seeds", "0", "1")
    assert done.returncode == 1
    assert 'none of "a cat" with sjc and seed 1' in done.stderr
    assert not picture.exists()


def test_a_sheet_is_of_prompts_or_of_a_suite(suite_sheet):
    for options in ([], ["--prompts", "a cat", "--suite", "menagerie"]):
        assert "--prompts or --suite" in suite_sheet(*options)[0].stderr
