"""Run folders: names, atomic files, checkpoints, locks."""

import json

import pytest
import torch

from sjc_debiased.folder.checkpoints import (
    load_checkpoint,
    newest_checkpoint,
    remove_partial_files,
    save_checkpoint,
)
from sjc_debiased.folder.identity import check_same_options, find_or_create_run, find_run
from sjc_debiased.folder.log import StatsLog
from sjc_debiased.folder.runs import RunError, atomic, check_run_root, locked, slug, write_json
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from tests.options import options
from tests.run_files import stats_of


def resolved(**fields):
    given = options(**({"prompt": ("a smiling cat",), "debias": True} | fields))
    (run,) = resolve(given, STABLE_DIFFUSION, "sd", "0" * 64)
    return run


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a smiling cat", "a-smiling-cat"),
        ("../../etc/passwd", "etc-passwd"),
        ("A Cat!! 😀", "a-cat"),
        ("😀", "prompt"),
        ("x" * 10_000, "x" * 48),
        ("\u202eevil", "evil"),
    ],
)
def test_prompts_become_safe_folder_names(prompt, name):
    assert slug(prompt) == name


def test_runs_are_numbered_and_found_again(tmp_path):
    first = find_or_create_run(tmp_path, resolved(), {})
    assert first.name == "00000-dsds-a-smiling-cat-seed0"
    other = find_or_create_run(tmp_path, resolved(seed=3), {"command": ["x"]})
    assert other.name == "00001-dsds-a-smiling-cat-seed3"
    assert find_run(tmp_path, resolved()) == first
    assert find_run(tmp_path, resolved(seed=3)) == other
    assert find_run(tmp_path, resolved(seed=4)) is None
    assert json.loads((other / "options.json").read_text())["resolved"]["seed"] == 3


def test_a_run_gets_one_folder_and_abandoned_drafts_go(tmp_path):
    (tmp_path / ".new-abc").mkdir()
    first = find_or_create_run(tmp_path, resolved(), {})
    assert find_or_create_run(tmp_path, resolved(), {}) == first
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [first.name]


def test_a_taken_number_is_passed_over(tmp_path):
    blocker = tmp_path / "00000-dsds-a-smiling-cat-seed0"
    blocker.mkdir()
    (blocker / "mine.txt").write_text("precious")
    made = find_or_create_run(tmp_path, resolved(), {})
    assert made.name.startswith("00001-")
    assert (blocker / "mine.txt").read_text() == "precious"


def test_resuming_with_other_options_lists_them(tmp_path):
    folder = find_or_create_run(tmp_path, resolved(), {})
    check_same_options(folder, resolved())
    with pytest.raises(RunError, match=r"guidance: 100.0 in the folder, 7.0 now\n.*seed: 0 in the folder, 1"):
        check_same_options(folder, resolved(seed=1, guidance=7.0))
    with pytest.raises(RunError, match=r"readable options\.json"):
        check_same_options(tmp_path, resolved())


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_json(path, {"x": float("nan"), "y": [1.5, float("inf")]})
    assert json.loads(path.read_text()) == {"x": None, "y": [1.5, None]}


def test_checkpoints_round_trip_and_the_newest_two_stay(tmp_path):
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, step, {"a": torch.full((3,), float(step))})
    assert newest_checkpoint(tmp_path).step == 15
    assert load_checkpoint(newest_checkpoint(tmp_path))["a"].tolist() == [15.0] * 3
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest"])
def test_damaged_checkpoints_are_refused(tmp_path, damage):
    saved = save_checkpoint(tmp_path, 5, {"a": torch.arange(100.0)})
    data = saved.path.read_bytes()
    if damage == "truncate":
        saved.path.write_bytes(data[:-7])
    elif damage == "flip":
        saved.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        saved.path.with_suffix(".json").write_text("{")
    with pytest.raises(RunError, match="must be as it was saved.*Delete it"):
        load_checkpoint(saved)


def test_a_checkpoint_without_its_manifest_does_not_count(tmp_path):
    save_checkpoint(tmp_path, 5, {"a": torch.zeros(1)})
    newer = save_checkpoint(tmp_path, 10, {"a": torch.ones(1)})
    newer.path.with_suffix(".json").unlink()
    assert newest_checkpoint(tmp_path).step == 5


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(RunError, match="Another is at work"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_stats_go_on_at_the_checkpoints_step(tmp_path):
    log = StatsLog(tmp_path, 0)
    log.write([{"step": i} for i in range(7)])
    log.close()
    log = StatsLog(tmp_path, 5)
    log.write([{"step": 5, "x": float("nan")}])
    log.close()
    rows = stats_of(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[-1]["x"] is None


def test_what_a_killed_process_left_half_done_is_removed(tmp_path):
    save_checkpoint(tmp_path, 5, {"a": torch.zeros(2)})
    orphan = tmp_path / "checkpoints/step_000010.safetensors"
    orphan.write_bytes(b"its manifest was never written")
    writing = atomic(tmp_path / "stats.jsonl")
    half = writing.__enter__()
    (tmp_path / ".lock").touch()
    assert half.exists()
    remove_partial_files(tmp_path)
    left = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {".lock", "step_000005.safetensors", "step_000005.json"}


def test_a_half_written_page_that_another_process_ends_meanwhile_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "rglob", lambda self, _: [self / ".partial-view-x.html"])
    remove_partial_files(tmp_path)


def test_files_of_the_users_own_stay_and_are_no_checkpoints(tmp_path):
    saved = save_checkpoint(tmp_path, 5, {"a": torch.zeros(2)})
    for ending in (".safetensors", ".json"):
        copy = saved.path.with_name(f"step_000009 (1){ending}")
        copy.write_bytes(saved.path.with_suffix(ending).read_bytes())
    mine = [tmp_path / ".gitignore", tmp_path / "checkpoints/best.safetensors", copy]
    for path in mine[:2]:
        path.touch()
    remove_partial_files(tmp_path)
    assert all(path.exists() for path in mine)
    assert newest_checkpoint(tmp_path) == saved


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="must be writable"):
        check_run_root(tmp_path / "file", [resolved()])


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunError, match="needs about .* MiB"):
        check_run_root(tmp_path, [resolved()])
