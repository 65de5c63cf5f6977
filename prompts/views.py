"""Views: azimuth and elevation -> front, side, back or top -> the prompt sent for that view."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

VIEWS: tuple[str, ...] = ("front", "side", "back", "top")
VIEW_AZIMUTHS_DEG = {"front": 0.0, "side": 90.0, "back": 180.0}
TOP_ABOVE_DEG = math.degrees(math.asin(2 / 3))  # 41.81; SJC: pre-warp polar angle below 30 degrees


@dataclass(frozen=True)
class ViewScheme:
    """Say which camera angles are which view, and what is put before the prompt for each.

    Attributes:
        front_half_deg: front is azimuth [-front_half_deg, front_half_deg).
        back_half_deg: back is azimuth [180 - back_half_deg, 180 + back_half_deg); side is the rest.
        top_above_deg: above this elevation the view is top, whatever the azimuth.
        prefixes: text before the prompt, by view.
    """

    front_half_deg: float
    back_half_deg: float
    top_above_deg: float
    prefixes: dict[str, str]

    def view(self, azimuth_deg: float, elevation_deg: float) -> str:
        """Return the view of a camera; azimuth 0 is the front, any multiple of 360 may be added."""
        if elevation_deg > self.top_above_deg:
            return "top"
        azimuth = (azimuth_deg + 180.0) % 360.0 - 180.0
        if -self.front_half_deg <= azimuth < self.front_half_deg:
            return "front"
        from_back = (azimuth_deg + 360.0) % 360.0 - 180.0
        if -self.back_half_deg <= from_back < self.back_half_deg:
            return "back"
        return "side"

    def prompt(self, view: str, words: str) -> str:
        """Return the view prompt: the prefix of `view`, a space, and the words."""
        return f"{self.prefixes[view]} {words}"


SJC_VIEWS = ViewScheme(
    front_half_deg=45.0,
    back_half_deg=45.0,
    top_above_deg=TOP_ABOVE_DEG,
    prefixes={
        "front": "front view of",
        "side": "side view of",
        "back": "backside view of",
        "top": "overhead view of",
    },
)
"""SJC's ranges and prefixes: the baseline."""

DSDS_VIEWS = ViewScheme(
    front_half_deg=22.5,
    back_half_deg=45.0,
    top_above_deg=TOP_ABOVE_DEG,
    prefixes={"front": "front view", "side": "side view", "back": "back view", "top": "top view"},
)
"""D-SDS Sec. 4.2 and App. C.3: the front halved to +-22.5 degrees, prefixes without "of"."""

VIEW_SCHEMES = {"sjc": SJC_VIEWS, "dsds": DSDS_VIEWS}


def view_scheme(name: str, front_half_deg: float) -> ViewScheme:
    """Return a scheme of `VIEW_SCHEMES` with another range of the front."""
    return replace(VIEW_SCHEMES[name], front_half_deg=front_half_deg)
