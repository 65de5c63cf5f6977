"""Snapshots: rendered views with their decoded pictures, from which a mesh takes its level and colors.

The field's colors are latents; only a decoder turns what is rendered from them into colors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from voxnerf.cameras import Camera, orbit, orbit_camera
from voxnerf.field import BACKGROUND_DIST, Field

TURN_ELEVATION_DEG = 15.0
_TURN_VIEWS = 12
_OTHER_VIEWS = ((-5.0, 6, 30.0), (50.0, 8, 0.0), (80.0, 2, 0.0))  # elevation, number, first azimuth
N_MESH_SNAPSHOTS = _TURN_VIEWS + sum(n for _, n, _ in _OTHER_VIEWS)
_BATCH_PIXELS = 2**14  # of latents in a call of the decoder, which bounds its memory
_LEAST_OPACITY = 1e-3


@dataclass(frozen=True)
class Snapshot:
    """Hold one view: what was rendered, and the picture that the decoder made of it.

    Attributes:
        camera: of the latent's size.
        image_u8: sRGB, uint8 [height, width, 3], any multiple of the camera's size.
        dist: float32 [h, w], of what is opaque, along the ray, scene units; NaN where nothing is.
        opacity: float32 [h, w], in [0, 1]; h and w are any multiple of the camera's.
    """

    camera: Camera
    image_u8: UInt8[np.ndarray, "height width 3"]
    dist: Float[np.ndarray, "h w"]
    opacity: Float[np.ndarray, "h w"]

    @property
    def opacity_of_rays(self) -> Float[np.ndarray, "height width"]:
        """Return the opacity at the camera's own pixels, [height, width]."""
        height, width = self.camera.height, self.camera.width
        factor = self.opacity.shape[0] // height
        return self.opacity.reshape(height, factor, width, factor).mean((1, 3))


def take_snapshots(
    field: Field,
    decode: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n 3 height width"]],
    cameras: Sequence[Camera],
    subpixels: int = 4,
    upscale: int = 1,
) -> Iterator[Snapshot]:
    """Render the views of `cameras` (all of one size) and decode them in batches; yield them in order.

    Args:
        decode: latents [n, c, h, w] -> RGB images in [-1, 1].
        subpixels, upscale: as in `Field.render_fine`.
    """
    batch = max(1, _BATCH_PIXELS // (cameras[0].height * cameras[0].width * upscale**2))
    for start in range(0, len(cameras), batch):
        part = cameras[start : start + batch]
        renderings = [field.render_fine(camera, subpixels, upscale) for camera in part]
        with torch.no_grad():
            images = decode(torch.cat([r.latent for r in renderings]))
        for camera, rendering, image_u8 in zip(part, renderings, to_u8(images)):
            opacity = rendering.opacity.clamp(0, 1)
            dist = (rendering.depth - (1 - opacity) * BACKGROUND_DIST) / opacity
            dist = dist.where(opacity > _LEAST_OPACITY, torch.nan)
            yield Snapshot(camera, image_u8, dist.cpu().numpy(), opacity.cpu().numpy())


def mesh_snapshots(
    field: Field,
    decode: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n 3 height width"]],
    size: int,
    turn: Sequence[Snapshot] = (),
) -> Iterator[Snapshot]:
    """Yield the 28 views that a mesh is made from: a turn of 12 at 15 degrees, and 16 from below and above.

    Args:
        size: pixels of the latent.
        turn: a turn of these 12 that was taken already, or of a multiple of 12.
    """
    others = [
        orbit_camera(first + 360 * i / n, elevation_deg, size, size)
        for elevation_deg, n, first in _OTHER_VIEWS
        for i in range(n)
    ]
    turn = turn[:: len(turn) // _TURN_VIEWS] if turn else ()
    yield from turn or take_snapshots(field, decode, turn_cameras(size), upscale=2)
    yield from take_snapshots(field, decode, others, subpixels=2)


def turn_cameras(size: int, n: int = _TURN_VIEWS) -> list[Camera]:
    """Return `n` cameras around the object, the front first, from 15 degrees above."""
    return orbit(n, size, TURN_ELEVATION_DEG)


def to_u8(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Return images [n, 3, h, w] in [-1, 1] as uint8 [n, h, w, 3]."""
    scaled = (images.clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
