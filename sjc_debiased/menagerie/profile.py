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
    n_steps=1500,
    guidance=50.0,
    emptiness_weight=150.0,
    lr=0.5,
    background_lr=7e-4,
    clip_start=1.0,
    clip_end=4.0,
    front_half_deg=45.0,
    masked_lm="mlm",
    known_words=tuple(known_words()),
    why={
        "resolution": "32x32 latents see about 32 voxels across an object; more would not be resolved",
        "half_size": "every creature of the world fits into this box; SJC's box of 1.0 would be mostly empty",
        "n_steps": "about a minute on two CPU cores",
        "guidance": "at 8 and 20 D-SDS's objects have no side, at 100 colors burn, at 50 a whole animal "
        "stands ('a smiling cat', 'a blue rabbit', one seed each)",
        "emptiness_weight": "at 700 D-SDS's cats are pale and half transparent, at 150 clear ('a smiling "
        "cat', seeds 0 and 2)",
        "lr": "SJC walks 0.05 x 10,000 steps; over 1,500 steps that is 0.33. At 0.05 nothing but an egg came "
        "about, at 0.33 a head, at 0.5 and 0.8 a whole animal ('a smiling cat', dsds, one seed each)",
        "background_lr": "SJC's 1e-4 over 10,000 steps, walked in 1,500",
        "clip_start": "a quarter of clip_end, as in the paper",
        "clip_end": "about the 95 % quantile of |direction| over the first half of unclipped runs (3.6 and "
        "3.8 with D-SDS's prompts)",
        "front_half_deg": "the captions that it learned from say front up to 45 degrees; with the paper's "
        "22.5 the right face is often lost (docs/menagerie_3d.md, 7 to 9)",
    },
)


def write(weights: Path) -> None:
    """Write `profile.json` into a folder of weights."""
    (weights / "profile.json").write_text(json.dumps(asdict(PROFILE), indent=1) + "\n")
