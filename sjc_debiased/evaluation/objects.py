"""Every object's own measurements, in one file: what the tables' rates and intervals are made of."""

from __future__ import annotations

import csv
import io
from operator import attrgetter
from typing import Any

from sjc_debiased.evaluation.collect import Measured
from sjc_debiased.evaluation.tables import faces

OBJECTS = "objects.csv"
_PLAIN = ("a_lpips_vgg", "a_lpips_alex", "a_lpips_vgg_published", "coverage", "sharpness")
_FACE = ("success", "one_face", "at_back", "arcs", "share")
_HEAD = ("prompt", "preset", "seed", "run", "commit", *_PLAIN, "clip_plain", *_FACE)


def objects_csv(runs: list[Measured]) -> str:
    """Return a row for every object as comma-separated values, so that others can take their own statistics.

    `run` is the digest of its options. `success` is one face, in front; `arcs` is the number of faces and
    `share` the part of the circle from which one is seen, in [0, 1] (`success.FaceCount`). What was not
    measured is empty, and so are the faces of an object that has none to count.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEAD, *map(_row, runs)])
    return text.getvalue()


def _row(run: Measured) -> tuple[Any, ...]:
    said: list[Any] = [*(run.metrics.get(name) for name in _PLAIN), run.metrics.get("clip", {}).get("plain")]
    said += [faces(attrgetter(name))(run.metrics) if run.face else None for name in _FACE]
    rounded = (round(v, 6) if isinstance(v, float) else v for v in said)
    cells = (("no", "yes")[v] if isinstance(v, bool) else v for v in rounded)
    return run.prompt, run.preset, run.seed, run.identity, run.commit, *cells
