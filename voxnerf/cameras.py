"""Cameras: the training distributions of SJC and DreamFusion, and orbits.

World: right-handed, y up, the object at the origin with its front towards -x. A camera looks down its
own -z axis, with +x right and +y up. Source: Score Jacobian Chaining (arXiv:2212.00774) and its code; of
DreamFusion (arXiv:2209.14988), threestudio's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from voxnerf.lights import Light

SJC_RADIUS = 1.5
SJC_FOV_DEG = 60.0
SJC_FOV_RANGE_DEG = (40.0, 70.0)
_DREAMFUSION_RADII, _DREAMFUSION_FOVS_DEG = (1.5, 2.0), (40.0, 70.0)
_SHAKEN_EYE, _SHAKEN_TARGET, _SHAKEN_UP = 0.1, 0.2, 0.02  # half a width, and two standard deviations


@dataclass(frozen=True)
class Camera:
    """Hold one pinhole camera.

    Attributes:
        c2w: camera-to-world matrix, float64 [4, 4]; columns are right, up, backward, position.
        intrinsics: float64 [3, 3], for pixel centres at integer coordinates.
        height, width: pixels.
        azimuth_deg: 0 looks at the front, 90 at the left flank (from +z), 180 at the back; in [0, 360).
        elevation_deg: 0 is the horizon, 90 straight above.
        light: what the scene is lit by, if it is a field that can be; None for colors as they are.
    """

    c2w: Float[np.ndarray, "4 4"]
    intrinsics: Float[np.ndarray, "3 3"]
    height: int
    width: int
    azimuth_deg: float
    elevation_deg: float
    light: Light | None = None

    def project(
        self, points: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"]]:
        """Return where points [n, 3] appear, (column, row) [n, 2], and how far ahead they are, [n].

        What is not ahead (<= 0) has no place in the picture; its pixel means nothing.
        """
        column, row, ahead = self.world_to_pixels @ np.concatenate([points.T, np.ones((1, len(points)))])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([column, row], 1) / ahead[:, None], ahead

    @property
    def world_to_pixels(self) -> Float[np.ndarray, "3 4"]:
        """Return the projection [3, 4]: (x, y, z, 1) becomes (column, row, 1) times the distance ahead."""
        return self.intrinsics @ np.linalg.inv(self.c2w)[:3]

    def resized(self, factor: int) -> Camera:
        """Return the camera with `factor` x `factor` rays per pixel, over the same field of view.

        Sub-pixel k of a pixel has its centre at -0.5 + (k + 0.5) / factor from the pixel's own.
        """
        intrinsics = self.intrinsics.copy()
        focal = intrinsics[0, 0] * factor
        size = self.height * factor, self.width * factor
        intrinsics = _intrinsics(focal, *size)
        return replace(self, intrinsics=intrinsics, height=size[0], width=size[1])


def make_camera(
    eye: Float[np.ndarray, "3"],
    fov_deg: float,
    height: int,
    width: int,
    azimuth_deg: float,
    target: Float[np.ndarray, "3"] | tuple[float, ...] = (0.0, 0.0, 0.0),
    up: Float[np.ndarray, "3"] | tuple[float, ...] = (0.0, 1.0, 0.0),
) -> Camera:
    """Return a camera at `eye` ([3], scene units) that looks at `target` with `up` upwards.

    The horizontal field of view `fov_deg` spans `width` pixels; pixels are square. Its elevation is that of
    the direction from the target.
    """
    eye = np.asarray(eye, dtype=np.float64)
    backward = eye - target
    backward /= np.linalg.norm(backward)
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :4] = np.stack([right, np.cross(backward, right), backward, eye], axis=1)
    focal = 0.5 * width / np.tan(np.deg2rad(fov_deg) / 2)
    elevation_deg = float(np.rad2deg(np.arcsin(np.clip(backward[1], -1.0, 1.0))))
    intrinsics = _intrinsics(focal, height, width)
    return Camera(c2w, intrinsics, height, width, float(azimuth_deg % 360.0), elevation_deg)


def orbit_camera(
    azimuth_deg: float,
    elevation_deg: float,
    height: int,
    width: int,
    radius: float = SJC_RADIUS,
    fov_deg: float = SJC_FOV_DEG,
) -> Camera:
    """Return the camera on a sphere of `radius` around the origin.

    eye = radius * (-cos(elevation) cos(azimuth), sin(elevation), cos(elevation) sin(azimuth))
    """
    azimuth, elevation = np.deg2rad([azimuth_deg, elevation_deg])
    eye = radius * np.array(
        [
            -np.cos(elevation) * np.cos(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.sin(azimuth),
        ]
    )
    return make_camera(eye, fov_deg, height, width, azimuth_deg)


def sample_sjc_cameras(
    n: int, size: int, rng: np.random.RandomState, radius: float = SJC_RADIUS
) -> list[Camera]:
    """Draw the `n` training cameras of SJC, all up front.

    azimuth ~ U[0, 360), v ~ U[0, 100] degrees clipped to [0.01, pi - 0.01] radians, polar angle from
    +y = arccos(1 - 2 v / pi), field of view ~ U[40, 70]: 30 % of the views are above 41.81 degrees.

    The published code reads numpy's global state; here the same legacy stream comes in as `rng`, so
    that nothing global is touched. The published field of view comes from Python's own generator; here
    it is drawn from `rng` after the angles.

    Args:
        size: height and width in pixels.
        rng: `numpy.random.RandomState(seed)` repeats the published angles for that seed.
    """
    azimuth_deg = rng.rand(n) * 360.0
    v = np.clip(np.deg2rad(rng.rand(n) * 100.0), 0.01, np.pi - 0.01)
    elevation_deg = 90.0 - np.rad2deg(np.arccos(1.0 - 2.0 * v / np.pi))
    fov_deg = rng.uniform(*SJC_FOV_RANGE_DEG, n)
    return [orbit_camera(a, e, size, size, radius, f) for a, e, f in zip(azimuth_deg, elevation_deg, fov_deg)]


def sample_dreamfusion_camera(
    size: int,
    rng: np.random.Generator,
    elevations_deg: tuple[float, float] = (-10.0, 90.0),
    shaken: float = 1.0,
) -> Camera:
    """Draw one of DreamFusion's training cameras.

    azimuth ~ U[0, 360); elevation for one half of the draws uniform in degrees, for the other uniform on the
    sphere between the two; distance ~ U[1.5, 2], field of view ~ U[40, 70]. Then the camera is shaken: its
    position by U[-0.1, 0.1]^3, what it looks at by 0.2 N(0, 1)^3, its up by 0.02 N(0, 1)^3. Azimuth and
    elevation, from which the view's prompt follows, are those before.

    Args:
        size: height and width in pixels.
        elevations_deg: the lowest and the highest.
        shaken: the share of that shaking.
    """
    azimuth_deg, on_the_sphere = rng.uniform(0, 360), rng.random() < 0.5
    elevation_deg = rng.uniform(*elevations_deg)
    if on_the_sphere:
        elevation_deg = np.rad2deg(np.arcsin(rng.uniform(*np.sin(np.deg2rad(elevations_deg)))))
    radius, fov_deg = rng.uniform(*_DREAMFUSION_RADII), rng.uniform(*_DREAMFUSION_FOVS_DEG)
    steady = orbit_camera(azimuth_deg, elevation_deg, size, size, radius)
    eye = steady.c2w[:3, 3] + shaken * rng.uniform(-_SHAKEN_EYE, _SHAKEN_EYE, 3)
    target = shaken * _SHAKEN_TARGET * rng.standard_normal(3)
    up = shaken * _SHAKEN_UP * rng.standard_normal(3)
    camera = make_camera(eye, fov_deg, size, size, azimuth_deg, target, up + [0.0, 1.0, 0.0])
    return replace(camera, elevation_deg=float(elevation_deg))


def orbit(n: int, size: int, elevation_deg: float, **lens: float) -> list[Camera]:
    """Return `n` cameras at one elevation, evenly spaced in azimuth from 0 (the front) up.

    `lens` is `radius` and `fov_deg` of `orbit_camera`.
    """
    return [orbit_camera(360.0 * i / n, elevation_deg, size, size, **lens) for i in range(n)]


def _intrinsics(focal: float, height: int, width: int) -> np.ndarray:
    return np.array(
        [
            [focal, 0.0, -(width / 2 - 0.5)],
            [0.0, -focal, -(height / 2 - 0.5)],
            [0.0, 0.0, -1.0],
        ]
    )
