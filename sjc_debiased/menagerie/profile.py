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
    guidance=20.0,
    emptiness_weight=200.0,
    background_lr=1e-4,
    clip_start=0.4,
    clip_end=1.6,
    masked_lm="mlm",
    known_words=tuple(known_words()),
    why={
        "resolution": "32x32 latents see about 32 voxels across an object; more would not be resolved",
        "half_size": "every creature of the world fits into this box; SJC's box of 1.0 would be mostly empty",
        "n_steps": "one to two minutes on two CPU cores; the shape is there after half of them",
        "guidance": "at 8 the object stays a blob, 30 is no better than 20 (one prompt, one seed each)",
        "emptiness_weight": "weighed against scores that are smaller than Stable Diffusion's",
        "background_lr": "SJC's own",
        "clip_start": "a quarter of clip_end, as in the paper",
        "clip_end": "the 95 % quantile of |direction| over the first half of an unclipped run (1.6)",
    },
)


def write(weights: Path) -> None:
    """Write `profile.json` into a folder of weights."""
    (weights / "profile.json").write_text(json.dumps(asdict(PROFILE), indent=1) + "\n")
