"""The views of a run: a camera for every step, and the light in which it sees the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxnerf.cameras import Camera, sample_dreamfusion_camera, sample_sjc_cameras
from voxnerf.lights import LightLaw, draw_light

_VIEW = 1  # with (seed, step) it starts the random numbers of a view; those of the guidance have none
_LOWEST_DEG = -10.0  # of DreamFusion's cameras
_ALBEDO_SHARE = 2001 / 10_000  # threestudio's ambient_only_steps, of its steps


@dataclass(frozen=True)
class Viewing:
    """From where, and in which light, the steps of a run see its scene.

    Attributes:
        cameras: the law of `sample_sjc_cameras`, or of `sample_dreamfusion_camera`.
        light: the law of `draw_light`, after the first 20.01 % of the schedule's steps, which show the albedo
            (2,001 of 10,000); None for a scene that is not lit.
        highest_deg: of DreamFusion's cameras: 90 with DeepFloyd IF, 45 with Stable Diffusion.
    """

    cameras: Literal["sjc", "dreamfusion"] = "sjc"
    light: LightLaw | None = None
    highest_deg: float = 90.0

    def draw(self, n_steps: int, schedule_steps: int, size: int, seed: int) -> list[Camera]:
        """Return the camera of every step; more steps change none of the first.

        Args:
            schedule_steps: over which the run's schedules go.
            size: height and width in pixels.
        """
        if self.cameras == "sjc":
            rng, cameras = np.random.RandomState(seed), []
            while len(cameras) < n_steps:  # drawn by schedules, which keeps the first as they are
                cameras += sample_sjc_cameras(schedule_steps, size, rng)
            return cameras[:n_steps]
        return [self._view(step, schedule_steps, size, seed) for step in range(n_steps)]

    def _view(self, step: int, schedule_steps: int, size: int, seed: int) -> Camera:
        rng = np.random.default_rng([seed, step, _VIEW])
        camera = sample_dreamfusion_camera(size, rng, (_LOWEST_DEG, self.highest_deg))
        if self.light is None or step < _ALBEDO_SHARE * schedule_steps:
            return camera
        return replace(camera, light=draw_light(self.light, camera.c2w[:3, 3], rng))
