"""The page of a run: what it shows of whole, unfinished and damaged folders; that it never stops a run."""

import json
import os
import shlex
import time
from html.parser import HTMLParser

import pytest
import torch

import run_sjc
from prompts.views import VIEWS
from sjc_debiased import pages
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import ENDED, GALLERY, METRICS, PARTIAL, VIEW, VIEWER, write_json
from sjc_debiased.making import session
from sjc_debiased.models.choose import choose_model
from sjc_debiased.options.config import by_option, resolve
from sjc_debiased.pages import view as view_module
from sjc_debiased.pages.again import command_again
from sjc_debiased.pages.curves import HEIGHT, WIDTH, bins, charts
from sjc_debiased.pages.explain import option_groups
from sjc_debiased.pages.prompts import prompt_rows
from sjc_debiased.pages.state import SILENT_AFTER_S, state_of
from sjc_debiased.pages.view import view_values, write_view
from tests.page_runs import options_of, page_run

SCRIPT = "<script>document.title='caught'</script><img src=x onerror=alert(1)> cat"
RIGHT_TO_LEFT = "قطة مبتسمة \u202e cat"


class Page(HTMLParser):
    """What is in a page: its elements, and the text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._skip = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        self.text += "" if self._skip else data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder):
    write_view(folder)
    return Page((folder / VIEW).read_text(encoding="utf-8"))


def test_a_finished_run_shows_everything(tmp_path):
    page = page_of(folder := page_run(tmp_path))
    assert view_values(folder)["problems"] == []
    assert "finished" in page.text
    assert [v["src"] for v in page.all("video")] == ["turntable.mp4"]
    assert (
        (folder / VIEWER / "mesh.js")
        .read_text()
        .startswith('"use strict";\nglobalThis.MESH = "data:model/gltf')
    )
    assert {p.name for p in (folder / VIEWER).iterdir()} == {"mesh.js", "model-viewer.min.js", "LICENSES.txt"}
    assert len(page.all("svg")) == 4
    slider = next(i for i in page.all("input") if i.get("id") == "time")
    assert (slider["min"], slider["max"]) == ("0", "3")
    assert "12 triangles; silhouettes overlap by 0.90" in page.text
    assert "0.59 (0.59)" in page.text


def test_what_is_referred_to_is_in_the_folder_and_nowhere_else(tmp_path):
    page = page_of(folder := page_run(tmp_path))
    places = [a[name] for _, a in page.elements for name in ("src", "href") if a.get(name)]
    assert len(places) >= 8
    for place in places:
        assert place == "data:," or (folder / place).exists(), place


def test_every_picture_video_and_control_has_a_name(tmp_path):
    page = page_of(page_run(tmp_path))
    named = [a.get("alt") or a.get("aria-label") for tag in ("img", "video", "svg", "model-viewer", "input")
             for a in page.all(tag)]  # fmt: skip
    assert len(named) > 8
    assert all(named)


@pytest.mark.parametrize(
    "prompt", [SCRIPT, "a cat & dog \"'><b>", "</script><script>alert(1)</script>{{ 7*7 }}"]
)
def test_a_prompt_is_text_and_nothing_else(tmp_path, prompt):
    plain = page_of(page_run(tmp_path / "plain"))
    page = page_of(page_run(tmp_path / "odd", prompt=prompt))
    tags = [[tag for tag, _ in p.elements] for p in (plain, page)]
    assert {tag: tags[0].count(tag) for tag in ("script", "b", "h1")} == {
        tag: tags[1].count(tag) for tag in ("script", "b", "h1")
    }
    assert prompt in page.text
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_a_prompt_from_right_to_left_keeps_to_its_own_element(tmp_path):
    page = page_of(page_run(tmp_path, prompt=RIGHT_TO_LEFT))
    assert page.all("h1") == [{"dir": "auto"}]
    assert RIGHT_TO_LEFT in page.text


@pytest.mark.parametrize("prompt", ["smiling cat " * 833, "c" * 10_000])
def test_a_prompt_of_ten_thousand_characters(tmp_path, prompt):
    folder = page_run(tmp_path, prompt=prompt.strip())
    page = page_of(folder)
    assert page.all("h1")[0]["class"] == "long"
    assert view_values(folder)["problems"] == []
    assert (folder / VIEW).stat().st_size < 1_000_000


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    folder = page_run(tmp_path)
    text = (folder / "options.json").read_text().replace("a smiling cat", "a \\ud800 cat")
    (folder / "options.json").write_text(text)
    assert "a ? cat" in page_of(folder).text


def test_a_run_that_is_being_written(tmp_path):
    folder = page_run(tmp_path, done=15)
    with (folder / "stats.jsonl").open("a") as file:
        file.write('{"step": 15, "azimuth_d')
    page, values = page_of(folder), view_values(folder)
    assert values["problems"] == []
    assert (values["state"].name, values["state"].step, values["state"].n_steps) == ("running", 15, 40)
    assert "step 15 of 40" in page.text
    assert "The turntable is made after the last step." in page.text
    assert [m["step"] for m in values["moments"]] == [10]
    assert not page.all("model-viewer")
    assert not (folder / VIEWER).exists()


def test_a_run_before_its_first_step(tmp_path):
    folder = page_run(tmp_path, done=0)
    (folder / "stats.jsonl").unlink()
    page = page_of(folder)
    assert view_values(folder)["problems"] == []
    assert "There is no preview yet." in page.text
    assert page.text.count("Nothing is logged yet.") == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("options.json", "{", "options.json"),
        ("options.json", '{"resolved": {"n_steps": 40}}', "prompt"),
        (
            "options.json",
            '{"resolved": {"n_steps": 40, "prompt": 7, "preset": {}}, "view_prompts": 3}',
            "int",
        ),
        ("result.json", "[", "result.json"),
        ("result.json", '{"n_steps": 40, "mesh": []}', "list"),
        ("stats.jsonl", '{"step": 0}\nnonsense\n', "Line 2"),
        ("stats.jsonl", '{"step": "<b>", "view": 1}\n' * 40, "azimuth_deg"),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path, name, content, said):
    folder = page_run(tmp_path)
    (folder / name).write_text(content)
    page = page_of(folder)
    assert "Something in this folder is not as it should be." in page.text
    assert any(said in problem for problem in view_values(folder)["problems"])
    assert page.all("video"), "what is whole is shown"
    assert not page.all("b")


def test_without_options_the_curves_go_to_the_last_step_that_is_logged(tmp_path):
    folder = page_run(tmp_path)
    (folder / "options.json").write_text("{")
    page = page_of(folder)
    assert page.text.count("step 040") == 4, "both ends of an axis"
    assert page.text.count("cannot be read from this folder.") == 2, "options and record"


def test_missing_pictures_are_named(tmp_path):
    folder = page_run(tmp_path)
    for path in [*(folder / "previews").iterdir(), folder / "turntable.mp4"]:
        path.unlink()
    page = page_of(folder)
    assert "there is no preview in this folder" in page.text
    assert "turntable.mp4 is not there" in page.text


def test_an_empty_folder_and_a_stray_picture(tmp_path):
    (tmp_path / "00000-x" / "previews").mkdir(parents=True)
    (tmp_path / "00000-x" / "previews" / "step_x.png").write_bytes(b"")
    page = page_of(tmp_path / "00000-x")
    assert "unreadable" in page.text


def test_removed_words_are_struck_through_with_their_pmi(tmp_path):
    folder = page_run(tmp_path)
    rows = {row["view"]: row["pieces"] for row in prompt_rows(RunReader(folder))["rows"]}
    assert [(p.text, p.gone) for p in rows["front"]] == [("a smiling cat", "")]
    for view in VIEWS[1:]:
        assert [(p.text, p.gone) for p in rows[view]] == [("a", ""), ("smiling", "removed"), ("cat", "")]
        assert rows[view][1].pmi == 0.59
    page = page_of(folder)
    assert len(page.all("del")) == 3 + 3  # in the prompts, and in the table
    assert "smiling PMI 0.59 (0.59)" in page.text


def test_words_that_a_removed_word_leaves_stray_are_told_apart(tmp_path):
    prompt = "a bear wearing a backpack"
    folder = page_run(tmp_path, prompt=prompt)
    written = json.loads((folder / "options.json").read_text())
    found = written["view_prompts"]
    found["removed"]["back"], found["sent"]["back"] = ["backpack"], "back view a bear"
    found["pmi"] = found["normalized_pmi"] = {"backpack": dict.fromkeys(VIEWS, 0.5)}
    (folder / "options.json").write_text(json.dumps(written))
    pieces = next(r["pieces"] for r in prompt_rows(RunReader(folder))["rows"] if r["view"] == "back")
    assert [(p.text, p.gone) for p in pieces] == [
        ("a bear", ""), ("wearing", "stray"), ("a", "stray"), ("backpack", "removed")
    ]  # fmt: skip


def test_every_option_is_explained_by_its_help(tmp_path, capsys):
    rows = [row for _, group in option_groups(RunReader(page_run(tmp_path))) for row in group]
    assert by_option(options_of()).keys() <= {row.name.strip("-").replace(".", "_") for row in rows}
    with pytest.raises(SystemExit):
        run_sjc.main(["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for row in rows:
        assert row.help or row.name == "views", row.name
        if row.name.startswith("--"):
            assert row.help.split(". ")[0].rstrip(".") in shown, row.name
            assert row.name in shown


def test_a_measured_object_shows_from_where_a_face_is_seen(tmp_path):
    folder = page_run(tmp_path)
    assert "Faces by azimuth" not in page_of(folder).text
    seen = [1.0, 0.5, 0.0, 0.5]
    face = {"arcs": 1, "share": 0.25, "in_front": True, "at_back": False, "seen": seen}
    write_json(folder / METRICS, {"face": face})
    page = page_of(folder)
    assert "1 face, seen from 25% of the azimuths, in front." in page.text
    line = [a for a in page.all("polyline") if len(a["points"].split()) == 5]
    assert [a["points"] for a in line] == ["0.0,0.0 250.0,130.0 500.0,260.0 750.0,130.0 1000.0,0.0"]
    write_json(folder / METRICS, {"face": {"seen": "x"}})
    assert any(problem.startswith("Faces") for problem in view_values(folder)["problems"])


def test_what_an_option_means_is_said_to_its_end(tmp_path):
    rows = {row.name: row.help for _, group in option_groups(RunReader(page_run(tmp_path))) for row in group}
    assert rows["orientation_start"].endswith("grows linearly over the first half of the schedule's steps.")
    assert rows["light"].endswith("None for one of the 2D model's own pictures, which is not.")
    assert rows["sparsity_weight"] == "Of `sparsity_loss`."


@pytest.mark.parametrize(
    "arguments",
    [
        "--preset sjc",
        "--debias",
        "--preset score-only --clip.start 0.5 --clip.end 3",
        "--preset static-low",
        "--preset static-high --clip.start 1.5",
        "--clip.kind static --clip.start 1.25",
        "--preset dsds-preserved --clip.kind none",
        "--debias --keep smiling winking --pmi_normalized probabilities --front_half_deg 30",
        "--debias --seed 7 --n_steps 80 --schedule_steps 40 --var_red False --lr 0.2 --start fog",
        "--sd.scale 12 --emptiness_multipler 3 --depth_weight 1 --depth_loss corrected --resolution 32",
        "--guidance_form sds --weighting uniform --timesteps 20 0:980,10:500",
        "--guidance_form vsd --vsd_model copy --vsd_lr 0.01 --guidance 3",
        "--preset magic3d --timesteps 30 40",
        "--preset dreamfusion-sd --guidance_form paas",
        "--preset dreamfusion-if --score_debias",
        "--preset magic3d --prompt_debias",
        "--preset dreamfusion-sd --debias --clip.kind none",
        "--seeds 3,4 --prompt 'an \"odd\" dog; $HOME'",
    ],
)
def test_the_command_makes_the_same_run_again(tmp_path, arguments):
    from sjc_debiased.folder.reader import write_options

    profile = choose_model("menagerie", "cpu").profile
    argv = ["--prompt", "a smiling cat", "--model", "menagerie", *shlex.split(arguments)]
    for run in resolve(parsed(argv), profile, "menagerie", "f"):
        write_options(tmp_path, run, {})
        command = command_again(RunReader(tmp_path))
        words = shlex.split(command)
        assert words[:2] == ["python", "run_sjc.py"]
        assert "None" not in words
        assert resolve(parsed(words[2:]), profile, "menagerie", "f") == [run], command


def test_the_command_counts_from_the_settings_of_the_models_family(tmp_path):
    """Of DeepFloyd IF, Stable Diffusion's scale must be said."""
    from sjc_debiased.folder.reader import write_options

    name = "DeepFloyd/IF-I-XL-v1.0"
    profile = choose_model(name, "cpu").profile
    for scale in ("21", "100"):
        argv = ["--prompt", "a smiling cat", "--model", name, "--guidance", scale]
        (run,) = resolve(parsed(argv), profile, name, "f")
        write_options(tmp_path, run, {})
        command = command_again(RunReader(tmp_path))
        assert ("--guidance" in command) == (scale == "100")
        assert resolve(parsed(shlex.split(command)[2:]), profile, name, "f") == [run]


def parsed(argv):
    import tyro

    from sjc_debiased.options.command import Options
    from sjc_debiased.options.dsds_arguments import translate_dsds_arguments

    argv = translate_dsds_arguments(argv)
    return tyro.cli(Options, args=argv, use_underscores=True, config=(tyro.conf.FlagCreatePairsOff,))


def test_a_curve_goes_through_its_values():
    rows = [{"direction_rms": v, "opacity_mean": v / 4, "clip_value": None} for v in (1.0, 4.0, 2.0)]
    direction, clip, _, opacity = charts(rows, 5)
    assert (
        direction.lines[0].points
        == f"0.0,{0.75 * HEIGHT:.1f} {WIDTH / 4:.1f},0.0 {WIDTH / 2:.1f},{0.5 * HEIGHT:.1f}"
    )
    assert direction.top == 4.0
    assert clip.absent == "This run does not clip."
    assert opacity.shown(0.5) == "50.0%"
    assert len(charts(rows, 5)) == 4, "a scene that is not lit has no chart of lit losses"
    assert "1 at first, 2 at last" in direction.alt


@pytest.mark.parametrize(
    ("shares", "clip_value", "says"),
    [
        ((0.0, 0.0005), 2.0, "In all: clipped 0.0 %: the bound does nothing here."),
        ((0.25, 0.5), 2.0, "In all: clipped 37.5 %."),
        ((0.0, 0.0), None, "beyond the bound."),
    ],
)
def test_a_bound_that_does_nothing_is_said(shares, clip_value, says):
    rows = [{"clipped_fraction": share, "clip_value": clip_value} for share in shares]
    assert charts(rows, 2)[2].about.endswith(says)


def test_a_long_run_is_drawn_in_bins_that_hold_every_step():
    parts = bins(10_000)
    assert [step for part in parts for step in part] == [*range(10_000)]
    rows = [{"direction_rms": float(i % 2)} for i in range(10_000)]
    line = charts(rows, 10_000)[0].lines[0]
    assert len(line.values) == len(parts) == 240
    assert set(line.values) <= {0.5} | {v for v in line.values if abs(v - 0.5) < 0.02}
    assert line.band.split()[0].endswith(",0.0"), "the band reaches the highest value"


def test_a_run_that_went_silent_counts_as_stopped(tmp_path):
    folder = page_run(tmp_path, done=10)
    assert state_of(RunReader(folder)).name == "running"
    before = time.time() - SILENT_AFTER_S - 60
    for path in folder.rglob("*"):
        os.utime(path, (before, before))
    state = state_of(RunReader(folder))
    assert (state.name, state.step) == ("stopped", 10)
    assert "did not say how it ended" in page_of(folder).text


def test_sjc_stands_beside_dsds(tmp_path):
    dsds, sjc = page_run(tmp_path, 0), page_run(tmp_path, 1, preset="sjc")
    page_run(tmp_path, 2, preset="sjc", seed=1)
    page_run(tmp_path, 3, preset="sjc", prompt="a dog")
    write_view(sjc)
    page = page_of(dsds)
    assert [v["src"] for v in page.all("video")] == ["turntable.mp4"] * 2 + [f"../{sjc.name}/turntable.mp4"]
    assert f"../{sjc.name}/view.html" in [a["href"] for a in page.all("a") if "href" in a]
    assert (dsds / f"../{sjc.name}/turntable.mp4").resolve().exists()
    assert view_values(sjc)["beside"][0]["preset"] == "dsds"


def test_a_page_is_whole_or_the_one_before(tmp_path, monkeypatch):
    page_of(folder := page_run(tmp_path))
    before = (folder / VIEW).read_bytes()

    def full(self, *arguments, **named):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write_view(folder)
    assert (folder / VIEW).read_bytes() == before
    assert not list(folder.glob(f"{PARTIAL}*"))


def test_the_page_is_written_with_every_preview_and_at_the_end(command, monkeypatch):
    states, original = [], view_module.write_view

    def noted(folder):
        original(folder)
        state = state_of(RunReader(folder))
        states.append((state.name, state.step))

    monkeypatch.setattr(view_module, "write_view", noted)
    code, (folder,) = command()
    assert code == 0
    assert states[:-1] == [("running", step) for step in range(1, 61)]
    assert states[-1] == ("finished", 60)
    assert view_values(folder)["problems"] == []
    assert (folder.parent / GALLERY).exists()
    assert len(RunReader(folder).fixed_views) == 26
    assert "All runs" in page_of(folder).text


@pytest.mark.parametrize("broken", ["page", "views"])
def test_a_page_never_stops_a_run_nor_changes_it(command, whole_run, monkeypatch, capsys, broken):
    tensors = RunReader(whole_run).tensors()

    def fail(*_):
        raise OSError("no space left") if broken == "page" else MemoryError("too little")

    monkeypatch.setattr(pages, "render", fail) if broken == "page" else None
    monkeypatch.setattr(session, "save_fixed_views", fail) if broken == "views" else None
    code, folders = command()
    folder = folders[0]
    said = capsys.readouterr().err
    assert code == 0
    assert ("no space left" if broken == "page" else "too little") in said
    assert "warning: " in said
    assert "could not be written" in said
    assert not (folder / VIEW).exists() or broken == "views"
    found = RunReader(folder).tensors()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_what_a_run_failed_with_is_on_its_page_until_it_goes_on(command, monkeypatch):
    original = session.Session.record

    def fail(self, step, stopping):
        if step.step == 30:
            raise RuntimeError("<b>the network is gone</b>")
        original(self, step, stopping)

    with monkeypatch.context() as context:
        context.setattr(session.Session, "record", fail)
        code, (folder,) = command()
    assert code == 1
    page = Page((folder / VIEW).read_text())
    assert "failed" in page.text
    assert "<b>the network is gone</b>" in page.text
    assert not page.all("b")
    code, (folder,) = command()
    assert code == 0
    assert not (folder / ENDED).exists()
    assert state_of(RunReader(folder)).name == "finished"


def test_a_run_that_was_stopped_says_so(command, monkeypatch):
    original = session.Session.record

    def record(self, step, stopping):
        original(self, step, stopping)
        if step.step == 20:
            os.kill(os.getpid(), 2)

    monkeypatch.setattr(session.Session, "record", record)
    code, (folder,) = command()
    assert code == 130
    page = Page((folder / VIEW).read_text())
    assert "stopped" in page.text
    assert "step 22 of 60" in page.text


def test_another_mesh_comes_onto_the_page(command, solid_scenes):
    from sjc_debiased.export import main as export

    _, (folder,) = command("--lr", "1e-6", "--n_steps", "4")
    first = (folder / VIEWER / "mesh.js").read_bytes()
    assert export([str(folder), "--faces", "150", "--texture", "64", "--device", "cpu"]) == 0
    assert (folder / VIEWER / "mesh.js").read_bytes() != first
    assert "mesh-faces150.glb" in Page((folder / VIEW).read_text()).text


def test_the_viewer_is_the_one_whose_licences_are_beside_it():
    import hashlib

    place = view_module.VENDOR
    digest = hashlib.sha256((place / "model-viewer.min.js").read_bytes()).hexdigest()
    licences = (place / "LICENSES.txt").read_text()
    assert digest in licences
    for name in ("Apache License", "three.js authors", "BSD 3-Clause", "Arjun Barrett", "MONOGRID"):
        assert name in licences


def test_options_of_a_made_up_run_are_real():
    assert options_of().prompt == "a smiling cat"
