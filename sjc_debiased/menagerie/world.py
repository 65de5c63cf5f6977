"""The world: exact pictures of creatures. Rays against ellipsoids, nearest hit, soft light from above."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from sjc_debiased.menagerie.creatures import Creature, Part, build
from voxnerf.cameras import Camera, orbit_camera

SIZE = 256  # pixels of a photo


@dataclass(frozen=True)
class Photo:
    """Hold a picture and what is true of it.

    Attributes:
        image_u8: uint8 [size, size, 3].
        coverage: share of the pixels that show the creature.
        face_share: share of the pixels that show eyes, nose or mouth.
    """

    image_u8: np.ndarray
    coverage: float
    face_share: float


def photograph(
    parts: list[Part],
    camera: Camera,
    rng: np.random.Generator,
    supersample: int = 2,
) -> Photo:
    """Take the picture of a creature before a pale backdrop of two tones drawn from `rng`."""
    fine = camera.resized(supersample)
    height, width = fine.height, fine.width
    light = np.array([rng.normal(0, 0.25), 1.0, rng.normal(0, 0.25)])
    light /= np.linalg.norm(light)
    image = _backdrop(height, width, rng)
    nearest = np.full((height, width), np.inf)
    facial = np.zeros((height, width), dtype=bool)
    eye, axes = camera.c2w[:3, 3], camera.c2w[:3, :3]
    focal, cx, cy = fine.intrinsics[0, 0], -fine.intrinsics[0, 2], -fine.intrinsics[1, 2]
    for part in parts:
        x, y, z = axes.T @ (part.center - eye)
        reach = focal * part.radii.max() / (-z - part.radii.max()) + 1
        column, row = cx - focal * x / z, cy + focal * y / z
        c0, c1 = max(0, int(column - reach)), min(width, int(column + reach) + 2)
        r0, r1 = max(0, int(row - reach)), min(height, int(row + reach) + 2)
        if c0 >= c1 or r0 >= r1:
            continue
        v, u = np.mgrid[r0:r1, c0:c1]
        directions = _directions(fine, u, v)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        dist, normals = _hit(part, eye, directions)
        seen = dist < nearest[r0:r1, c0:c1]
        n = normals[seen]
        glow = 0.62 + 0.30 * np.maximum(n @ light, 0) + 0.17 * np.abs((n * directions[seen]).sum(-1))
        image[r0:r1, c0:c1][seen] = np.minimum(np.asarray(part.color) * glow[:, None], 1.0)
        nearest[r0:r1, c0:c1][seen] = dist[seen]
        facial[r0:r1, c0:c1][seen] = part.facial
    small = image.reshape(camera.height, supersample, camera.width, supersample, 3).mean((1, 3))
    return Photo(
        (small * 255 + 0.5).astype(np.uint8),
        float(np.isfinite(nearest).mean()),
        float(facial.mean()),
    )


def coverage_map(parts: list[Part], camera: Camera) -> np.ndarray:
    """Return which share of each pixel shows one of the parts, float64 [height, width] in [0, 1]."""
    fine = camera.resized(2)
    v, u = np.mgrid[: fine.height, : fine.width]
    directions = _directions(fine, u, v)
    seen = np.any([np.isfinite(_hit(part, camera.c2w[:3, 3], directions)[0]) for part in parts], axis=0)
    return seen.reshape(camera.height, 2, camera.width, 2).mean(axis=(1, 3))


def _directions(camera: Camera, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return where the rays of pixels u, v [...] go, [..., 3], of one unit along the camera's axis."""
    focal, cx, cy = camera.intrinsics[0, 0], -camera.intrinsics[0, 2], -camera.intrinsics[1, 2]
    return np.stack([(u - cx) / focal, (cy - v) / focal, -np.ones(u.shape)], -1) @ camera.c2w[:3, :3].T


def portrait(creature: Creature, azimuth_deg: float, elevation_deg: float, seed: int) -> Photo:
    """Take one photo at 55 degrees field of view, for tables and contact sheets."""
    camera = orbit_camera(azimuth_deg, elevation_deg, SIZE, SIZE, fov_deg=55.0)
    return photograph(build(creature), camera, np.random.default_rng(seed))


def _hit(part: Part, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distance (inf for a miss) and outward normal of the first hit on an ellipsoid."""
    o = part.rotation.T @ (eye - part.center) / part.radii
    d = directions @ part.rotation / part.radii
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
    root = b * b - a * c
    dist = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    point = o + np.where(np.isfinite(dist), dist, 0)[..., None] * d
    normal = (point / part.radii) @ part.rotation.T
    return dist, normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def _backdrop(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    hue, value = rng.random(), rng.uniform(0.66, 0.84)
    saturation = rng.uniform(0.05, 0.22)
    top = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    bottom = np.array(colorsys.hsv_to_rgb((hue + rng.uniform(-0.06, 0.06)) % 1, saturation, value - 0.12))
    ramp = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)).copy()
