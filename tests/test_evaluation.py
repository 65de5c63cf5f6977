"""Metrics with known answers."""

import numpy as np
import pytest
import torch

from sjc_debiased.evaluation import a_lpips as module
from sjc_debiased.evaluation.a_lpips import a_lpips, clip_preprocessed
from sjc_debiased.evaluation.clip_similarity import AzimuthCurves
from sjc_debiased.evaluation.measure import sharpness
from sjc_debiased.evaluation.orbit import face_pictures, metric_orbit, spiral_order
from sjc_debiased.evaluation.success import count_faces
from sjc_debiased.evaluation.tables import guess
from voxnerf.grid import GridConfig, VoxelGrid
from voxnerf.snapshot import to_u8

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


def test_how_wide_one_face_can_be_is_asked():
    count = count_faces(seen((-100, 100)))  # 205 degrees
    assert [count.one_face_within(deg) for deg in (180, 204, 206)] == [False, False, True]
    assert count.one_face
    assert not count.no_face
    in_front = count_faces(seen((-110, 110)))
    assert (in_front.success_within(300), in_front.success_within(180)) == (True, False)
    assert not count_faces(seen((60, 160))).success_within(300)
    assert count_faces(seen()).no_face


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
    """As transformers does it, but for a byte here and there that it rounds the other way."""
    pytest.importorskip("torchvision")
    from transformers import CLIPImageProcessor

    noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = CLIPImageProcessor()(images=[*to_u8(noise)], return_tensors="pt").pixel_values
    assert expected.shape == (2, 3, 224, 224)
    assert (clip_preprocessed(noise) - expected).abs().mean() < 3e-4


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


def test_the_curve_of_a_face_that_turns_peaks_where_it_looks():
    azimuth = 3.6 * np.arange(100)
    facing = np.cos(np.deg2rad(azimuth))
    right = AzimuthCurves(azimuth, {"front": facing, "side": 1 - np.abs(facing), "back": -facing}, facing)
    assert [right.peak_deg(v) for v in ("front", "side", "back")] == pytest.approx([0, 0, 0])
    assert all(right.margin(v) > 0.5 for v in ("front", "side", "back"))
    turned = AzimuthCurves(azimuth, {"front": np.roll(facing, 25)}, facing)
    assert turned.peak_deg("front") == pytest.approx(90)


def test_the_margin_takes_45_degrees_to_either_side():
    azimuth = 3.6 * np.arange(100)
    near = (np.minimum(azimuth, 360 - azimuth) <= 45).astype(float)
    views = {"front": near, "back": np.roll(near, 50), "side": np.roll(near, 25) + np.roll(near, 75)}
    curves = AzimuthCurves(azimuth, views, near)
    assert [curves.margin(view) for view in views] == [1, 1, 1]


def test_sharpness():
    assert sharpness(torch.zeros(1, 3, 4, 4)) == 0
    stripes = torch.tensor([-1.0, 1.0]).repeat(2).expand(1, 3, 4, 4)
    assert sharpness(stripes) == pytest.approx(1.0)


def test_clips_guess():
    azimuth = np.deg2rad(3.6 * np.arange(100))
    front, level = list(np.cos(azimuth)), [0.3] * 100
    one_face = {"clip": {"similarity": {"front": front, "side": level, "back": level}}}
    two_faces = {"clip": {"similarity": {"front": list(np.cos(2 * azimuth)), "side": level, "back": level}}}
    assert [guess(one_face), guess(two_faces), guess({})] == [True, False, None]
