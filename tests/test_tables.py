"""The way from measured run folders to tables."""

import csv
import json
from operator import attrgetter

import pytest
import torch
from PIL import Image

from sjc_debiased.evaluation import results
from sjc_debiased.evaluation.collect import collect, difference, mean_of, rate_of
from sjc_debiased.evaluation.labels import LabelError, Labelled, sheet
from sjc_debiased.evaluation.objects import objects_csv
from sjc_debiased.evaluation.tables import ABLATION, faces, table_1, table_3, table_3_limits
from sjc_debiased.folder.checkpoints import save_checkpoint, state_digest
from sjc_debiased.folder.reader import as_json
from sjc_debiased.folder.runs import METRICS, write_json
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import Profile
from tests.measured_runs import made_up_run
from tests.options import options


@pytest.fixture
def run_root(tmp_path):
    """Measured runs of three prompts, two presets, two seeds."""
    number = 0
    for prompt in ("a cat", "a dog", '<script>alert("x")</script>'):
        for preset in ("sjc", "dsds"):
            for seed in (0, 1):
                made_up_run(tmp_path / "runs", number, prompt, preset, seed, success=preset == "dsds")
                number += 1
    return tmp_path / "runs"


def test_estimates(run_root):
    runs = collect(run_root)
    assert len(runs) == 12
    assert mean_of(runs, "sjc", lambda m: m["a_lpips_vgg"]).value == pytest.approx(0.2)
    rate = rate_of(runs, "dsds", lambda m: m["face"]["success"])
    assert (rate.value, rate.n) == (1.0, 6)
    assert (rate.clusters, rate.low) == (3, pytest.approx(0.025 ** (1 / 3)))  # three prompts, not six objects
    gain = difference(runs, "dsds", "sjc", lambda m: m["a_lpips_vgg"])
    assert (gain.value, gain.n) == (pytest.approx(-0.1), 6)
    assert mean_of(runs, "static-low", lambda m: m["a_lpips_vgg"]) is None


def test_the_papers_numbers_have_their_own_column_and_gaps_are_dashes(run_root):
    runs = collect(run_root)
    table = table_1(runs)
    row = dict(zip(table.head, table.rows[0]))
    assert row["preset"] == "sjc"
    assert row["A-LPIPS VGG"].startswith("0.2000 [")
    assert row["paper: VGG"] == "0.2054"
    assert row["A-LPIPS AlexNet"] == row["paper: AlexNet"] == "–"
    rows = {r[0]: dict(zip(table_3(runs, []).head, r)) for r in table_3(runs, []).rows}
    assert rows["sjc"]["paper: anywhere, by eye"] == "29.3 %"
    assert rows["dsds"]["one face, in front"].startswith("100 % [29, 100")
    assert rows["dsds − sjc, paired"]["one face, in front"].startswith("+100 %")
    assert "dsds − dsds-preserved, paired" not in rows
    made_up_run(run_root, 12, "a cat", "dsds-preserved", 0, success=False)
    rows = {r[0]: dict(zip(table_3(runs, []).head, r)) for r in table_3(collect(run_root), []).rows}
    removal = rows["dsds − dsds-preserved, paired"]
    assert (removal["objects"], removal["one face, in front"][:6]) == ("1", "+100 %")


def with_face(folder, **changed):
    """Change what the judge found of a run."""
    metrics = json.loads((folder / METRICS).read_text())
    write_json(folder / METRICS, metrics | {"face": metrics["face"] | changed})


def labelled_as(run, text):
    return Labelled(run.identity, run.preset, [c == "1" for c in text], None, None, run.prompt)


def rows_of(table):
    return {row[0]: dict(zip(table.head, row)) for row in table.rows}


def test_the_papers_count_stands_beside_the_same_count(run_root):
    """One face anywhere, by the judge and by eye, and not one in front."""
    with_face(next(run_root.glob("*-dsds-x-seed0")), in_front=False)
    runs = collect(run_root)
    cat, dog = (r for r in runs if r.preset == "dsds" and r.seed == 0 and r.prompt in ("a cat", "a dog"))
    table = table_3(runs, [labelled_as(cat, "00010000"), labelled_as(dog, "11000001")])
    assert table.head[3:6] == ("one face, anywhere", "anywhere, by eye", "paper: anywhere, by eye")
    row = rows_of(table)["dsds"]
    assert row["anywhere, by eye"].endswith("of 2")
    assert [row[name].split(" %")[0] for name in table.head[3:8]] == ["100", "100", "68.3", "83", "50"]
    assert (row["objects"], row["prompts"]) == ("6", "3")


def test_objects_without_a_face_are_counted(run_root):
    with_face(next(run_root.glob("*-sjc-x-seed0")), arcs=0, share=0.0, at_back=False)
    rows = rows_of(table_3(collect(run_root), []))
    assert rows["sjc"]["no face"].startswith("17 % [")
    assert rows["dsds − sjc, paired"]["no face"].startswith("-17 % [")


def test_an_object_without_a_face_by_its_own_suite_does_not_count(run_root):
    rows = [rows_of(table_3(collect(run_root), []))["sjc"]["objects"]]
    for folder in run_root.glob("*-sjc-x-seed0"):
        options = json.loads((folder / "options.json").read_text())
        write_json(folder / "options.json", options | {"face": False})
        rows.append(rows_of(table_3(collect(run_root), []))["sjc"]["objects"])
    assert rows[:2] == ["6", "5"]


def test_labels_of_an_older_key_get_their_prompts_from_the_runs(run_root, tmp_path):
    """Four successes of two prompts: the interval is that of two."""
    pytest.importorskip("matplotlib")
    runs = [r for r in collect(run_root) if r.preset == "dsds" and r.prompt in ("a cat", "a dog")]
    rows = [{"run": r.identity, "preset": r.preset, "judged": None, "judged_success": None} for r in runs]
    write_json(tmp_path / "key.json", {"rows": rows})
    write_json(tmp_path / "labels.json", ["11000001"] * 4)
    results.main(run_root, tmp_path / "out", labels=(tmp_path,))
    assert "100 % [16, 100] of 4" in (tmp_path / "out/tables/table_3.md").read_text()
    write_json(tmp_path / "key.json", {"rows": [rows[0] | {"run": "another"}, *rows[1:]]})
    with pytest.raises(ValueError, match="has 1 objects that are not"):
        results.main(run_root, tmp_path / "out", labels=(tmp_path,))


@pytest.mark.parametrize("given", [{"answers": ("a.json",)}, {"study_key": "key.json"}])
def test_answers_without_their_key_are_not_ignored(run_root, tmp_path, given):
    with pytest.raises(ValueError, match="Only one of --study_key and --answers was given"):
        results.main(run_root, tmp_path / "out", **given)


def test_labels_do_not_count_for_objects_that_were_made_anew(run_root, tmp_path):
    """Same options, another state; a key from before states were written down goes by what the judge saw."""
    pytest.importorskip("matplotlib")
    run = collect(run_root)[0]
    sees = [1.0, 0.9, *[0.1] * 5, 0.8]
    metrics = json.loads((run.folder / METRICS).read_text())
    metrics["face"]["seen"] = [p for p in sees for _ in range(9)]
    write_json(run.folder / METRICS, metrics)
    save_checkpoint(run.folder, 4, {"field": torch.zeros(3)})
    row = {"run": run.identity, "preset": run.preset, "judged": None, "judged_success": None}
    write_json(tmp_path / "labels.json", ["11000001"])

    def results_with(**more):
        write_json(tmp_path / "key.json", {"rows": [row | more]})
        results.main(run_root, tmp_path / "out", labels=(tmp_path,))

    mine = state_digest(run.folder)
    judged = [p > 0.5 for p in sees]
    results_with(judged=judged, state=mine)
    results_with(judged=judged)
    with pytest.raises(ValueError, match="1 that were labelled in a folder before it"):
        results.main(run_root, tmp_path / "out", labels=(tmp_path, tmp_path))
    save_checkpoint(run.folder, 4, {"field": torch.ones(3)})
    for other in ({"judged": judged, "state": mine}, {"judged": [True] * 8}):
        with pytest.raises(ValueError, match="1 of 1 were made anew since, with the same options"):
            results_with(**other)


def test_objects_that_were_labelled_are_not_drawn_again(run_root, tmp_path):
    rows = [{"run": r.identity} for r in collect(run_root)]
    write_json(tmp_path / "key.json", {"rows": rows})
    with pytest.raises(ValueError, match="has none that is new"):
        sheet(run_root, tmp_path / "more", without=(tmp_path,))
    for damaged in ("{", "[]", '{"rows": [3]}'):
        (tmp_path / "key.json").write_text(damaged)
        with pytest.raises(LabelError, match="key.json that was written with them"):
            sheet(run_root, tmp_path / "more", without=(tmp_path,))
    assert not (tmp_path / "more").exists()


def test_the_rates_at_other_limits_of_one_face_are_shown(run_root):
    """The made-up faces are seen over 216 degrees."""
    runs = collect(run_root)
    table = table_3_limits(runs, [labelled_as(r, "11100011") for r in runs if r.preset == "dsds"])
    judge, eye = (r for r in table.rows if r[0] == "dsds")
    assert [cell.split(" %")[0] for cell in judge[2:]] == ["0", "100", "100"] * 2
    assert [cell.split(" %")[0] for cell in eye[2:]] == ["0", "100", "100"] * 2  # 5 of 8 sides
    assert table.head[2:5] == tuple(f"anywhere, up to {deg}°" for deg in (180, 240, 300))
    assert "240°" in table_3(runs, []).note


def test_a_cell_of_fewer_objects_than_its_row_says_how_many(run_root):
    folder = next(run_root.glob("*-dsds-x-seed0"))
    metrics = json.loads((folder / METRICS).read_text())
    del metrics["a_lpips_vgg"], metrics["face"]
    write_json(folder / METRICS, metrics)
    runs = collect(run_root)
    of_lpips, of_faces = rows_of(table_1(runs)), rows_of(table_3(runs, []))
    assert of_lpips["dsds"]["A-LPIPS VGG"].endswith("] of 5")
    assert of_lpips["dsds − sjc, paired"]["A-LPIPS VGG"].endswith("] of 5")
    assert of_lpips["dsds"]["coverage"].endswith("]")
    assert of_faces["dsds"]["one face, in front"].endswith("] of 5")
    assert of_faces["sjc"]["one face, in front"].endswith("]")


def test_several_differences_are_said_to_be_several(run_root):
    assert "not corrected" not in table_3(collect(run_root), []).note
    for number, preset in enumerate(("static-low", "static-high"), 12):
        made_up_run(run_root, number, "a cat", preset, 0, success=False)
    for table in (table_1(collect(run_root)), table_3(collect(run_root), [])):
        assert "The 5 paired differences of a column are not corrected for being 5" in table.note
        assert "judge each at 99.0%" in table.note


def test_results_are_the_same_bytes_again_and_escape_what_they_show(run_root, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "git_commit", lambda: "123456" * 6 + "-dirty")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        results.main(run_root, tmp_path / "out")
        (tmp_path / "out").rename(out)
    files = [sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file()) for out in outs]
    assert files[0] == files[1]
    assert len(files[0]) >= 12
    assert all((outs[0] / f).read_bytes() == (outs[1] / f).read_bytes() for f in files[0])
    page = (outs[0] / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for path in (outs[0] / "tables").glob("*.md"):
        text = path.read_text()
        assert "`python -m sjc_debiased.evaluation.results runs out` at commit 123456123456 (dirty)" in text
        assert "of toy, commit abcdefabcdef; measured at commit fedcbafedcba, fedcbafedcba (dirty)" in text
        assert "judge 1ad9e1ad9e1a, CLIP c11c11c11c11, LPIPS VGG unknown" in text
    pictures = [p for p in (outs[0] / "figures").iterdir() if p.suffix != ".md"]
    assert {p.suffix for p in pictures} == {".jpg", ".png"}
    for path in pictures:
        with Image.open(path) as picture:
            about = picture.text["Description"] if path.suffix == ".png" else picture.info["comment"].decode()
            assert "abcdefabcdef" in about, path
    assert "abcdefabcdef" in (outs[0] / "figures/README.md").read_text()


def test_every_object_has_a_row_from_which_a_rate_can_be_taken_again(run_root):
    runs = collect(run_root)
    rows = list(csv.DictReader(objects_csv(runs).splitlines()))
    assert [r["run"] for r in rows] == [r.identity for r in runs]
    for preset in ("sjc", "dsds"):
        rate = rate_of(runs, preset, faces(attrgetter("success")))
        said = [r["success"] == "yes" for r in rows if r["preset"] == preset]
        assert sum(said) / len(said) == rate.value
    assert {r["coverage"] for r in rows} == {"0.3"}
    assert {r["a_lpips_alex"] for r in rows} == {""}
    one = json.loads((runs[0].folder / METRICS).read_text())
    one.pop("face")
    write_json(runs[0].folder / METRICS, one)
    assert next(csv.DictReader(objects_csv(collect(run_root)).splitlines()))["success"] == ""


def test_only_networks_that_measured_are_named(run_root):
    def said():
        return results.made_by_words(collect(run_root), "command")

    assert "LPIPS VGG unknown" in said()
    for folder in run_root.iterdir():
        metrics = json.loads((folder / METRICS).read_text())
        write_json(folder / METRICS, metrics | {"parts": ["clip", "success"]})
    assert "LPIPS" not in said()


def test_nothing_measured_is_said(tmp_path):
    with pytest.raises(ValueError, match="results need measured runs"):
        results.main(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(("preset", "lr", "refused"), [("dsds", 0.1, True), ("sjc", 0.5, False)])
def test_runs_of_different_experiments_are_not_mixed(tmp_path, preset, lr, refused):
    for number, (name, rate) in enumerate([("sjc", 0.5), (preset, lr)]):
        folder = made_up_run(tmp_path, number, "a cat", name, 0, success=True)
        options = json.loads((folder / "options.json").read_text())
        options["resolved"]["lr"] = rate
        write_json(folder / "options.json", options)
    if refused:
        with pytest.raises(ValueError, match=r"differ in lr \(0\.5 and 0\.1\)\. Keep one kind"):
            collect(tmp_path)
    else:
        assert len(collect(tmp_path)) == 1


@pytest.mark.parametrize(
    ("where", "name", "values", "remedy"),
    [
        ("metrics", "clip_model", ("menagerie", "other"), "Measure all alike"),
        ("metrics", "clip_weights", ("aaaa", "bbbb"), "Measure all alike"),
        ("metrics", "judge", ("aaaa", "bbbb"), "Measure all alike"),
        ("options", "model", ("sd15", "sd21"), "Keep one kind"),
        ("options", "n_steps", (1500, 3000), "Keep one kind"),
        ("options", "clip_end", (4.0, 8.0), "Keep one kind"),
    ],
)
def test_runs_of_other_prompts_are_not_pooled_where_they_were_made_or_measured_otherwise(
    tmp_path, where, name, values, remedy
):
    for number, (prompt, value) in enumerate(zip(("a cat", "a dog"), values)):
        folder = made_up_run(tmp_path, number, prompt, "dsds", 0, success=True)
        if where == "metrics":
            write_json(folder / METRICS, json.loads((folder / METRICS).read_text()) | {name: value})
        else:
            options = json.loads((folder / "options.json").read_text())
            write_json(folder / "options.json", {"resolved": options["resolved"] | {name: value}})
    with pytest.raises(ValueError, match="00000-dsds-x-seed0 and 00001-dsds-x-seed0 differ in") as refusal:
        collect(tmp_path)
    assert f"{name} ({values[0]} and {values[1]})" in str(refusal.value)
    assert f". {remedy}" in str(refusal.value)


def test_runs_of_which_parts_were_left_out_are_pooled_and_presets_have_their_own_bounds(tmp_path):
    for number, (preset, end) in enumerate([("dsds", 8.0), ("sjc", None)]):
        folder = made_up_run(tmp_path, number, "a cat", preset, 0, success=True)
        options = json.loads((folder / "options.json").read_text())
        write_json(folder / "options.json", {"resolved": options["resolved"] | {"clip_end": end}})
    metrics = json.loads((folder / METRICS).read_text())
    without = {"clip", "clip_model", "clip_weights", "face", "judge"}
    write_json(folder / METRICS, {k: v for k, v in metrics.items() if k not in without})
    assert len(collect(tmp_path)) == 2


def test_every_preset_can_be_compared_with_every_other(tmp_path):
    for number, preset in enumerate(ABLATION):
        folder = made_up_run(tmp_path, number, "a cat", preset, 0, success=True)
        given = options(prompt=("a cat",), preset=preset)
        (run,) = resolve(given, Profile(), "sd15", "revision")
        write_json(folder / "options.json", {"resolved": as_json(run)})
    assert {r.preset for r in collect(tmp_path)} == {*ABLATION}


@pytest.mark.parametrize(
    ("preset", "reading", "lost"), [("dsds", "probabilities", ()), ("sjc", "pmi", ("pmi_normalized",))]
)
def test_another_preset_may_read_pmi_otherwise_and_an_older_run_is_as_by_default(
    tmp_path, preset, reading, lost
):
    """The options of a run from before `--pmi_normalized` do not say how it read PMI."""
    for number, (name, its, gone) in enumerate([("sjc", "pmi", ()), (preset, reading, lost)]):
        folder = made_up_run(tmp_path, number, "a cat", name, 0, success=True)
        (run,) = resolve(
            options(prompt=("a cat",), preset=name, pmi_normalized=its), Profile(), "sd15", "revision"
        )
        written = {k: v for k, v in as_json(run).items() if k not in gone}
        write_json(folder / "options.json", {"resolved": written})
    assert {r.preset for r in collect(tmp_path)} == {"sjc", preset}


def test_metrics_of_an_older_version_are_measured_again(run_root):
    path = next(run_root.iterdir()) / METRICS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    assert len(collect(run_root)) == 11
