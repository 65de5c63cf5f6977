"""Measuring finished runs: what is left out, what is added later, and what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from sjc_debiased.evaluation import measure as measuring
from sjc_debiased.evaluation.measure import METRICS
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.runs import FINISHED, RunError


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
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(latent_size=8)
    black = torch.zeros(100, 3, 16, 16), torch.zeros(100, 8, 8)
    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: asked.append("run") or scene)
    monkeypatch.setattr(measuring, "pictures", lambda *arguments: black)
    monkeypatch.setattr(
        measuring, "a_lpips", lambda images, net, protocol="closed": asked.append((net, protocol)) or 0.5
    )
    others = ("clip", "success")
    measuring.main(finished_run.parent, ("a_lpips_published", *others))
    assert asked == ["run", ("vgg", "closed"), ("alex", "closed")]
    first = json.loads((finished_run / METRICS).read_text())
    assert first["parts"] == ["a_lpips"]
    assert "a_lpips_vgg_published" not in first
    asked.clear()
    measuring.main(finished_run.parent, others)
    assert asked == ["run", ("vgg", "published")]
    both = {"parts": ["a_lpips", "a_lpips_published"], "a_lpips_vgg_published": 0.5}
    assert json.loads((finished_run / METRICS).read_text()) == first | both
    asked.clear()
    measuring.main(finished_run.parent, others)
    assert asked == []


def test_each_protocol_gets_the_pictures_in_its_own_order(monkeypatch, finished_run):
    """One rendering for both: from the front up, and along the authors' spiral from 176.4 degrees down."""
    scene = {"prompt": "a cat", "model": "menagerie"}, None, SimpleNamespace(latent_size=8)
    images = torch.arange(100.0).view(100, 1, 1, 1).expand(-1, 3, 4, 4)  # each shows its azimuth over 3.6
    shown = {}

    def a_lpips(images, net, protocol="closed"):
        shown[net, protocol] = images[:, 0, 0, 0].tolist()
        return 0.5

    monkeypatch.setattr(measuring, "load_scene", lambda folder, device: scene)
    monkeypatch.setattr(measuring, "pictures", lambda *arguments: (images, torch.zeros(100, 8, 8)))
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
        ((), str(WEIGHTS / "clip"), "Add --skip success --clip openai/clip-vit-base-patch32"),
        ((), "openai/clip-vit-base-patch32", "Add --skip success."),
        (("success",), str(WEIGHTS / "clip"), "Add --clip openai/clip-vit-base-patch32"),
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
