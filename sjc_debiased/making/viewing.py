"""The views of a run: a camera for every step, and the light in which it sees the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sjc_debiased.settings import Viewing
from voxnerf.cameras import Camera, sample_dreamfusion_camera, sample_sjc_cameras
from voxnerf.lights import draw_light

_VIEW = 1  # with (seed, step) it starts the random numbers of a view; those of the guidance have none
_LOWEST_DEG = -10.0  # of DreamFusion's cameras


def draw_views(viewing: Viewing, n_steps: int, schedule_steps: int, size: int, seed: int) -> list[Camera]:
    """Return the camera of every step, with its light if it has one; more steps change none of the first.

    Where there is a law of light, it holds after the schedule's first steps, which show the albedo alone.

    Args:
        schedule_steps: over which the run's schedules go.
        size: height and width in pixels.
    """
    if viewing.cameras == "sjc":
        rng, cameras = np.random.RandomState(seed), []
        while len(cameras) < n_steps:  # drawn by schedules, which keeps the first as they are
            cameras += sample_sjc_cameras(schedule_steps, size, rng)
        return cameras[:n_steps]
    cameras = []
    for step in range(n_steps):
        rng = np.random.default_rng([seed, step, _VIEW])
        camera = sample_dreamfusion_camera(size, rng, (_LOWEST_DEG, viewing.highest_deg), viewing.shaken)
        if viewing.light and step >= viewing.albedo_share * schedule_steps:
            eye, softness = camera.c2w[:3, 3], (viewing.textureless, viewing.least_ambient)
            camera = replace(camera, light=draw_light(viewing.light, eye, rng, *softness))
        cameras.append(camera)
    return cameras
