"""The menagerie's own settings for 3D, and why they are what they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sjc_debiased.menagerie.captions import known_words
from sjc_debiased.options.profiles import Profile

PROFILE = Profile(
    resolution=48,
    half_size=0.6,
    n_steps=1500,
    guidance=30.0,
    emptiness_weight=90.0,
    emptiness_multiplier=5.0,
    lr=0.15,
    background_lr=0.03,
    background="seamless",
    start="blob",
    color_scale=0.3,
    clip_start=0.6,
    clip_end=2.4,
    front_half_deg=45.0,
    masked_lm="mlm",
    known_words=tuple(known_words()),
    why={
        "resolution": "32x32 latents see about 32 voxels across an object; more would not be resolved",
        "half_size": "every creature of the world fits into this box; SJC's box of 1.0 would be mostly empty",
        "n_steps": "one to three minutes on two CPU cores",
        "guidance": "with lr 0.15: at 20 faces are pale, at 50 white and pink animals burn; at 30 both stand "
        "(docs/menagerie_3d.md, 10)",
        "emptiness_weight": "in proportion to guidance, as the score is; three per unit keeps objects opaque",
        "lr": "SJC walks 0.05 x 10,000 steps; over 1,500 steps that is 0.33. At 0.5 pale animals grow out of "
        "the grid and lose their faces, at 0.08 fog is left; at 0.15 they stand (docs/menagerie_3d.md, 10)",
        "background_lr": "fast enough to hold the backdrop, which else is painted on the walls of the grid: "
        "fog, blur, and a mesh that is a crate (docs/menagerie_3d.md, 12)",
        "background": "a backdrop goes around without a seam",
        "start": "a blob in the middle: an even fog is taken for a backdrop and stays at the walls",
        "color_scale": "a third of SJC's noise: what is not yet an object looks like a plain backdrop",
        "emptiness_multiplier": "at 20 thin parts vanish",
        "clip_start": "a quarter of clip_end, as in the paper",
        "clip_end": "the 95 % quantile of |direction| over the first half of unclipped runs (2.0 and 2.7 "
        "with D-SDS's prompts, 'a smiling rabbit' and 'a smiling dog')",
        "front_half_deg": "the captions that it learned from say front up to 45 degrees; with the paper's "
        "22.5 the right face is often lost (docs/menagerie_3d.md, 7 to 9)",
    },
)


def write(weights: Path) -> None:
    """Write `profile.json` into a folder of weights."""
    (weights / "profile.json").write_text(json.dumps(asdict(PROFILE), indent=1) + "\n")
