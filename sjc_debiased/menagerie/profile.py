"""The menagerie's own settings for 3D, and why they are what they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sjc_debiased.menagerie.captions import known_words
from sjc_debiased.profiles import Profile

PROFILE = Profile(
    resolution=48,
    half_size=0.6,
    n_steps=900,
    guidance=8.0,
    emptiness_weight=400.0,
    background_lr=1e-3,
    clip_start=0.15,
    clip_end=0.6,
    masked_lm="mlm",
    known_words=tuple(known_words()),
    why={},
)


def write(weights: Path) -> None:
    """Write `profile.json` into a folder of weights."""
    (weights / "profile.json").write_text(json.dumps(asdict(PROFILE), indent=1) + "\n")
