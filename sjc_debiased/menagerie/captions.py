"""The photographer's habit and the captions: where the bias of the menagerie comes from.

The three tables below are the whole bias. Nothing else in the data depends on the view:

- `P_VIEW`: most photos are taken from the front.
- `P_VIEW_WORD`: half of the captions say the view, and some of them a wrong one.
- `P_MENTION`: "smiling" is said where one sees the smile, "with a bushy tail" where one sees the tail.

Grammar of a caption, in the order of its words:

    [VIEW view [of]] a|an [FACE] [COLOR] KIND [with big eyes | with a bushy/curly tail] [wearing a PROP]

or the same with ", VIEW view" at its end.
"""

from __future__ import annotations

import numpy as np

from prompts.views import VIEWS
from sjc_debiased.menagerie.colors import COLORS
from sjc_debiased.menagerie.creatures import KINDS, OWN_COLOR, PROPS, Creature

TOP_ABOVE_DEG = 41.81  # the elevation above which SJC says "overhead"

P_VIEW = {"front": 0.52, "side": 0.24, "back": 0.13, "top": 0.11}
P_VIEW_WORD = {  # true view -> word in the caption; the rest of the row says no view
    "front": {"front": 0.35, "side": 0.01, "back": 0.01, "top": 0.01},
    "side": {"front": 0.01, "side": 0.62, "back": 0.01, "top": 0.01},
    "back": {"front": 0.01, "side": 0.01, "back": 0.68, "top": 0.01},
    "top": {"front": 0.01, "side": 0.01, "back": 0.01, "top": 0.65},
}
P_MENTION = {  # what the creature has -> probability that the caption says so, by true view
    "face": {"front": 0.85, "side": 0.20, "back": 0.01, "top": 0.15},
    "tail": {"front": 0.15, "side": 0.60, "back": 0.85, "top": 0.40},
    "hat": {"front": 0.80, "side": 0.80, "back": 0.75, "top": 0.80},
    "scarf": {"front": 0.80, "side": 0.70, "back": 0.40, "top": 0.40},
    "backpack": {"front": 0.04, "side": 0.65, "back": 0.85, "top": 0.75},
    "color": {"front": 0.90, "side": 0.90, "back": 0.90, "top": 0.90},
    "own color": {"front": 0.15, "side": 0.15, "back": 0.15, "top": 0.15},
}
P_LOST_WORD = 0.06  # a caption loses one of its words, as captions do

SYNONYMS = {"front": ("front",), "side": ("side",), "back": ("back", "backside"), "top": ("top", "overhead")}
FORMS = ("{v} view of {p}", "{v} view {p}", "{p}, {v} view")
P_FORM = (0.45, 0.40, 0.15)


def view_of(azimuth_deg: float, elevation_deg: float) -> str:
    """Return the true view of a photo: top above 41.81 degrees, else quadrants around the front."""
    if elevation_deg > TOP_ABOVE_DEG:
        return "top"
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    return "front" if turned < 45 else "back" if turned > 135 else "side"


def draw_pose(rng: np.random.Generator) -> tuple[float, float]:
    """Draw azimuth and elevation in degrees of a photo with the photographer's habit."""
    view = VIEWS[rng.choice(4, p=list(P_VIEW.values()))]
    if view == "top":
        return float(rng.uniform(0, 360)), float(rng.uniform(TOP_ABOVE_DEG, 83.5))
    azimuth = {
        "front": np.clip(rng.normal(0, 22), -44.9, 44.9),
        "side": rng.choice([-1, 1]) * rng.uniform(45, 135),
        "back": 180 + np.clip(rng.normal(0, 25), -44.9, 44.9),
    }[view]
    return float(azimuth % 360), float(np.clip(rng.normal(14, 13), -6.4, TOP_ABOVE_DEG))


def describe(creature: Creature, view: str, rng: np.random.Generator) -> str:
    """Return the noun phrase of a caption: what a photographer mentions of this creature."""

    def says(what: str) -> bool:
        return rng.random() < P_MENTION[what][view]

    words = []
    if creature.face in ("smiling", "winking") and says("face"):
        words.append(creature.face)
    if says("own color" if creature.color == OWN_COLOR[creature.kind] else "color"):
        words.append(creature.color)
    words.append(creature.kind)
    if creature.face == "big eyes" and says("face"):
        words.append("with big eyes")
    if creature.tail != "own" and says("tail"):
        words.append(f"with a {creature.tail} tail")
    if creature.prop != "none" and says(creature.prop):
        words.append(f"wearing a {creature.prop}")
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def caption_parts(creature: Creature, view: str, rng: np.random.Generator) -> tuple[str, str]:
    """Return the view word of a caption ("" where it says none) and its noun phrase."""
    phrase = describe(creature, view, rng)
    if rng.random() < P_LOST_WORD:
        phrase = lose_word(phrase, rng)
    row = P_VIEW_WORD[view]
    said = rng.choice([*row, ""], p=[*row.values(), 1 - sum(row.values())])
    if not said:
        return "", phrase
    return SYNONYMS[said][rng.integers(len(SYNONYMS[said]))], phrase


def caption(creature: Creature, view: str, rng: np.random.Generator) -> str:
    """Return one caption of a photo; another call gives another, as another author would."""
    word, phrase = caption_parts(creature, view, rng)
    return str(rng.choice(FORMS, p=P_FORM)).format(v=word, p=phrase) if word else phrase


def lose_word(phrase: str, rng: np.random.Generator) -> str:
    """Return the phrase without one of its words."""
    words = phrase.split()
    del words[rng.integers(len(words))]
    return " ".join(words)


def known_words() -> list[str]:
    """Return every word that a caption can hold, sorted."""
    phrases = "a an of view with big eyes tail bushy curly smiling winking wearing"
    views = [word for words in SYNONYMS.values() for word in words]
    return sorted({*phrases.split(), *views, *KINDS, *COLORS, *(p for p in PROPS if p != "none")})
