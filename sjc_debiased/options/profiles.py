"""Profiles: what a diffusion model needs to be used for 3D, apart from the method.

`--preset sjc` and `--preset dsds` mean the same method on every model; grid, rays, steps, guidance,
emptiness and the scale of its scores belong to the model. A model folder may carry a `profile.json`
with these fields; what it leaves out, or all without one, is its family's (`models.pipelines`). Stable
Diffusion's are SJC's and D-SDS's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from prompts.views import DSDS_VIEWS
from sjc_debiased.schedules import TimestepRange
from sjc_debiased.settings import GuidanceSettings, Settings, Viewing
from sjc_debiased.untrusted import read_json
from voxnerf.settings import GridConfig

NoiseTable = Literal["linear", "cosine"]
LIT = ("highest_deg", "background_lr")
"""What a profile may name of lit scenes."""


@dataclass(frozen=True)
class Profile:
    """A model's own defaults; each can be overridden on the command line.

    Attributes:
        resolution, half_size: of the voxel grid, voxels and scene units.
        n_steps, guidance: optimisation steps and classifier-free guidance scale.
        guidance_sds: the same of SDS and its frameworks (`forms.guidance_scale`); 0 for `guidance`.
        emptiness_weight: of the emptiness loss, before its multiplier.
        emptiness_multiplier: its factor in the late part of a run.
        timesteps: (low, high) of what each step draws its noise level from, as texts of `TimestepRange`
            for a run of n_steps, and stretched to a longer or shorter one; empty for SJC's.
        lr, background_lr: Adamax step sizes of the grid and of the background texture.
        lr_end: what is left of both at the end.
        background: mapping of the background texture (`voxnerf.settings.GridConfig`).
        start, color_scale: the first density and the spread of the first colors, see there too.
        color_mean, background_mean: the means of these; empty for 0.
        textureless, least_ambient: of the lights of scenes that are lit (`voxnerf.lights.draw_light`).
        shaken: the share of their cameras' shaking (`voxnerf.cameras.sample_dreamfusion_camera`).
        lit: numbers of such scenes in place of a framework's (`options.frameworks`), by their names.
        denoised_range: what the 2D model's answer may be (`clipping.within`); empty for no limit.
        clip_start, clip_end: bounds of dynamic clipping, in units of this model's predicted noise.
        clip_published: they are the paper's, for every form of guidance. If not, they were chosen for the
            direction of PAAS, and other forms' follow from them (`forms.clip_bounds`).
        noise_table: whose noise levels it has, Stable Diffusion's ("linear") or IF's, for the mean of w(t).
        front_half_deg: how far to either side of azimuth 0 D-SDS's front prompts hold, degrees.
        masked_lm: the masked language model for prompt debiasing; relative to the model folder, or a
            hub name.
        known_words: the only words the model was trained on; empty for no limit.
        why: one sentence for each field that is not Stable Diffusion's.
    """

    resolution: int = GridConfig.resolution
    half_size: float = GridConfig.half_size
    n_steps: int = Settings.n_steps
    guidance: float = GuidanceSettings.scale
    guidance_sds: float = 0.0
    emptiness_weight: float = Settings.emptiness_weight
    emptiness_multiplier: float = Settings.emptiness_multiplier
    timesteps: tuple[str, ...] = ()
    lr: float = Settings.lr
    background_lr: float = Settings.background_lr
    lr_end: float = Settings.lr_end
    background: str = GridConfig.background_mapping
    start: str = GridConfig.start
    color_scale: float = GridConfig.color_scale
    color_mean: tuple[float, ...] = ()
    background_mean: tuple[float, ...] = ()
    denoised_range: tuple[float, ...] = ()
    textureless: float = Viewing.textureless
    least_ambient: float = Viewing.least_ambient
    shaken: float = Viewing.shaken
    lit: dict[str, float] = dataclasses.field(default_factory=dict)
    clip_start: float = 2.0
    clip_end: float = 8.0
    clip_published: bool = False
    noise_table: NoiseTable = "linear"
    front_half_deg: float = DSDS_VIEWS.front_half_deg
    masked_lm: str = "google-bert/bert-base-uncased"
    known_words: tuple[str, ...] = ()
    why: dict[str, str] = dataclasses.field(default_factory=dict)


STABLE_DIFFUSION = Profile(guidance_sds=101.0, clip_published=True)
DEEPFLOYD_IF = Profile(
    guidance=21.0,
    clip_start=0.5,
    clip_end=2.0,
    clip_published=True,
    noise_table="cosine",
    why={
        "guidance": "threestudio's 20 for IF, which counts from the conditional side (`denoiser.guided`)",
        "clip_start": "D-SDS App. C.2: 0.5 to 2 with DeepFloyd IF, whose scores are smaller",
        "clip_end": "as clip_start",
        "noise_table": "Nichol and Dhariwal's, arXiv:2102.09672",
    },
)
"""Grid, steps and emptiness are Stable Diffusion's, and untried with IF."""


_WITH_ITS_OWN = (
    ("guidance", "guidance_sds", 0.0),
    ("clip_start", "clip_published", False),
    ("clip_end", "clip_published", False),
)
"""What a folder's profile that has the first says of the second, unless it names it: it is not published."""


def load_profile(model: str, default: Profile) -> Profile:
    """Return the profile that a model folder carries, or its pipeline's.

    Args:
        default: of the pipeline.

    Raises:
        ValueError: the folder's `profile.json` is not one.
    """
    path = Path(model) / "profile.json"
    if not path.exists():
        return default
    try:
        fields = read_json(path)
        fields["known_words"] = tuple(fields.get("known_words", ()))
        fields["timesteps"] = tuple(map(str, fields.get("timesteps", ())))
        for name in ("color_mean", "background_mean", "denoised_range"):
            fields[name] = tuple(map(float, fields.get(name, ())))
        fields = {name: value for its, name, value in _WITH_ITS_OWN if its in fields} | fields
        profile = dataclasses.replace(default, **fields)
        for name, value in vars(default).items():
            kinds = (int, float) if isinstance(value, float) else type(value)
            if not isinstance(getattr(profile, name), kinds):
                raise TypeError(f"{name} is {getattr(profile, name)!r}")
        if not all(isinstance(word, str) for word in profile.known_words):
            raise TypeError("known_words must be words")
        if unknown := {*profile.lit} - {*LIT}:
            raise TypeError(f"lit names {sorted(unknown)[0]}, not one of {', '.join(LIT)}")
        if not all(isinstance(value, (int, float)) for value in profile.lit.values()):
            raise TypeError("lit must hold numbers")
        if profile.noise_table not in get_args(NoiseTable):
            raise TypeError(f"noise_table is {profile.noise_table!r}")
        if profile.n_steps < 1:
            raise TypeError(f"n_steps is {profile.n_steps}")
        if profile.timesteps:
            TimestepRange.parse(*profile.timesteps)
        return profile
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"a profile.json must hold the fields of sjc_debiased.options.profiles.Profile. {path} does not "
            f"({error}). Correct it, or remove it to get its pipeline's settings."
        ) from error
