"""Measuring finished runs: what is left out, what is added later, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from prompts.hub import MissingError
from sjc_debiased.evaluation import a_lpips as lpips_module
from sjc_debiased.evaluation import clip_similarity
from sjc_debiased.evaluation import measure as measuring
from sjc_debiased.evaluation.a_lpips import BackboneError
from sjc_debiased.evaluation.clip_similarity import CLIP, WEIGHTS_FILE, similarities
from sjc_debiased.folder.runs import FINISHED, METRICS, RunError, sha256
from sjc_debiased.menagerie import EMBEDDED, WEIGHTS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def finished_run(tmp_path):
    """Return a folder that passes for a finished run, where scenes are not really loaded."""
    folder = tmp_path / "00000-sjc-a-cat-seed0"
    folder.mkdir()
    for name in ("options.json", FINISHED):
        (folder / name).write_text("{}")
    return folder


def test_what_is_left_out_can_be_measured_later(monkeypatch, finished_run):
    asked = []
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(size=8)
    black = torch.zeros(100, 3, 16, 16), torch.zeros(100, 8, 8)
    monkeypatch.setattr(measuring, "git_commit", lambda: "abc-dirty")
    monkeypatch.setattr(measuring, "find_backbone", lambda net: WEIGHTS / "judge" / WEIGHTS_FILE)
    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: asked.append("run") or scene)
    monkeypatch.setattr(measuring, "pictures", lambda *arguments: black)
    monkeypatch.setattr(
        measuring,
        "a_lpips",
        lambda images, net, protocol="closed", device="cpu": asked.append((net, protocol)) or 0.5,
    )
    others = ("clip", "success")
    measuring.main(finished_run.parent, ("a_lpips_vgg", "a_lpips_published", *others))
    assert asked == ["run", ("alex", "closed")]
    first = json.loads((finished_run / METRICS).read_text())
    assert first["parts"] == ["a_lpips_alex"]
    digest = sha256(WEIGHTS / "judge" / WEIGHTS_FILE)[:12]
    assert first["lpips_alex"] == digest
    assert not {"a_lpips_vgg", "lpips_vgg", "a_lpips_vgg_published"} & first.keys()
    asked.clear()
    measuring.main(finished_run.parent, others)
    assert asked == ["run", ("vgg", "closed"), ("vgg", "published")]
    parts = ["a_lpips_alex", "a_lpips_vgg", "a_lpips_published"]
    both = {"a_lpips_vgg": 0.5, "lpips_vgg": digest, "a_lpips_vgg_published": 0.5}
    both |= {"parts": parts, "commits": dict.fromkeys(parts, "abc-dirty")}
    assert json.loads((finished_run / METRICS).read_text()) == first | both
    asked.clear()
    measuring.main(finished_run.parent, others)
    assert asked == []


def test_each_protocol_gets_the_pictures_in_its_own_order(monkeypatch, finished_run):
    """One rendering for both: from the front up, and along the authors' spiral from 176.4 degrees down."""
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(size=8)
    images = torch.arange(100.0).view(100, 1, 1, 1).expand(-1, 3, 4, 4)  # each shows its azimuth over 3.6
    shown = {}

    def a_lpips(images, net, protocol="closed", device="cpu"):
        shown[net, protocol] = images[:, 0, 0, 0].tolist()
        return 0.5

    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: scene)
    monkeypatch.setattr(measuring, "pictures", lambda *arguments: (images, torch.zeros(100, 8, 8)))
    monkeypatch.setattr(measuring, "load_lpips", lambda net: None)
    monkeypatch.setattr(measuring, "a_lpips", a_lpips)
    measuring.main(finished_run.parent, ("clip", "success"))
    assert shown["vgg", "closed"] == shown["alex", "closed"] == list(range(100))
    assert shown["vgg", "published"] == [*range(49, -1, -1), *range(99, 49, -1)]


def test_a_folder_without_finished_runs_is_refused(tmp_path, finished_run):
    (finished_run / FINISHED).unlink()
    with pytest.raises(RunError, match="has none. Name the parent of run folders"):
        measuring.main(finished_run.parent)
    with pytest.raises(RunError, match=r"with finished runs. \S+/nowhere does not exist. Name the parent"):
        measuring.main(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("skip", "clip", "remedy"),
    [
        ((), str(WEIGHTS / "clip"), f"Add --skip success --clip {CLIP}"),
        ((), CLIP, "Add --skip success."),
        (("success",), str(WEIGHTS / "clip"), f"Add --clip {CLIP}"),
    ],
)
def test_the_menageries_judge_and_clip_are_not_asked_about_other_models(
    monkeypatch, finished_run, skip, clip, remedy
):
    scene = {"prompt": "a cat", "model": "sd15"}, None, None
    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: scene)
    with pytest.raises(RunError, match=remedy):
        measuring.main(finished_run.parent, skip, clip)
    assert not (finished_run / METRICS).exists()


@pytest.mark.parametrize("model", EMBEDDED)
def test_a_clip_out_of_reach_is_refused_before_pictures_are_made(monkeypatch, finished_run, tmp_path, model):
    """Of both embedded models, which the judge knows."""
    scene = {"prompt": "a cat", "model": model}, None, SimpleNamespace(size=8)
    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: scene)
    monkeypatch.setattr(measuring, "pictures", lambda *_: pytest.fail("pictures were made"))
    (tmp_path / "clip").mkdir()
    with pytest.raises(MissingError, match="A CLIP in transformers' format"):
        measuring.main(finished_run.parent, clip=str(tmp_path / "clip"))
    assert not (finished_run / METRICS).exists()


def test_a_backbone_out_of_reach_is_refused_before_pictures_are_made(monkeypatch, finished_run):
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(size=8)
    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: scene)
    monkeypatch.setattr(measuring, "pictures", lambda *_: pytest.fail("pictures were made"))

    def load(net):
        raise BackboneError(f"no {net}")

    monkeypatch.setattr(measuring, "load_lpips", load)
    for part, net in (("a_lpips_alex", "alex"), ("a_lpips_published", "vgg")):
        with pytest.raises(BackboneError, match=f"no {net}"):
            measuring.main(finished_run.parent, tuple({*measuring.PARTS} - {part}))
    assert not (finished_run / METRICS).exists()


def test_the_script_of_the_tables_names_the_same_clip():
    assert f"--clip {CLIP}" in (ROOT / "scripts" / "reproduce_tables.sh").read_text()


def test_the_device_reaches_every_network(monkeypatch, finished_run):
    asked = []
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(size=8)
    monkeypatch.setattr(
        measuring, "load_scene", lambda folder, device: asked.append(("scene", device)) or scene
    )
    monkeypatch.setattr(measuring, "pictures", lambda *_: (torch.zeros(100, 3, 8, 8), torch.zeros(100, 8, 8)))

    def distance(images, net, protocol="closed", device="cpu"):
        asked.append((f"{net} {protocol}", device))
        return 0.5

    def curves(*arguments):
        asked.append(("clip", arguments[-1]))
        raise RunError("far enough")

    monkeypatch.setattr(measuring, "load_lpips", lambda net: None)
    monkeypatch.setattr(measuring, "a_lpips", distance)
    monkeypatch.setattr(measuring, "azimuth_curves", curves)
    monkeypatch.setattr(measuring, "choose_machine", lambda device: SimpleNamespace(device=device))
    with pytest.raises(RunError, match="far enough"):
        measuring.main(finished_run.parent, ("success",), device="cuda")
    assert {device for _, device in asked} == {"cuda"}
    assert {what for what, _ in asked} == {"scene", "vgg closed", "alex closed", "vgg published", "clip"}


class Elsewhere:
    """A network that works on another device: pictures and words must be there, answers come back."""

    def __init__(self):
        self.device, self.seen = "cpu", []

    def to(self, device):
        self.device = device
        return self

    def __call__(self, **tensors):
        self.seen += [t.device.type for t in tensors.values()]
        return SimpleNamespace(image_embeds=torch.ones(2, 4), text_embeds=torch.ones(3, 4))


def test_clip_and_its_inputs_are_moved(monkeypatch):
    """To the meta device, which holds no numbers and stands for any other."""
    tokens = SimpleNamespace(input_ids=torch.ones(3, 5), attention_mask=torch.ones(3, 5))
    pixels = SimpleNamespace(pixel_values=torch.ones(2, 3, 8, 8))
    model = Elsewhere()
    monkeypatch.setattr(
        clip_similarity, "load_clip", lambda name: (model, lambda **_: pixels, lambda *_, **__: tokens)
    )
    table = similarities(torch.zeros(2, 3, 8, 8), ["a", "b", "c"], CLIP, "meta")
    assert (model.device, model.seen, table.shape) == ("meta", ["meta"] * 3, (2, 3))


def test_lpips_and_its_pictures_are_moved(monkeypatch):
    model, seen = Elsewhere(), []

    def distances(network, images):
        seen.append((network.device, images.device.type))
        return torch.ones(len(images) - 1)

    monkeypatch.setattr(lpips_module, "load_lpips", lambda net: model)
    monkeypatch.setattr(lpips_module, "adjacent_distances", distances)
    assert lpips_module.a_lpips(torch.zeros(20, 3, 8, 8), "alex", device="meta") == 1
    assert set(seen) == {("meta", "meta")}
