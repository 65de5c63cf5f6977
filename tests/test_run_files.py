"""The only reader of run folders: of older versions, at work, and damaged."""

import json
from dataclasses import replace

import pytest
import torch

from sjc_debiased.folder.checkpoints import save_checkpoint
from sjc_debiased.folder.identity import extend_run, find_run
from sjc_debiased.folder.log import StatsLog
from sjc_debiased.folder.reader import RunReader, as_json, write_options
from sjc_debiased.folder.runs import FINISHED, METRICS, OPTIONS, STATS, RunError, preview_path
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from tests.options import options

OLD = {
    "prompt": "a cat",
    "preset": "dsds",
    "model": "sd15",
    "fingerprint": "0",
    "masked_lm": "google-bert/bert-base-uncased",
    "keep": [],
    "views": "dsds",
    "front_half_deg": 22.5,
    "clip_start": 2.0,
    "clip_end": 8.0,
    "seed": 0,
    "n_steps": 10000,
    "guidance": 100.0,
    "var_red": True,
    "n_noise": 1,
    "lr": 0.05,
    "background_lr": 0.0001,
    "emptiness_weight": 10000.0,
    "emptiness_scale": 10.0,
    "emptiness_step": 0.5,
    "emptiness_multiplier": 20.0,
    "depth_weight": 0.0,
    "depth_loss": "published",
    "background": "published",
    "resolution": 100,
    "half_size": 1.0,
    "device": "cuda",
    "precision": "float16",
}
"""The resolved options of a folder of November 2026, before a run's machine had a place of its own."""

PROMPTS = {"prompt": "a cat", "sent": {"front": "front view a cat"}}


def dsds():
    (run,) = resolve(options(prompt=("a cat",), debias=True), STABLE_DIFFUSION, "sd15", "0")
    return run


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")


def test_a_folder_of_an_older_version_is_read(tmp_path):
    folder = tmp_path / "00000-dsds-a-cat-seed0"
    (folder / "previews").mkdir(parents=True)
    commit = "3653514"
    write(folder, OPTIONS, json.dumps({"resolved": OLD, "view_prompts": PROMPTS, "git_commit": commit}))
    write(folder, STATS, '{"step": 0, "sigma": 3.5}\n')
    write(folder, FINISHED, json.dumps({"n_steps": 10000, "optimization_time_s": 9.5}))
    for done in (200, 100):
        preview_path(folder, done).touch()
    save_checkpoint(folder, 10000, {"grid.density": torch.ones(2)})
    run = RunReader(folder)
    assert not {"device", "precision"} & run.options.keys()
    later = {
        "schedule_steps": 10000,
        "start": "fog",
        "color_scale": 1.0,
        "color_mean": (),
        "lr_end": 1.0,
        "pmi_normalized": "pmi",
    }
    later |= {"color_mean": [], "lr_end": 1.0}
    assert run.options.items() >= later.items()
    assert run.precision == "float16"
    assert run.record == {"view_prompts": PROMPTS, "git_commit": commit}
    assert run.view_prompts == PROMPTS
    assert run.result["optimization_time_s"] == 9.5
    assert list(run.stats()) == [{"step": 0, "sigma": 3.5}]
    assert [path.name for path in run.previews] == ["step_000100.png", "step_000200.png"]
    assert run.metrics is None
    assert run.tensors()["grid.density"].tolist() == [1, 1]
    assert find_run(tmp_path, dsds(), "float16") == folder
    settings = replace(dsds().settings, n_steps=12_000)
    extend_run(folder, replace(dsds(), settings=settings))
    assert run.precision == "float16"
    assert run.options == as_json(dsds()) | {"n_steps": 12_000}
    assert run.record["git_commit"] == commit


def test_what_is_written_is_read(tmp_path):
    write_options(tmp_path, dsds(), {"view_prompts": PROMPTS, "machine": {"precision": "bfloat16"}})
    run = RunReader(tmp_path)
    assert run.options["clip_end"] == 8.0
    assert run.options["keep"] == []
    assert run.view_prompts == PROMPTS
    assert run.precision == "bfloat16"
    assert not run.finished
    assert run.checkpoint is None
    with pytest.raises(RunError, match=r"has none yet\. Let its run go on"):
        run.tensors()


def test_labels_of_older_runs_keep_their_runs(tmp_path):
    """Keys of label sheets name a run by its options as they were written."""
    write(tmp_path, OPTIONS, json.dumps({"resolved": {"prompt": "a cat", "n_steps": 5}}))
    assert RunReader(tmp_path).digest == "5ce51e972ddaaa47"


def test_a_log_is_followed_while_it_is_written(tmp_path):
    run = RunReader(tmp_path)
    assert list(run.stats()) == []
    log = StatsLog(tmp_path, 0)
    log.write([{"step": i} for i in range(3)])
    with (tmp_path / STATS).open("ab") as file:
        file.write('{"step": 3, "view": "\u00e9'.encode()[:-1])  # half a letter
        file.flush()
        assert [row["step"] for row in run.stats()] == [0, 1, 2]
        assert list(run.stats(after=3)) == []
        file.write(b'\xa9"}\n')
    log.write([{"step": 4}])
    log.close()
    assert list(run.stats(after=2)) == [{"step": 2}, {"step": 3, "view": "\u00e9"}, {"step": 4}]
    assert list(run.stats(after=9)) == []


@pytest.mark.parametrize("line", ["{", "[1]", "\udcff", "[" * 100_000])
def test_a_damaged_line_is_named(tmp_path, line):
    data = f'{{"step": 0}}\n{line}\n{{"step": 2}}\n'.encode(errors="surrogateescape")
    (tmp_path / STATS).write_bytes(data)
    with pytest.raises(RunError, match=r"a JSON object in every line\. Line 2 in"):
        list(RunReader(tmp_path).stats())
    with pytest.raises(RunError, match="Line 2 in"):
        list(RunReader(tmp_path).stats(after=1))
    assert list(RunReader(tmp_path).stats(after=2)) == [{"step": 2}]


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"resolved": {}}', '{"resolved": {"n_steps": "5"}}', "[" * 100_000]
)
def test_what_cannot_be_read_says_so(tmp_path, content):
    for name in (OPTIONS, FINISHED, METRICS):
        if content is not None:
            write(tmp_path, name, content)
    run = RunReader(tmp_path)
    for read in ("options", "record", "digest", "precision", "view_prompts"):
        with pytest.raises(RunError, match=r"readable options\.json.*Name a folder that run_sjc\.py made"):
            getattr(run, read)
    if not (content or "").startswith("{"):
        with pytest.raises(RunError, match=r"readable result\.json.*repeat the command that writes it"):
            run.result  # noqa: B018
        assert run.metrics is None
