"""From which sides a measured object shows a face: the judge's answers, as a line of an SVG."""

from __future__ import annotations

from dataclasses import dataclass

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.pages.curves import HEIGHT, WIDTH


@dataclass(frozen=True)
class Faces:
    """What the judge said of a turn around an object.

    Attributes:
        points: of an SVG polyline over azimuths 0 to 360, from no face at the bottom to surely one on top.
        said: the count in words.
    """

    points: str
    said: str


def faces_of(run: RunReader) -> Faces | None:
    """Return where faces were seen, or None where that was not measured.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the measurements are damaged.
    """
    face = (run.metrics or {}).get("face")
    if face is None or "seen" not in face:
        return None
    seen = [float(p) for p in face["seen"]]
    around = [*seen, *seen[:1]]  # 360 degrees is 0 again
    points = " ".join(
        f"{WIDTH * i / (len(around) - 1):.1f},{HEIGHT * (1 - p):.1f}" for i, p in enumerate(around)
    )
    n = int(face["arcs"])
    said = f"{n} face{'' if n == 1 else 's'}, seen from {float(face['share']):.0%} of the azimuths"
    if n:
        where = [
            w for w, there in (("in front", face["in_front"]), ("at the back", face["at_back"])) if there
        ]
        said += f", {' and '.join(where) or 'neither in front nor at the back'}"
    return Faces(points, said)
