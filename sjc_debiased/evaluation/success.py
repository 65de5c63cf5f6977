"""Success (D-SDS Table 3): has the object exactly one face, in front?

The paper marked as successful the objects "with an accurate number of faces", by eye. On the menagerie a
trained judge sees for every azimuth whether a face is seen. `one_face` is the paper's rule, written down;
`success` asks for more: the face must be where the view prompts want it. Both hinge on how wide one face can
be, so they can be asked for other limits than `MOST_DEG`, and the tables show what that changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRONT_DEG = 30.0
BACK_DEG = 45.0
MIN_GAP_DEG = 20.0
MOST_DEG = 240.0
"""From how much of the circle one face can be seen. A flat face shows over 180 degrees, a muzzle that stands
out over somewhat more; what shows over more than this is taken for faces that run into each other."""
_SEEN = 0.5


@dataclass(frozen=True)
class FaceCount:
    """What a turn around an object shows.

    Attributes:
        arcs: number of azimuth arcs over which a face is seen; 1 arc of 360 degrees is no turn away.
        in_front: a face is seen over most of the front, within 30 degrees.
        at_back: a face is seen somewhere at the back, within 45 degrees.
        share: share of the azimuths from which a face is seen.
    """

    arcs: int
    in_front: bool
    at_back: bool
    share: float

    @property
    def no_face(self) -> bool:
        """Return whether no face is seen from anywhere."""
        return self.arcs == 0

    @property
    def one_face(self) -> bool:
        """Return whether there is one face, wherever it looks."""
        return self.one_face_within(MOST_DEG)

    @property
    def success(self) -> bool:
        """Return whether there is one face, over the front and not at the back."""
        return self.success_within(MOST_DEG)

    def one_face_within(self, most_deg: float) -> bool:
        """Return `one_face` where a face over up to `most_deg` degrees is one."""
        return self.arcs == 1 and self.share <= most_deg / 360.0

    def success_within(self, most_deg: float) -> bool:
        """Return `success` where a face over up to `most_deg` degrees is one."""
        return self.one_face_within(most_deg) and self.in_front and not self.at_back


def count_faces(face: np.ndarray) -> FaceCount:
    """Count faces from the judge's probability that one is seen, by azimuth.

    Arcs that are less than 20 degrees apart are one, and an arc of less than 20 degrees is none: a judge
    that wavers for a moment adds no face.

    Args:
        face: float [n] in [0, 1], evenly spaced azimuths from 0 (the front) up.
    """
    n = len(face)
    azimuth = 360.0 * np.arange(n) / n
    turned = np.minimum(azimuth, 360.0 - azimuth)
    least = round(MIN_GAP_DEG / 360.0 * n)
    seen = _without_short_runs(_without_short_runs(face > _SEEN, False, least), True, least)
    arcs = 1 if seen.all() else int((seen & ~np.roll(seen, 1)).sum())
    return FaceCount(
        arcs=arcs,
        in_front=bool(seen[turned <= FRONT_DEG].mean() > 0.5),
        at_back=bool(seen[turned >= 180.0 - BACK_DEG].any()),
        share=float(seen.mean()),
    )


def _without_short_runs(seen: np.ndarray, value: bool, least: int) -> np.ndarray:
    """Return a circular mask in which runs of `value` shorter than `least` are flipped."""
    if (seen == value).all() or not (seen == value).any():
        return seen
    start = int(np.argmax(seen != value))  # begin outside a run, so that none is cut in two
    rolled = np.roll(seen, -start).copy()
    edges = np.flatnonzero(np.diff(rolled.astype(int))) + 1
    for run in np.split(np.arange(len(rolled)), edges):
        if rolled[run[0]] == value and len(run) < least:
            rolled[run] = not value
    return np.roll(rolled, start)
