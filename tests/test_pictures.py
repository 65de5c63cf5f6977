"""What is written of a step, its numbers and its picture; and only a PNG of a sane size is read."""

import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from sjc_debiased.making.logged import measure_step, names_of
from sjc_debiased.making.pictures import (
    contact_sheet,
    read_picture,
    save_preview,
    save_score_magnitude,
    write_png,
)
from sjc_debiased.optimize import Step
from voxnerf.cameras import orbit_camera
from voxnerf.field import Rendering
from voxnerf.snapshot import Snapshot

CAMERA = orbit_camera(0, 15, 2, 3)


def step_of(latent, depth, opacity, direction, clip_value):
    rendering = Rendering(latent, depth, opacity, torch.tensor(0.125))
    return Step(4, CAMERA, torch.tensor(3.0), rendering, direction, clip_value, {"center": torch.tensor(0.5)})


def flat_pictures(grays):
    """Return pictures of 2 x 3 pixels side by side, each of one gray."""
    return np.repeat(np.repeat(np.uint8(grays), 3)[None, :, None], 2, axis=0).repeat(3, axis=2)


def test_the_log_says_what_was_measured():
    random = torch.Generator().manual_seed(0)
    latent, direction = (torch.randn(1, 4, 2, 3, generator=random) for _ in range(2))
    opacity = torch.rand(2, 3, generator=random)
    for clip_value in (1.0, None):
        step = step_of(latent, torch.ones(2, 3), opacity, direction, clip_value)
        values, size = latent.double().numpy(), np.abs(direction.double().numpy())
        expected = {
            "sigma": 3.0,
            "direction_rms": np.sqrt(np.mean(size**2)),
            "direction_p95_abs": np.quantile(size, 0.95),
            "clipped_fraction": np.mean(size > 1) if clip_value else 0.0,
            "latent_mean": values.mean(),
            "latent_std": values.std(ddof=1),
            "opacity_mean": opacity.double().mean().item(),
            "emptiness_loss": 0.125,
            "center_loss": 0.5,
        }
        assert dict(zip(names_of(step), measure_step(step).tolist(), strict=True)) == pytest.approx(expected)


def test_the_panels_of_a_preview_stand_in_their_order(tmp_path):
    """Each is of one color; a direction of 2 in four channels is 4 long, and 2 where it is clipped at 1."""
    depth, opacity = torch.full((2, 3), 11**0.25 - 1), torch.full((2, 3), 0.5)
    step = step_of(torch.zeros(1, 4, 2, 3), depth, opacity, torch.full((1, 4, 2, 3), 2.0), 1.0)
    save_preview(tmp_path / "a.png", step, lambda latent: torch.full((1, 3, 4, 6), -1.0), 8.0)
    picture = read_picture(tmp_path / "a.png")
    assert picture.shape == (4, 5 * 6, 3)
    colors = [(0, 0, 0), (191, 191, 191), (127, 127, 127), (255, 126, 0), (189, 0, 0)]
    for panel, color in zip(np.split(picture, 5, axis=1), colors):
        assert np.abs(panel - np.array(color)).max() <= 1


def test_the_score_magnitude_picture_has_time_in_columns(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        write_png(path, flat_pictures([20 * panel + i for panel in range(5)]))
    save_score_magnitude(tmp_path / "picture.png", paths)
    times = np.array([0, 2, 3, 5, 6, 8, 9, 11])
    rows = [flat_pictures(20 * panel + times) for panel in (0, 3, 4)]
    assert (read_picture(tmp_path / "picture.png") == np.concatenate(rows)).all()


def test_the_contact_sheet_has_the_object_above_and_its_opacity_below():
    turn = [
        Snapshot(CAMERA, flat_pictures([i]), np.ones((2, 3), np.float32), np.full((2, 3), i / 16, np.float32))
        for i in range(16)
    ]
    eighths = np.arange(0, 16, 2)
    expected = [flat_pictures(eighths), flat_pictures(eighths / 16 * 255)]
    assert (contact_sheet(turn) == np.concatenate(expected)).all()


@pytest.mark.parametrize("side", [9000, 60000])
def test_an_image_bomb_is_refused_by_its_header(tmp_path, side):
    """A PNG of a few bytes that claims 81 million, or 3.6 billion, pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="at most 67,108,864 pixels"):
        read_picture(path)


def test_another_format_is_refused_whatever_it_is_called(tmp_path):
    path = tmp_path / "sheet.png"
    iio.imwrite(path, np.zeros((2, 4, 4, 3), np.uint8), extension=".gif")
    with pytest.raises(ValueError, match="is a PNG of at most"):
        read_picture(path)


def test_a_picture_is_read_as_it_was_written(tmp_path):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    write_png(tmp_path / "a.png", picture)
    assert (read_picture(tmp_path / "a.png") == picture).all()
