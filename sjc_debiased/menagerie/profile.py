"""The menagerie's own settings for 3D, and why they are what they are."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from sjc_debiased.menagerie.captions import known_words
from sjc_debiased.options.profiles import Profile

PROFILE = Profile(
    resolution=48,
    half_size=0.6,
    n_steps=800,
    guidance=1.0,
    timesteps=("50", "0:700,400:700,800:350"),
    emptiness_weight=0.4,
    emptiness_multiplier=5.0,
    lr=0.15,
    background_lr=0.03,
    lr_end=0.1,
    background="seamless",
    start="balls",
    color_scale=0.05,
    color_mean=(0.400, 0.051, -0.066, 0.274),
    background_mean=(0.332, -0.784, 0.509, 0.647),
    denoised_range=(-3.0, -2.7, -3.8, -4.7, 3.5, 4.3, 1.9, 2.8),
    textureless=0.0,
    least_ambient=0.65,
    clip_start=0.3,
    clip_end=1.2,
    front_half_deg=45.0,
    masked_lm="mlm",
    known_words=tuple(known_words()),
    why={
        "resolution": "32x32 latents see about 32 voxels across an object; more would not be resolved",
        "half_size": "every creature of the world fits into this box; SJC's box of 1.0 would be mostly empty",
        "n_steps": "45 seconds on two CPU cores",
        "guidance": "guidance takes faces away, even from a true frog; without it the model finishes what it "
        "is shown, and is asked once a step (docs/menagerie_3d.md, 21 and 22)",
        "timesteps": "below 50 what is gray stays fog; without those up to 100 dogs and monkeys lose their "
        "eyes (docs/menagerie_3d.md, 18); draws of high noise find the shape and take faint faces off it, so "
        "they end halfway (25)",
        "emptiness_weight": "in proportion to guidance, as the score is; so small that 0.3 and 0.6 give "
        "the same objects (docs/menagerie_3d.md, 22)",
        "emptiness_multiplier": "at 20 thin parts vanish",
        "lr": "SJC walks 0.05 x 10,000 steps; over so few, three times as fast",
        "background_lr": "fast enough to hold the backdrop, which else is painted on the walls of the grid: "
        "fog, blur, and a mesh that is a crate (docs/menagerie_3d.md, 12)",
        "lr_end": "the last steps then draw what the first ones found, and halos fade",
        "background": "a backdrop goes around without a seam",
        "start": "a head on a body, from which the model has learned to go on (docs/menagerie_3d.md, 14)",
        "color_scale": "noise in the colors is taken for fur",
        "color_mean": "the encoded gray (150, 142, 132), the mean of the creatures",
        "background_mean": "the encoded gray (172, 170, 164), the mean of the backdrops; before a paler one "
        "white creatures are fog (docs/menagerie_3d.md, 16)",
        "denoised_range": "the 0.1 % and 99.9 % quantiles of the latents of 60 photographs: guidance goes on "
        "to white that is whiter than white, and glows (docs/menagerie_3d.md, 18)",
        "textureless": "its creatures have their colors: what is white clay is dissolved into fog "
        "(docs/frameworks.md)",
        "least_ambient": "about the light of its photographs; in a harder one a brown dog is fog",
        "clip_start": "a quarter of clip_end, as in the paper",
        "clip_end": "between the 95 % and the 99 % quantile of |direction| over the first half of unclipped "
        "runs, 0.85 and 2: at the one faint faces go, at the other some come back behind "
        "(docs/menagerie_3d.md, 22)",
        "front_half_deg": "the captions that it learned from say front up to 45 degrees; with the paper's "
        "22.5 the right face is often lost (docs/menagerie_3d.md, 7 to 9)",
    },
)

PIXELS = replace(
    PROFILE,
    n_steps=1600,
    timesteps=("134", "812"),
    shaken=0.0,
    lit={"highest_deg": 45.0, "background_lr": 0.03},
    color_mean=(0.176, 0.114, 0.035),
    background_mean=(0.349, 0.333, 0.286),
    denoised_range=(-1.0, -1.0, -1.0, 1.0, 1.0, 1.0),
    clip_start=0.07,
    clip_end=0.28,
    noise_table="cosine",
    masked_lm="../mlm",
    why=PROFILE.why
    | {
        "resolution": "the latent model's; a picture of 64 pixels has about 64 across an object",
        "n_steps": "after 800 faces in a lamp's light are faint",
        "shaken": "it has seen creatures in the middle of the picture: from shaken cameras there is no face",
        "lit": "its photos are mostly from below 45 degrees, and from above a cat becomes a column; a "
        "background as slow as DreamFusion's is painted on the floor of the grid",
        "timesteps": "the noise levels of the latent model's 50 to 700; that they fall later was not tried",
        "emptiness_weight": "the latent model's",
        "color_mean": "the gray (150, 142, 132), the mean of the creatures",
        "background_mean": "the gray (172, 170, 164), the mean of the backdrops",
        "denoised_range": "colors end there",
        "clip_start": "a quarter of clip_end, as in the paper",
        "clip_end": "1.5 times the 95 % quantile of |direction| over the first half of two unclipped runs, "
        "0.18, as the latent model's; not tuned",
        "noise_table": "that of its scheduler, as of IF's",
    },
)
"""The pixel model's. The world is the same, and so is the way to it; where it says so, nothing was tuned."""


def write(weights: Path, profile: Profile = PROFILE) -> None:
    """Write `profile.json` into a folder of weights: what differs from a profile's defaults."""
    usual = asdict(Profile())
    own = {name: value for name, value in asdict(profile).items() if value != usual[name]}
    (weights / "profile.json").write_text(json.dumps(own, indent=1) + "\n")
