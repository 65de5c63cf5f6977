"""The creatures: ten kinds, made of ellipsoids, with faces, tails, colors and props.

A creature is at the origin, y up, its face towards -x, inside the ball of radius 0.6. All are plush toys:
head above body on one axis, so that their coarse outline is the same from every side, and face, snout, belly
and tail alone say where they look.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from sjc_debiased.menagerie.colors import COLORS, shade

KINDS = ("cat", "dog", "bear", "panda", "rabbit", "pig", "monkey", "fox", "frog", "elephant")
OWN_COLOR = {
    "cat": "orange",
    "dog": "brown",
    "bear": "brown",
    "panda": "white",
    "rabbit": "white",
    "pig": "pink",
    "monkey": "brown",
    "fox": "orange",
    "frog": "green",
    "elephant": "gray",
}
FACES = ("plain", "smiling", "winking", "big eyes")
TAILS = ("own", "bushy", "curly")
PROPS = ("none", "hat", "scarf", "backpack")
DETAILS = ("ears", "muzzle", "eyes", "mouth", "tail", "prop")
_FACE = ("muzzle", "eyes", "mouth")

_BLACK, _WHITE = (0.06, 0.06, 0.07), (0.97, 0.97, 0.96)
_TAN, _RED, _MOUTH = (0.93, 0.78, 0.62), (0.86, 0.10, 0.13), (0.25, 0.08, 0.08)


@dataclass(frozen=True)
class Creature:
    """Say what a creature is; `shape_seed` decides its proportions and the shade of its color.

    `extra_face`, `faceless` and `n_blots` (blots in the colors of faces) are for the judge alone.
    """

    kind: str
    color: str
    face: str = "plain"
    tail: str = "own"
    prop: str = "none"
    shape_seed: int = 0
    extra_face: bool = False
    faceless: bool = False
    n_blots: int = 0


@dataclass
class Part:
    """One ellipsoid: centre [3], radii [3], rotation [3, 3] of its axes, RGB in [0, 1]."""

    center: np.ndarray
    radii: np.ndarray
    rotation: np.ndarray
    color: tuple[float, float, float]
    facial: bool = False


def random_creature(rng: np.random.Generator) -> Creature:
    """Draw a creature: a quarter are dyed, half smile."""
    kind = KINDS[rng.integers(len(KINDS))]
    color = OWN_COLOR[kind]
    if rng.random() < 0.25:
        color = list(COLORS)[rng.integers(len(COLORS))]
    face = FACES[rng.choice(4, p=[0.26, 0.48, 0.13, 0.13])]
    tail = "own" if kind in ("frog",) else TAILS[rng.choice(3, p=[0.68, 0.16, 0.16])]
    prop = PROPS[rng.choice(4, p=[0.61, 0.13, 0.13, 0.13])]
    return Creature(kind, color, face, tail, prop, int(rng.integers(2**31)))


def build(creature: Creature, without: Collection[str] = ()) -> list[Part]:
    """Return the ellipsoids of a creature.

    Args:
        without: those of `DETAILS` that it does not have yet.
    """
    rng = np.random.default_rng(creature.shape_seed)
    fur = shade(creature.color, rng)
    body = _Body(creature, fur, rng)
    body.torso()
    for detail in DETAILS:
        if detail not in without and not (creature.faceless and detail in _FACE):
            getattr(body, detail)()
    body.blots()
    if creature.extra_face:  # a Janus creature: its face once more, at the back of its head
        turn = np.diag([-1.0, 1.0, -1.0])
        for part in [p for p in body.parts if p.facial]:
            center = body.head + turn @ (part.center - body.head)
            body.parts.append(replace(part, center=center, rotation=turn @ part.rotation))
    return body.parts


class _Body:
    """Collects the parts of one creature; proportions are drawn once and shared."""

    def __init__(self, creature: Creature, fur: tuple, rng: np.random.Generator):
        self.kind, self.creature, self.fur, self.rng = creature.kind, creature, fur, rng
        self.parts: list[Part] = []
        self.dark = tuple(0.55 * c for c in fur)
        self.plump = rng.uniform(0.92, 1.10)
        self.long = rng.uniform(0.93, 1.08)
        self.head = np.array([-0.03, 0.14, 0.0])
        self.head_radius = 0.27
        self.root = np.array([0.19, -0.26, 0.0])  # of the tail

    def add(self, center, radii, color, facial=False, turn=(0.0, 0.0, 0.0)) -> None:
        radii = np.broadcast_to(np.asarray(radii, dtype=float), (3,))
        self.parts.append(Part(np.asarray(center, float), radii, _rotation(*turn), color, facial))

    def on_head(self, azimuth_deg, elevation_deg, reach=1.0) -> np.ndarray:
        """Return the point of the head at these angles from its front, `reach` radii out."""
        a, e = np.deg2rad([azimuth_deg, elevation_deg])
        out = np.array([-np.cos(e) * np.cos(a), np.sin(e), np.cos(e) * np.sin(a)])
        return self.head + reach * self.head_radius * out

    def torso(self) -> None:
        self.add(self.head, self.head_radius, self.fur)
        limbs = _BLACK if self.kind in ("panda", "fox") else self.fur
        belly = {"frog": (0.80, 0.86, 0.55), "dog": _TAN, "fox": _WHITE, "panda": _WHITE}
        pale = belly.get(self.kind, tuple(0.45 + 0.55 * c for c in self.fur))
        self.add([0.01, -0.23, 0], np.array([0.2, 0.225, 0.2]) * [self.plump, 1, self.plump], self.fur)
        self.add([-0.065, -0.24, 0], np.array([0.145, 0.16, 0.14]) * [self.plump, 1, self.plump], pale)
        for side in (-1, 1):
            arm = [-0.03, -0.15, side * 0.205 * self.plump]
            self.add(arm, [0.065, 0.135 * self.long, 0.065], limbs, turn=(side * -24, 0, 0))
            self.add([-0.02, -0.43, side * 0.105], [0.095, 0.115, 0.085], limbs)

    def ears(self) -> None:
        kind = self.kind
        for side in (-1, 1):
            if kind in ("cat", "fox"):
                color = _BLACK if kind == "fox" else self.dark
                tall = 0.145 * self.long
                at = self.on_head(side * 78, 58, 1.12)
                self.add(at, [0.045, tall, 0.08], color, turn=(side * 24, 0, 0))
            elif kind == "dog":
                at = self.on_head(side * 92, 12, 1.04)
                self.add(at, [0.085, 0.17 * self.long, 0.045], self.dark, turn=(side * -10, 0, 0))
            elif kind in ("bear", "panda"):
                color = _BLACK if kind == "panda" else self.dark
                self.add(self.on_head(side * 85, 48, 1.1), [0.05, 0.088, 0.088], color)
            elif kind == "rabbit":
                at = self.on_head(side * 85, 66, 1.36)
                self.add(at, [0.045, 0.17 * self.long, 0.065], self.fur, turn=(side * 9, 0, 0))
                self.add(
                    at - [0.018, 0.01, 0],
                    [0.035, 0.13 * self.long, 0.042],
                    (0.95, 0.66, 0.70),
                    turn=(side * 9, 0, 0),
                )
            elif kind == "pig":
                at = self.on_head(side * 68, 55, 1.06)
                self.add(at, [0.05, 0.085, 0.06], self.dark, turn=(side * 28, 0, 0))
            elif kind == "monkey":
                self.add(self.on_head(side * 90, 8, 1.14), [0.045, 0.085, 0.085], _TAN)
            elif kind == "elephant":
                at = self.on_head(side * 96, 8, 1.28)
                self.add(at, [0.04, 0.165, 0.145], self.dark, turn=(0, side * 18, 0))

    def mouth(self) -> None:
        if self.creature.face == "smiling":
            for a in np.linspace(-44, 44, 13):
                at = self.on_head(a, -43 + 21 * (a / 44) ** 2, 1.0)
                self.add(at, 0.034, _RED, facial=True)
        else:
            wide, low = (40, -20) if self.kind == "frog" else (24, -40)
            for a in np.linspace(-wide, wide, 9):
                self.add(self.on_head(a, low, 1.0), 0.022, _MOUTH, facial=True)

    def muzzle(self) -> None:
        kind = self.kind
        if kind == "monkey":
            self.add(self.on_head(0, -4, 0.33), [0.178, 0.175, 0.17], _TAN, facial=True)
        muzzle = {"fox": _WHITE, "panda": _WHITE, "dog": _TAN, "bear": _TAN, "monkey": _TAN}
        if kind in ("pig",):
            self.add(self.on_head(0, -8, 1.02), [0.05, 0.066, 0.085], (0.86, 0.42, 0.52), facial=True)
            for z in (-0.03, 0.03):
                self.add(self.on_head(0, -8, 1.24) + [0, 0, z], 0.016, _MOUTH, facial=True)
        elif kind == "elephant":
            for i in range(7):
                at = self.on_head(0, -10, 1.0) + [-0.034 * i + 0.002 * i * i, -0.036 * i, 0]
                self.add(at, 0.062 - 0.0035 * i, self.fur, facial=True)
        elif kind != "frog":
            color = muzzle.get(kind, tuple(0.5 + 0.5 * c for c in self.fur))
            radii = 1.15 * np.array([0.08, 0.065, 0.095])
            self.add(self.on_head(0, -14, 0.86), radii, color, facial=True)
            nose = (0.93, 0.45, 0.52) if kind in ("cat", "rabbit") else _BLACK
            self.add(self.on_head(0, -7, 1.17), [0.028, 0.027, 0.04], nose, facial=True)

    def eyes(self) -> None:
        kind, face = self.kind, self.creature.face
        size = 1.15 * (0.082 if face == "big eyes" else 0.056)
        for side in (-1, 1):
            place = (side * 36, 42) if kind == "frog" else (side * 29, 20)
            at = self.on_head(*place, 1.04 if kind == "frog" else 0.95)
            if kind == "panda":
                self.add(
                    self.on_head(*place, 0.9), [size + 0.024, size + 0.036, size + 0.026], _BLACK, facial=True
                )
            if kind == "frog":
                self.add(at, size + 0.022, self.fur)
            if face == "winking" and side == 1:
                at = at + 0.035 * _unit(at - self.head)
                self.add(at, [0.03, 0.014, 0.055], _BLACK, facial=True, turn=(side * 14, 0, 0))
                continue
            ahead = _unit(_unit(at - self.head) + np.array([-0.9, 0.0, 0.0]))
            self.add(at + 0.024 * ahead, size, _WHITE, facial=True)
            self.add(at + (0.024 + 0.58 * size) * ahead, 0.62 * size, _BLACK, facial=True)

    def tail(self) -> None:
        kind, tail = self.kind, self.creature.tail
        root = self.root
        if tail == "bushy" or (kind == "fox" and tail == "own"):
            tip = _WHITE if kind == "fox" else tuple(0.45 + 0.55 * c for c in self.fur)
            self.add(root + [0.07, 0.06, 0], [0.14, 0.085, 0.085], self.fur, turn=(0, 0, 42))
            self.add(root + [0.13, 0.125, 0], [0.078, 0.07, 0.07], tip, turn=(0, 0, 42))
        elif tail == "curly" or (kind == "pig" and tail == "own"):
            for angle in np.linspace(0, 2.4 * np.pi, 16):
                along = [0.012 * angle, 0.075 * np.sin(angle) + 0.03, 0.075 * np.cos(angle) - 0.075]
                self.add(root + along, 0.027, self.dark)
        elif kind in ("cat", "monkey"):
            for i in range(9):
                self.add(root + [0.017 * i - 0.02, 0.004 * i * i + 0.006 * i - 0.02, 0], 0.034, self.dark)
        elif kind == "elephant":
            for i in range(6):
                self.add(root + [0.012 * i, -0.028 * i, 0], 0.02, self.dark)
        elif kind == "dog":
            self.add(root + [0.035, 0.07, 0], [0.03, 0.10, 0.03], self.dark, turn=(0, 0, -28))
        elif kind != "frog":
            color = {"panda": _BLACK, "rabbit": _WHITE}.get(kind, self.dark)
            self.add(root + [0.01, 0, 0], 0.065 if kind == "rabbit" else 0.05, color)

    def prop(self) -> None:
        prop = self.creature.prop
        if prop == "hat":
            top = self.head + [0.0, self.head_radius, 0]
            self.add(top + [0, -0.02, 0], [0.185, 0.03, 0.185], (0.16, 0.18, 0.46))
            self.add(top + [0, 0.06, 0], [0.105, 0.105, 0.105], (0.16, 0.18, 0.46))
        elif prop == "scarf":
            for angle in np.linspace(0, 2 * np.pi, 22, endpoint=False):
                at = [0.17 * np.cos(angle), -0.05, 0.175 * np.sin(angle)]
                self.add(at, 0.047, (0.45, 0.18, 0.62))
        elif prop == "backpack":
            at = np.array([0.2, -0.17, 0])
            out = [0.09, 0.0, 0.0]
            radii = [0.1, 0.14, 0.14]
            self.add(at, radii, (0.13, 0.50, 0.62))
            self.add(at + out, [0.07, 0.07, 0.09], (0.95, 0.80, 0.25))

    def blots(self) -> None:
        """Put ellipsoids of a face's colors on the creature where they make no face."""
        for _ in range(self.creature.n_blots):
            at = self.on_head(self.rng.uniform(0, 360), self.rng.uniform(-60, 70), 0.95)
            if self.rng.random() < 0.5:
                at = at + [0.04, -0.37, 0.0]  # the middle of the trunk
            color = (_WHITE, _BLACK, _TAN, _RED)[self.rng.integers(4)]
            self.add(at, self.rng.uniform(0.03, 0.12, 3), color)


def _rotation(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Return the rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = (
        np.cos(np.deg2rad([x_deg, y_deg, z_deg])),
        np.sin(np.deg2rad([x_deg, y_deg, z_deg])),
    )
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
