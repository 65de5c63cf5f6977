"""The cameras and lights of all steps."""

from dataclasses import replace

import numpy as np
import pytest

from sjc_debiased.making.viewing import draw_views
from sjc_debiased.settings import Viewing
from voxnerf.cameras import sample_sjc_cameras

SOFT = Viewing("dreamfusion", light="magic3d")


def same(one, other):
    if (one.light is None) != (other.light is None) or not np.array_equal(one.c2w, other.c2w):
        return False
    return one.light is None or np.array_equal(one.light.position, other.light.position)


def test_sjcs_are_the_published_stream_and_unlit():
    cameras = draw_views(Viewing(), 5, 3, 8, seed=4)
    rng = np.random.RandomState(4)
    expected = sample_sjc_cameras(3, 8, rng) + sample_sjc_cameras(3, 8, rng)
    assert all(map(same, cameras, expected[:5]))
    assert len(cameras) == 5


def test_a_step_has_its_view_whatever_the_number_of_steps():
    short, long = draw_views(SOFT, 30, 40, 8, seed=7), draw_views(SOFT, 60, 40, 8, seed=7)
    assert all(map(same, short, long))
    other = draw_views(SOFT, 30, 40, 8, seed=8)
    assert not any(map(same, short, other))


def test_a_run_begins_with_the_albedo_alone():
    """The first 2,001 of 10,000 steps, and the same share of fewer; then three quarters are lit."""
    cameras = draw_views(SOFT, 2100, 10_000, 4, seed=0)
    lit = [camera.light is not None for camera in cameras]
    assert not any(lit[:2001])
    assert 0.6 < np.mean(lit[2001:]) < 0.9
    first = next(
        i
        for i, c in enumerate(draw_views(Viewing("dreamfusion", light="magic3d"), 400, 1000, 4, 0))
        if c.light
    )
    assert 200 < first < 215


def test_without_a_law_nothing_is_lit():
    assert not any(camera.light for camera in draw_views(Viewing("dreamfusion"), 50, 50, 4, seed=0))


@pytest.mark.parametrize("highest", [45.0, 90.0])
def test_cameras_stay_below_the_highest(highest):
    found = [c.elevation_deg for c in draw_views(replace(SOFT, highest_deg=highest), 400, 400, 4, seed=1)]
    assert -10 <= min(found) < -5
    assert highest - 8 < max(found) <= highest
