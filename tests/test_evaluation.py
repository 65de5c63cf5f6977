"""Metrics with known answers, and the way from run folders to tables."""

import json
import math
from dataclasses import asdict

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from sjc_debiased.config import resolve
from sjc_debiased.evaluation import a_lpips as module
from sjc_debiased.evaluation import results
from sjc_debiased.evaluation.a_lpips import a_lpips, clip_preprocessed
from sjc_debiased.evaluation.clip_similarity import AzimuthCurves
from sjc_debiased.evaluation.collect import collect, difference, mean_of, rate_of
from sjc_debiased.evaluation.intervals import bootstrap, wilson
from sjc_debiased.evaluation.measure import METRICS, VERSION, sharpness
from sjc_debiased.evaluation.orbit import face_pictures, metric_orbit, spiral_order
from sjc_debiased.evaluation.success import count_faces
from sjc_debiased.evaluation.tables import ABLATION, guess, table_1, table_3
from sjc_debiased.profiles import Profile
from sjc_debiased.runs import write_json
from tests.options import options
from voxnerf.grid import GridConfig, VoxelGrid

AZIMUTHS = 5.0 * np.arange(72)


def seen(*arcs):
    """Return 72 probabilities that are high over arcs (from, to) in degrees."""
    face = np.full(72, 0.1)
    for start, end in arcs:
        face[((AZIMUTHS - start) % 360) <= (end - start)] = 0.9
    return face


@pytest.mark.parametrize(
    ("arcs", "n", "success"),
    [
        ([(-60, 60)], 1, True),
        ([(-60, 60), (130, 230)], 2, False),  # a second face at the back
        ([(-60, 60), (90, 120)], 2, False),  # and one at the flank
        ([(60, 160)], 1, False),  # one face, but not in front
        ([], 0, False),
        ([(0, 360)], 1, False),  # the same face from everywhere
        ([(-60, 60), (180, 185)], 1, True),  # a judge that wavers for a moment
        ([(-60, -5), (5, 60)], 1, True),
        ([(-50, 150)], 1, False),  # a face that reaches the back
    ],
)
def test_faces_are_counted(arcs, n, success):
    count = count_faces(seen(*arcs))
    assert (count.arcs, count.success) == (n, success)


def test_faces_are_counted_before_a_plain_wall():
    """What is painted on the background of an empty scene does not show, and the scene stays as it was."""

    class Decoder:
        size = 16

        def decode(self, latent):
            return latent[:, :3]

    grid = VoxelGrid(GridConfig(resolution=8), torch.Generator().manual_seed(0))
    with torch.no_grad():
        grid.density.fill_(-1e3)
    before = grid.background.clone()
    seen_from_all_sides = face_pictures(grid, Decoder(), 8)
    wall = before.mean(dim=(2, 3))[:, :3, None, None]
    torch.testing.assert_close(seen_from_all_sides, wall.expand_as(seen_from_all_sides))
    assert torch.equal(grid.background, before)
    assert grid.config.background_mapping == "published"


def test_turning_the_object_turns_the_count_alone():
    face = seen((-60, 60), (130, 200), (230, 250))
    assert {count_faces(np.roll(face, k)).arcs for k in range(72)} == {3}


@pytest.fixture
def random_backbone(monkeypatch):
    """LPIPS with random features instead of ImageNet's, so that no weights are needed."""

    def weights(net):
        import torchvision

        torch.manual_seed(0)
        build = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[net]
        return {f"features.{k}": v for k, v in build(weights=None).features.state_dict().items()}

    monkeypatch.setattr(module, "_backbone", weights)
    load = module.load_lpips
    load.cache_clear()
    yield
    load.cache_clear()


def test_an_orbit_of_identical_images_has_no_a_lpips(random_backbone):
    pytest.importorskip("torchvision")
    images = (
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).expand(5, -1, -1, -1) * 2 - 1
    )
    assert a_lpips(images, "alex") == 0
    assert a_lpips(images, "alex", "published") == 0


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_adjacent_distances_are_those_of_the_lpips_package(random_backbone, net):
    pytest.importorskip("torchvision")
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model = module.load_lpips(net)
    with torch.no_grad():
        expected = model(images[:-1], images[1:]).flatten()
    assert (expected > 0).all()
    torch.testing.assert_close(module.adjacent_distances(model, images), expected)


def test_a_lpips_counts_the_pairs_of_its_protocol(monkeypatch):
    pairs = []

    def distances(model, images):
        a, b = images[:-1], images[1:]
        pairs.extend(zip(a[:, 0, 0, 0].tolist(), b[:, 0, 0, 0].tolist()))
        return (a - b).abs().mean(dim=(1, 2, 3))

    monkeypatch.setattr(module, "load_lpips", lambda net: torch.nn.Identity())
    monkeypatch.setattr(module, "_BATCH", 5)
    monkeypatch.setattr(module, "adjacent_distances", distances)
    monkeypatch.setattr(module, "clip_preprocessed", lambda images: images)
    images = (torch.arange(12.0) / 12).view(12, 1, 1, 1).expand(-1, 3, 2, 2)
    assert a_lpips(images, "vgg") == pytest.approx((11 / 12 + 11 / 12) / 12)
    assert len(pairs) == 12
    pairs.clear()
    a_lpips(images, "vgg", "published")
    order = [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    expected = [(a / 12, b / 12) for a, b in zip(order, order[1:])]
    assert np.allclose(pairs, expected)


def test_clips_preprocessing():
    black = clip_preprocessed(torch.full((1, 3, 32, 32), -1.0))
    assert black.shape == (1, 3, 224, 224)
    assert black[0, 0, 0, 0].item() == pytest.approx(-0.48145466 / 0.26862954)


def test_the_orbit_is_the_papers():
    cameras = metric_orbit(8)
    assert len(cameras) == 100
    eyes = np.array([c.c2w[:3, 3] for c in cameras])
    assert eyes[:, 1] == pytest.approx(np.full(100, 0.75), abs=1e-3)
    assert np.linalg.norm(eyes[:, [0, 2]], axis=1) == pytest.approx(np.full(100, 1.06066), abs=1e-3)
    assert [c.azimuth_deg for c in cameras[:3]] == pytest.approx([0, 3.6, 7.2])


def test_the_published_frames_are_the_authors_spiral():
    """Frame i at theta = 3.6 (i + 1): height 0.75, ground distance 1.06066, x = cos, z = sin."""
    cameras = [metric_orbit(8)[i] for i in spiral_order()]
    assert [c.azimuth_deg for c in cameras[:3]] == pytest.approx([176.4, 172.8, 169.2])
    assert [c.azimuth_deg for c in cameras[48:52]] == pytest.approx([3.6, 0, 356.4, 352.8])
    assert cameras[99].azimuth_deg == pytest.approx(180)
    theta = np.deg2rad(3.6 * np.arange(1, 101))
    eyes = np.stack([1.06066 * np.cos(theta), np.full(100, 0.75), 1.06066 * np.sin(theta)], axis=1)
    np.testing.assert_allclose([c.c2w[:3, 3] for c in cameras], eyes, atol=1e-3)
    names = sorted(f"step_{i}.png" for i in range(100))
    assert names == [f"step_{i}.png" for i in sorted(range(100), key=str)]


def test_the_curve_of_a_face_that_turns_peaks_where_it_looks():
    azimuth = 3.6 * np.arange(100)
    facing = np.cos(np.deg2rad(azimuth))
    right = AzimuthCurves(azimuth, {"front": facing, "side": 1 - np.abs(facing), "back": -facing}, facing)
    assert [right.peak_deg(v) for v in ("front", "side", "back")] == pytest.approx([0, 0, 0])
    assert all(right.margin(v) > 0.5 for v in ("front", "side", "back"))
    turned = AzimuthCurves(azimuth, {"front": np.roll(facing, 25)}, facing)
    assert turned.peak_deg("front") == pytest.approx(90)


def test_sharpness():
    assert sharpness(torch.zeros(1, 3, 4, 4)) == 0
    stripes = torch.tensor([-1.0, 1.0]).repeat(2).expand(1, 3, 4, 4)
    assert sharpness(stripes) == pytest.approx(1.0)


def test_wilson_and_bootstrap():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
    assert all(0 <= end <= 1 for n in range(1, 60) for k in (0, n) for end in wilson(k, n))
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap(values, list(range(400)))
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / math.sqrt(400), rel=0.15)
    grouped = bootstrap(np.repeat(values[:40], 10), [g for g in range(40) for _ in range(10)])
    assert grouped[1] - grouped[0] > 2 * (high - low)


def made_up_run(root, number, prompt, preset, seed, success):
    """Write a finished and measured run with made-up measurements; return its folder."""
    folder = root / f"{number:05d}-{preset}-x-seed{seed}"
    (folder / "previews").mkdir(parents=True)
    resolved = {"prompt": prompt, "preset": preset, "seed": seed, "model": "toy"}
    write_json(folder / "options.json", {"resolved": resolved, "git_commit": "abcdef" * 6})
    curve = list(np.cos(np.deg2rad(3.6 * np.arange(100))))
    metrics = {
        "version": VERSION,
        "parts": ["a_lpips", "a_lpips_published", "clip", "success"],
        "clip_model": "menagerie",
        "coverage": 0.3,
        "sharpness": 0.05,
        "a_lpips_vgg": 0.1 if success else 0.2,
        "face": {
            "arcs": 1 if success else 2,
            "one_face": success,
            "success": success,
            "at_back": not success,
        },
        "clip": {
            "plain": 0.25,
            "similarity": dict.fromkeys(("front", "side", "back"), curve),
            "peak_off_deg": dict.fromkeys(("front", "side", "back"), 3.6),
            "margin": dict.fromkeys(("front", "side", "back"), 0.1),
        },
    }
    write_json(folder / METRICS, metrics)
    image = np.full((64, 512, 3), number * 9, np.uint8)
    for name in ("contact_sheet.png", "score_magnitude.png", "previews/step_000001.png"):
        iio.imwrite(folder / name, image)
    (folder / "turntable.mp4").write_bytes(b"not really a video")
    return folder


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
    assert rate.low == pytest.approx(wilson(6, 6)[0])
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
    assert rows["sjc"]["paper"] == "29.3 %"
    assert rows["dsds"]["one face, in front"].startswith("100 % [61, 100")
    assert rows["dsds − sjc, paired"]["one face, in front"].startswith("+100 %")
    assert "dsds − dsds-preserved, paired" not in rows
    made_up_run(run_root, 12, "a cat", "dsds-preserved", 0, success=False)
    rows = {r[0]: dict(zip(table_3(runs, []).head, r)) for r in table_3(collect(run_root), []).rows}
    removal = rows["dsds − dsds-preserved, paired"]
    assert (removal["objects"], removal["one face, in front"][:6]) == ("1", "+100 %")


def test_results_are_the_same_bytes_again_and_escape_what_they_show(run_root, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        results.main(run_root, out)
    files = [sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file()) for out in outs]
    assert files[0] == files[1]
    assert len(files[0]) >= 12
    assert all((outs[0] / f).read_bytes() == (outs[1] / f).read_bytes() for f in files[0])
    page = (outs[0] / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "abcdefabcdef" in (outs[0] / "tables/table_1.md").read_text()
    for path in (outs[0] / "figures").glob("*.png"):
        with Image.open(path) as picture:
            assert "abcdefabcdef" in picture.text["Description"], path
    assert "abcdefabcdef" in (outs[0] / "figures/README.md").read_text()


def test_clips_guess():
    azimuth = np.deg2rad(3.6 * np.arange(100))
    front, level = list(np.cos(azimuth)), [0.3] * 100
    one_face = {"clip": {"similarity": {"front": front, "side": level, "back": level}}}
    two_faces = {"clip": {"similarity": {"front": list(np.cos(2 * azimuth)), "side": level, "back": level}}}
    assert [guess(one_face), guess(two_faces), guess({})] == [True, False, None]


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
        with pytest.raises(ValueError, match="differ in lr"):
            collect(tmp_path)
    else:
        assert len(collect(tmp_path)) == 1


def test_every_preset_can_be_compared_with_every_other(tmp_path):
    for number, preset in enumerate(ABLATION):
        folder = made_up_run(tmp_path, number, "a cat", preset, 0, success=True)
        given = options(prompt=("a cat",), preset=preset)
        (run,) = resolve(given, Profile(), "sd15", "revision")
        write_json(folder / "options.json", {"resolved": asdict(run)})
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
        written = {k: v for k, v in asdict(run).items() if k not in gone}
        write_json(folder / "options.json", {"resolved": written})
    assert {r.preset for r in collect(tmp_path)} == {"sjc", preset}


def test_metrics_of_an_older_version_are_measured_again(run_root):
    path = next(run_root.iterdir()) / METRICS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    assert len(collect(run_root)) == 11
