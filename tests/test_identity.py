"""A run belongs to its method, not to its machine; and it can be given more steps."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sjc_debiased.folder.identity import RunIndex, extend_run, find_or_create_run, find_run, is_finished
from sjc_debiased.folder.runs import FINISHED, write_json
from sjc_debiased.making.prepare import keep_precision
from sjc_debiased.models.machine import Machine
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from tests.options import options
from tests.run_files import stats_of

MORE = ("--n_steps", "90", "--schedule_steps", "60")
DSDS = ("--preset", "dsds-preserved")


def of(**given):
    (run,) = resolve(options(prompt=("a cat",), **given), STABLE_DIFFUSION, "sd", "0")
    return run


def machine(precision="float32", asked=False):
    return Machine("cpu", precision, "", asked)


def begin(root, run, precision="float32"):
    return find_or_create_run(root, run, {"machine": {"precision": precision}}, precision)


def test_a_folder_of_an_older_version_is_found(tmp_path):
    run = of(debias=True)
    folder = begin(tmp_path, run)
    older = json.loads((folder / "options.json").read_text())
    older["resolved"] |= {"device": "cuda:1", "precision": "bfloat16"}
    for name in ("schedule_steps", "start", "color_scale", "color_mean", "background_mean", "lr_end"):
        del older["resolved"][name]
    del older["machine"]
    write_json(folder / "options.json", older)
    assert find_run(tmp_path, run) == folder
    assert find_run(tmp_path, run, "bfloat16") == folder
    assert find_run(tmp_path, run, "float32") is None
    assert find_run(tmp_path, replace(run, field=replace(run.field, start="blob"))) is None


def test_a_run_keeps_the_precision_it_began_with(tmp_path):
    half, single = begin(tmp_path, of(seed=0), "bfloat16"), begin(tmp_path, of(seed=1))
    assert keep_precision(machine(), []) == machine()
    assert keep_precision(machine(), [single]) == machine()
    kept = keep_precision(machine(), [half])
    assert (kept.precision, kept.why) == ("bfloat16", "the run was begun in it")
    assert keep_precision(machine(asked=True), [single]) == machine(asked=True)
    with pytest.raises(OptionError, match="--precision is float32. Leave it out"):
        keep_precision(machine(asked=True), [half])
    with pytest.raises(OptionError, match="begun in bfloat16 and float32"):
        keep_precision(machine(), [half, single])


def test_another_precision_asked_for_is_another_run(command):
    def run(*arguments):
        return [folder.name for folder in command("--n_steps", "2", *arguments)[1]]

    assert len(run("--precision", "bfloat16")) == 1
    assert len(run("--precision", "auto")) == 1  # finished, in bfloat16
    assert len(run("--precision", "float32")) == 2


def test_a_run_that_another_process_began_meanwhile_keeps_its_precision(
    command, copied_run, monkeypatch, capsys
):
    (copied_run / FINISHED).unlink()
    file = copied_run / "options.json"
    options = json.loads(file.read_text())
    options["machine"]["precision"] = "float16"
    file.write_text(json.dumps(options))
    monkeypatch.setattr("sjc_debiased.making.prepare.keep_precision", lambda machine, folders: machine)
    code, folders = command("--precision", "auto")
    assert (code, folders) == (1, [copied_run])
    assert "began" in (said := capsys.readouterr().err)
    assert "in float16; this one works in" in said


def test_a_run_does_not_go_on_with_other_view_prompts(command, copied_run, capsys):
    """As another version may make them of the same prompt, in a run that has the same options."""
    (copied_run / FINISHED).unlink()
    file = copied_run / "options.json"
    options = json.loads(file.read_text())
    sent = options["view_prompts"]["sent"]
    now, sent["back"] = sent["back"], "back view of something else"
    file.write_text(json.dumps(options))
    code, folders = command()
    assert (code, folders) == (1, [copied_run])
    said = capsys.readouterr()
    assert f"has 'back view of something else' for the back, and now it is {now!r}" in said.out + said.err
    assert not (copied_run / FINISHED).exists()


def test_more_steps_go_on_where_the_schedule_is_the_same(tmp_path):
    short = of(n_steps=60)
    folder = begin(tmp_path, short)
    (folder / FINISHED).write_text("{}")
    longer = of(n_steps=90, schedule_steps=60)
    assert RunIndex(tmp_path).find(longer) == folder
    assert is_finished(folder, short)
    assert not is_finished(folder, longer)
    assert RunIndex(tmp_path).find(of(n_steps=90)) is None
    assert RunIndex(tmp_path).other_schedules(of(n_steps=90)) == [(folder, 60)]
    assert RunIndex(tmp_path).find(of(n_steps=30, schedule_steps=60)) is None


def test_of_two_folders_the_one_that_is_further_goes_on(tmp_path):
    longer = of(n_steps=90, schedule_steps=60)
    folder = begin(tmp_path, of(n_steps=60))
    extend_run(folder, longer)
    (folder / FINISHED).write_text("{}")
    shorter = begin(tmp_path, of(n_steps=60))
    assert shorter != folder
    assert RunIndex(tmp_path).find(longer) == folder
    assert RunIndex(tmp_path).find(of(n_steps=60)) == shorter


def test_an_extended_run_equals_one_of_that_length(command, tmp_path, capsys):
    _, (folder,) = command(*DSDS)
    results = ("result.json", "turntable.mp4", "contact_sheet.png", "score_magnitude.png")
    before = {name: (folder / name).read_bytes() for name in results}
    first = stats_of(folder)
    assert command(*DSDS, *MORE)[1] == [folder]
    assert "resuming at step 60 of 90" in capsys.readouterr().out
    assert {name: (folder / "after_60_steps" / name).read_bytes() for name in results} == before
    assert json.loads((folder / FINISHED).read_text())["n_steps"] == 90
    options = json.loads((folder / "options.json").read_text())
    assert options["extended"] == [{"from": 60, "to": 90}]
    rows = stats_of(folder)
    assert rows[:60] == first
    assert {row["clip_value"] for row in rows[60:]} == {8.0}
    assert command(*DSDS, *MORE, "--run_root", str(tmp_path / "whole"))[0] == 0
    (whole,) = (tmp_path / "whole").glob("0*")
    assert stats_of(whole) == rows
    ours, theirs = (load_file(f / "checkpoints/step_000090.safetensors") for f in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_where_the_schedule_does_not_allow_more_steps_it_says_why(command, copied_run, capsys):
    code, folders = command("--n_steps", "90")
    assert code == 0
    assert len(folders) == 2
    out = capsys.readouterr().out
    assert f"a new run: {copied_run} has the same options" in out
    assert "--n_steps 90 --schedule_steps 60" in out
    assert not (copied_run / "after_60_steps").exists()


def test_extending_can_be_interrupted(tmp_path):
    """Between the moving of the results and the new options the folder is still the old run's, unfinished."""
    from sjc_debiased.folder.identity import extend_run

    run, longer = of(n_steps=60), of(n_steps=90, schedule_steps=60)
    folder = begin(tmp_path, run)
    for name in ("a.png", FINISHED):
        (folder / name).write_text("{}")
    (folder / "after_60_steps").mkdir()
    (folder / "a.png").rename(folder / "after_60_steps" / "a.png")  # killed here
    extend_run(folder, longer)
    assert {p.name for p in (folder / "after_60_steps").iterdir()} == {"a.png", FINISHED}
    assert find_run(tmp_path, longer) == folder
    assert find_run(tmp_path, run) is None
