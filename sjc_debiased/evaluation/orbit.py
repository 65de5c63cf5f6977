"""The pictures that are measured: a finished run's object, seen from all around at one elevation."""

from __future__ import annotations

import torch
from torch import Tensor

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.seeing import decoder_of
from voxnerf.cameras import Camera, orbit, orbit_camera
from voxnerf.field import Field

N_FRAMES = 100
RADIUS = 1.2990
ELEVATION_DEG = 35.26
"""The orbit of D-SDS Sec. 5.2: 100 uniformly spaced azimuths at one elevation. Radius and elevation are those
of the authors' evaluation fork of SJC (height and ground distance frozen at half the way of its spiral)."""

FACE_ELEVATION_DEG = 15.0
"""Where faces are counted: from 35 degrees above, a muzzle hides what lies under it."""

_RGB_RAYS = 4  # along each side of a pixel that no decoder enlarges


def metric_orbit(size: int) -> list[Camera]:
    """Return the 100 cameras of A-LPIPS and CLIP similarity, from the front (azimuth 0) on."""
    return orbit(N_FRAMES, size, ELEVATION_DEG, radius=RADIUS)


def spiral_order() -> list[int]:
    """Return which picture of `metric_orbit` is frame 0, 1, ... 99 of the authors' evaluation.

    Their path is one turn of SJC's spiral, kept at one height: frame i stands at theta = 3.6 (i + 1) degrees,
    which is azimuth 180 - theta. It begins beside the back, at 176.4 degrees, and goes down.
    """
    return [(N_FRAMES // 2 - 1 - i) % N_FRAMES for i in range(N_FRAMES)]


@torch.no_grad()
def pictures(field: Field, denoiser: Denoiser, cameras: list[Camera]) -> tuple[Tensor, Tensor]:
    """Return RGB images in [-1, 1], float32 [n, 3, h, w] on the CPU, and opacities [n, h, w].

    One ray per latent pixel, as in training, decoded by the model's own decoder; a scene of RGB has
    4 x 4 rays there.
    """
    decode = decoder_of(field, denoiser)
    images, opacities = [], []
    for camera in cameras:
        seen = field.render(camera.resized(_RGB_RAYS) if field.rgb else camera)
        images.append(decode(seen.latent).cpu())
        opacities.append(seen.opacity.cpu())
    return torch.cat(images), torch.stack(opacities)


@torch.no_grad()
def face_pictures(field: Field, denoiser: Denoiser, n: int = 72) -> Tensor:
    """Return the pictures in which faces are counted: RGB in [-1, 1], float32 [n, 3, h, w], on the CPU.

    SJC's radius, a low elevation, `n` azimuths from the front on. The object stands before a plain wall, its
    background's mean: what is painted there is no part of it and was taken for faces.
    """
    alone = field.before_plain_wall()
    size = denoiser.size
    cameras = [orbit_camera(360.0 * i / n, FACE_ELEVATION_DEG, size, size) for i in range(n)]
    return pictures(alone, denoiser, cameras)[0]
