"""Profiles: what a diffusion model needs to be used for 3D, apart from the method.

`--preset sjc` and `--preset dsds` mean the same method on every model; grid, rays, steps, guidance,
emptiness and the scale of its scores belong to the model. A model folder may carry a `profile.json`
with these fields; without one it has Stable Diffusion's, which are SJC's and D-SDS's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from prompts.views import DSDS_VIEWS
from sjc_debiased.foreign import read_json
from sjc_debiased.schedules import TimestepRange


@dataclass(frozen=True)
class Profile:
    """A model's own defaults; each can be overridden on the command line.

    Attributes:
        resolution, half_size: of the voxel grid, voxels and scene units.
        n_steps, guidance: optimisation steps and classifier-free guidance scale.
        emptiness_weight: of the emptiness loss, before its multiplier.
        emptiness_multiplier: its factor in the late part of a run.
        timesteps: (low, high) of what each step draws its noise level from, as texts of `TimestepRange`;
            empty for SJC's.
        lr, background_lr: Adamax step sizes of the grid and of the background texture.
        background: mapping of the background texture (`voxnerf.grid.GridConfig`).
        start, color_scale: the first density and the spread of the first colors, see there too.
        clip_start, clip_end: bounds of dynamic clipping, in units of this model's predicted noise.
        front_half_deg: how far to either side of azimuth 0 D-SDS's front prompts hold, degrees.
        masked_lm: the masked language model for prompt debiasing; relative to the model folder, or a
            hub name.
        known_words: the only words the model was trained on; empty for no limit.
        why: one sentence for each field that is not Stable Diffusion's.
    """

    resolution: int = 100
    half_size: float = 1.0
    n_steps: int = 10_000
    guidance: float = 100.0
    emptiness_weight: float = 10_000.0
    emptiness_multiplier: float = 20.0
    timesteps: tuple[str, ...] = ()
    lr: float = 0.05
    background_lr: float = 1e-4
    background: str = "published"
    start: str = "fog"
    color_scale: float = 1.0
    clip_start: float = 2.0
    clip_end: float = 8.0
    front_half_deg: float = DSDS_VIEWS.front_half_deg
    masked_lm: str = "google-bert/bert-base-uncased"
    known_words: tuple[str, ...] = ()
    why: dict[str, str] = dataclasses.field(default_factory=dict)


STABLE_DIFFUSION = Profile()


def load_profile(model: str) -> Profile:
    """Return the profile that a model folder carries, or Stable Diffusion's.

    Raises:
        ValueError: the folder's `profile.json` is not one.
    """
    path = Path(model) / "profile.json"
    if not path.exists():
        return STABLE_DIFFUSION
    try:
        fields = read_json(path)
        fields["known_words"] = tuple(fields.get("known_words", ()))
        fields["timesteps"] = tuple(map(str, fields.get("timesteps", ())))
        profile = Profile(**fields)
        for name, default in vars(STABLE_DIFFUSION).items():
            kinds = (int, float) if isinstance(default, float) else type(default)
            if not isinstance(getattr(profile, name), kinds):
                raise TypeError(f"{name} is {getattr(profile, name)!r}")
        if not all(isinstance(word, str) for word in profile.known_words):
            raise TypeError("known_words must be words")
        if profile.timesteps:
            TimestepRange.parse(*profile.timesteps)
        return profile
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"a profile.json must hold the fields of sjc_debiased.profiles.Profile. {path} does not "
            f"({error}). Correct it, or remove it to get Stable Diffusion's settings."
        ) from error
