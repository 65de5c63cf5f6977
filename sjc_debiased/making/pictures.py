"""What one looks at: previews, the contact sheet, the score-magnitude picture, the turntable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sjc_debiased.clipping import clip
from sjc_debiased.denoiser import Denoiser
from sjc_debiased.folder.runs import FIXED_AZIMUTHS, PREVIEW_PANELS, SHEET_VIEWS, atomic
from sjc_debiased.optimize import Step
from sjc_debiased.seeing import decoder_of, looking_size
from voxnerf.field import BACKGROUND_DIST, Field
from voxnerf.snapshot import Snapshot, take_snapshots, to_u8, turn_cameras

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_TURNTABLE_SECONDS = 3
_FIXED_PIXELS = 256
_MAGNITUDE_COLUMNS = 8
_MOST_PIXELS = 2**26
_LEAST_LETTERS = 12  # pixels


def save_preview(path: Path, step: Step, decode: Callable[[Tensor], Tensor], magnitude_max: float) -> None:
    """Write the panels of `PREVIEW_PANELS` side by side.

    Args:
        decode: what the field shows -> RGB images in [-1, 1].
        magnitude_max: the |direction| (L2 over channels) that is drawn brightest.
    """
    image = to_u8(decode(step.rendering.latent))[0]
    height, width = image.shape[:2]
    depth = torch.log1p(step.rendering.depth) / np.log(1 + BACKGROUND_DIST)
    maps = [1 - depth, step.rendering.opacity]
    for direction in (step.direction, clip(step.direction, step.clip_value)):
        maps.append(direction[0].norm(dim=0) / magnitude_max)
    panels = [image]
    for i, values in enumerate(maps):
        small = (values.clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
        big = _repeated(small, height, width)
        panels.append(heat(big) if i >= 2 else np.repeat(big[..., None], 3, axis=2))
    write_png(path, np.concatenate(panels, axis=1))


@torch.no_grad()
def save_fixed_views(path: Path, field: Field, denoiser: Denoiser) -> None:
    """Write the object from `FIXED_AZIMUTHS`, 15 degrees above the horizon, side by side, as a JPEG.

    What it costs is a small part of a preview's share of a run: one ray where a turntable has sixteen, and at
    most 256 pixels a side.
    """
    cameras = turn_cameras(looking_size(field, denoiser), len(FIXED_AZIMUTHS))
    views = take_snapshots(field, decoder_of(field, denoiser), cameras, subpixels=1)
    images = [view.image_u8[:: _every(view.image_u8), :: _every(view.image_u8)] for view in views]
    with atomic(path) as partial:
        iio.imwrite(partial, np.concatenate(images, axis=1), extension=".jpg", quality=90)


def _every(image_u8: np.ndarray) -> int:
    """Return which pixels of an image are written, so that it has at most `_FIXED_PIXELS` a side."""
    return -(-image_u8.shape[0] // _FIXED_PIXELS)


def read_picture(path: Path) -> np.ndarray:
    """Return a PNG of a run folder, uint8 [height, width, 3]; one too large is refused by its header.

    Raises:
        ValueError: it is no PNG, or has more than 2^26 pixels, more than any of ours.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width * picture.height <= _MOST_PIXELS:
                return np.asarray(picture.convert("RGB"))
    except (Image.DecompressionBombError, UnidentifiedImageError):
        pass
    raise ValueError(
        f"a picture of a run is a PNG of at most {_MOST_PIXELS:,} pixels. {path} is not: it was not read. "
        "Make the run again, or take it out of the folder of runs."
    )


def save_score_magnitude(path: Path, previews: list[Path]) -> None:
    """Write the picture of D-SDS Fig. 3 from previews spread over the run.

    Columns run in time; rows are the render, the magnitude of its score, and that after clipping.
    """
    picks = np.linspace(0, len(previews) - 1, min(_MAGNITUDE_COLUMNS, len(previews))).round().astype(int)
    columns = []
    for i in picks:
        panels = np.split(read_picture(previews[i]), len(PREVIEW_PANELS), axis=1)
        columns.append(np.concatenate([panels[0], panels[3], panels[4]], axis=0))
    write_png(path, np.concatenate(columns, axis=1))


def contact_sheet(turn: Sequence[Snapshot]) -> np.ndarray:
    """Return the object from 8 azimuths (0 first, the front), and its opacity below, uint8 [h, w, 3].

    Args:
        turn: a multiple of 8 views around the object.
    """
    views = turn[:: len(turn) // SHEET_VIEWS]
    opacities = []
    for view in views:
        gray = (view.opacity * 255).astype(np.uint8)
        gray = _repeated(gray, *view.image_u8.shape[:2])
        opacities.append(np.repeat(gray[..., None], 3, axis=2))
    images = [view.image_u8 for view in views]
    return np.concatenate([np.concatenate(images, 1), np.concatenate(opacities, 1)], 0)


def turn_of(sheet_u8: np.ndarray) -> np.ndarray:
    """Return the upper half of a `contact_sheet`: the object from 8 azimuths, without its opacity."""
    return sheet_u8[: sheet_u8.shape[0] // 2]


def labelled(image_u8: np.ndarray, text: str) -> np.ndarray:
    """Return a picture with a line of text above it, black on white, uint8 [line + height, width, 3].

    A text that is too long for the picture's width ends in "…".
    """
    from PIL import Image, ImageDraw

    width = image_u8.shape[1]
    size = max(_LEAST_LETTERS, width // 64)
    font, text = _font(size), " ".join(text.split())
    shown, room = text, width - size
    while shown and font.getlength(shown) > room:
        text = text[:-1]
        shown = f"{text.rstrip()}…" if text else ""
    line = Image.new("RGB", (width, 2 * size), "white")
    ImageDraw.Draw(line).text((size // 2, size), shown, fill="black", font=font, anchor="lm")
    return np.concatenate([np.asarray(line), image_u8])


@cache
def _font(size: int) -> FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings: Pillow's own font lacks most letters with accents."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def save_contact_sheet(path: Path, turn: Sequence[Snapshot]) -> None:
    """Write the `contact_sheet` of a turn."""
    write_png(path, contact_sheet(turn))


def save_turntable(path: Path, turn: Sequence[Snapshot]) -> None:
    """Write the views of one turn as an MP4 (H.264) of three seconds, the front first."""
    with atomic(path) as partial:
        ffmpeg: Any = "FFMPEG"  # a plugin by name, which the annotation of `imopen` does not know
        with iio.imopen(partial, "w", plugin=ffmpeg) as video:
            frames, fps = np.stack([view.image_u8 for view in turn]), len(turn) / _TURNTABLE_SECONDS
            video.write(frames, fps=fps, codec="libx264", macro_block_size=2, quality=8)
        check_turntable(partial, len(turn))


def check_turntable(path: Path, n_frames: int) -> None:
    """Refuse a video that is not whole: the encoder does not say when it could not write.

    Raises:
        OSError: it has too few frames, or none that can be read.
    """
    try:
        n_read = sum(1 for _ in iio.imiter(path, plugin="FFMPEG"))
    except (OSError, RuntimeError, StopIteration) as error:
        raise OSError(f"the turntable could not be written: {path} cannot be read back") from error
    if n_read != n_frames:
        raise OSError(f"the turntable could not be written: {path} has {n_read} frames of {n_frames}")


def _repeated(gray_u8: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a picture with its pixels repeated up to a size that is a multiple of its own."""
    return gray_u8.repeat(height // gray_u8.shape[0], 0).repeat(width // gray_u8.shape[1], 1)


def halved(image_u8: np.ndarray) -> np.ndarray:
    """Return a picture at half its size, [h // 2, w // 2, 3]: the means of 2 x 2 pixels, rounded."""
    height, width = image_u8.shape[0] // 2, image_u8.shape[1] // 2
    whole = image_u8[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return whole.mean((1, 3)).round().astype(np.uint8)


def heat(gray_u8: np.ndarray) -> np.ndarray:
    """Return a gray picture as colors from black over red and yellow to white."""
    x = gray_u8[..., None].astype(np.float32) / 255 * 3 - np.arange(3)
    return (x.clip(0, 1) * 255).astype(np.uint8)


def write_png(path: Path, image_u8: np.ndarray, description: str = "") -> None:
    """Write a PNG atomically, with a description in its metadata if there is one."""
    about = PngInfo()
    if description:
        about.add_itxt("Description", description)
    with atomic(path) as partial:
        iio.imwrite(partial, image_u8, extension=".png", pnginfo=about)


def write_jpeg(path: Path, image_u8: np.ndarray, description: str = "") -> None:
    """Write a JPEG for the eye atomically, a tenth of a PNG's bytes, with a description as its comment."""
    with atomic(path) as partial:
        iio.imwrite(partial, image_u8, extension=".jpg", quality=90, comment=description.encode())
