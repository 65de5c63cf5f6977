"""What the command line's options mean for a model: every number of a run, with nothing left to a default."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from prompts.views import VIEW_SCHEMES
from sjc_debiased.options import (
    Background,
    Basic,
    GuidanceForm,
    MethodOptions,
    OptionError,
    Options,
    SJCOptions,
    Start,
    VSDModel,
    Weighting,
)
from sjc_debiased.presets import PRESETS, Method
from sjc_debiased.profiles import Profile
from sjc_debiased.schedules import TimestepRange

_MOST_VOXELS = 512
_VSD_SCALE, _VSD_LR = 7.5, 1e-4  # ProlificDreamer's


@dataclass(frozen=True)
class Resolved:
    """Hold every number of a run, with nothing left to a default. Two equal ones are the same run.

    The machine (device, precision, kernel) is no part of it. A field with a default came later; the default
    is what runs were made with before.
    """

    prompt: str
    preset: str
    model: str
    fingerprint: str
    masked_lm: str | None
    keep: tuple[str, ...]
    views: Literal["sjc", "dsds"]
    front_half_deg: float
    clip_start: float | None
    clip_end: float | None
    seed: int
    n_steps: int
    guidance: float
    var_red: bool
    n_noise: int
    lr: float
    background_lr: float
    emptiness_weight: float
    emptiness_scale: float
    emptiness_step: float
    emptiness_multiplier: float
    depth_weight: float
    depth_loss: Literal["published", "corrected"]
    background: Background
    resolution: int
    half_size: float
    schedule_steps: int
    start: Start = "fog"
    color_scale: float = 1.0
    pmi_normalized: Literal["pmi", "probabilities"] = "pmi"
    timesteps: tuple[str, str] | None = None
    guidance_form: GuidanceForm = "paas"
    weighting: Weighting | None = None
    vsd_model: VSDModel | None = None
    vsd_lr: float | None = None


def resolve(o: Options, profile: Profile, model: str, fingerprint: str) -> list[Resolved]:
    """Return what the options mean for a model: one run for each prompt and seed.

    Args:
        model: as chosen; no "auto". fingerprint: what tells the model's weights apart.

    Raises:
        OptionError: an option is out of range, or two contradict each other.
    """
    preset, method = _method(o.basic, o.method)
    clip_start, clip_end = _clip(o.method, method, profile)
    front = profile.front_half_deg if method.views == "dsds" else VIEW_SCHEMES["sjc"].front_half_deg
    given: dict[str, Any] = {name: value for name, value in vars(o.sjc).items() if value is not None}
    own: dict[str, Any] = {name: getattr(profile, name) for name in vars(o.sjc).keys() & vars(profile).keys()}
    n_steps = profile.n_steps if o.basic.n_steps is None else o.basic.n_steps
    timesteps = _timesteps(o.sjc.timesteps or profile.timesteps)
    template = Resolved(
        prompt="",
        seed=0,
        preset=preset,
        model=model,
        fingerprint=fingerprint,
        masked_lm=(o.method.masked_lm or profile.masked_lm) if method.remove_words else None,
        keep=o.method.keep if method.remove_words else (),
        pmi_normalized=o.method.pmi_normalized if method.remove_words else "pmi",
        views=method.views,
        front_half_deg=front if o.method.front_half_deg is None else o.method.front_half_deg,
        clip_start=clip_start,
        clip_end=clip_end,
        half_size=profile.half_size,
        n_steps=n_steps,
        **({"schedule_steps": n_steps} | own | given | {"timesteps": timesteps} | _guidance(o.sjc)),  # pyright: ignore[reportArgumentType]  # of many types
    )
    _require(o.machine.pack >= 1, "--pack", "at least 1", o.machine.pack)
    if not o.basic.prompt:
        raise OptionError(
            '--prompt must be given. It is missing. Write for example --prompt "a smiling cat".'
        )
    seeds = _seeds(o.basic)
    runs = [dataclasses.replace(template, prompt=p.strip(), seed=s) for p in o.basic.prompt for s in seeds]
    for run in runs:
        _check(run)
    if o.machine.resume and len(runs) > 1:
        raise OptionError(
            f"--resume goes on with one run. {len(runs)} were asked for. Leave it out for several."
        )
    return list(dict.fromkeys(runs))


def _guidance(o: SJCOptions) -> dict[str, Any]:
    """Return what belongs to the form of guidance; None is what another form does not have."""
    form = o.guidance_form
    forms = {"weighting": ("sds", "vsd"), "vsd_model": ("vsd",), "vsd_lr": ("vsd",)}
    for name, those in forms.items():
        if getattr(o, name) is not None and form not in those:
            raise OptionError(
                f"--{name} belongs to --guidance_form {' and '.join(those)}. It came with {form}. Leave it "
                f"out, or add --guidance_form {those[0]}."
            )
    if form == "paas":
        return {}
    weighting = o.weighting or "sds"
    if form == "sds":
        return {"weighting": weighting}
    kind, lr = o.vsd_model or "lora", _VSD_LR if o.vsd_lr is None else o.vsd_lr
    _require(o.var_red, "--var_red", "True with --guidance_form vsd, which subtracts no render", o.var_red)
    _require(lr > 0 and math.isfinite(lr), "--vsd_lr", "finite and positive", lr)
    if kind == "lora" and find_spec("peft") is None:
        raise OptionError(
            "--vsd_model lora needs the package peft. It is not installed. Install it: pip install peft, or "
            "choose --vsd_model copy."
        )
    scale = _VSD_SCALE if o.guidance is None else o.guidance
    return {"weighting": weighting, "vsd_model": kind, "vsd_lr": lr, "guidance": scale}


def _timesteps(given: tuple[str, ...]) -> tuple[str, str] | None:
    """Return a range as it is written down: two that mean the same are the same run."""
    if not given:
        return None
    try:
        timesteps = TimestepRange.parse(*given)
    except ValueError as error:
        raise OptionError(f"--timesteps: {error}") from error
    return str(timesteps.low), str(timesteps.high)


def _seeds(o: Basic) -> list[int]:
    if o.seeds is None:
        return [o.seed]
    if o.seed:
        raise OptionError("--seed and --seeds say the same. Both were given. Leave one of them out.")
    try:
        return [int(word) for word in o.seeds.split(",")]
    except ValueError as error:
        raise OptionError(
            f"--seeds must be whole numbers with commas between. It is {o.seeds!r}. Write for example 0,1,2."
        ) from error


def _method(basic: Basic, o: MethodOptions) -> tuple[str, Method]:
    """Return the method that preset and flags ask for, under the name of its own preset if it has one."""
    if basic.debias and o.preset not in ("sjc", "dsds"):
        raise OptionError(
            f"--debias means --preset dsds. It came with --preset {o.preset}. Leave one of them out."
        )
    method = PRESETS["dsds" if basic.debias else o.preset]
    if o.score_debias and method.clip == "none":
        method = dataclasses.replace(method, clip="dynamic")
    if o.prompt_debias:
        method = dataclasses.replace(method, views="dsds", remove_words=True)
    if o.clip_kind is not None and not method.clip.startswith(o.clip_kind):
        kind = "static-high" if o.clip_kind == "static" else o.clip_kind
        method = dataclasses.replace(method, clip=kind)
    return next((name for name, m in PRESETS.items() if m == method), "custom"), method


def _clip(o: MethodOptions, method: Method, profile: Profile) -> tuple[float | None, float | None]:
    start = profile.clip_start if o.clip_start is None else o.clip_start
    end = profile.clip_end if o.clip_end is None else o.clip_end
    if method.clip == "none":
        if o.clip_start is not None or o.clip_end is not None:
            raise OptionError(
                "--clip.start and --clip.end bound a clipped score. This run does not clip. Add "
                "--score_debias, or --clip.kind dynamic."
            )
        return None, None
    for name, value in (("--clip.start", start), ("--clip.end", end)):
        _require(value > 0 and math.isfinite(value), name, "a positive number", value)
    if method.clip.startswith("static"):
        at_start = o.clip_end is None and (method.clip == "static-low" or o.clip_start is not None)
        level = start if at_start else end
        return level, level
    if start > end:
        raise OptionError(
            f"the clip value grows from --clip.start to --clip.end. It would fall from {start:g} to "
            f"{end:g}. Swap the two."
        )
    return start, end


def _check(r: Resolved) -> None:
    if not any(character.isalnum() for character in r.prompt):
        raise OptionError(f"--prompt must have a word. It is {r.prompt!r}. Write what you want to see.")
    if "\0" in r.prompt:
        raise OptionError("--prompt must be text. It holds a NUL character. Remove it.")
    for name in ("n_steps", "n_noise", "schedule_steps"):
        value = getattr(r, name)
        _require(value >= 1, f"--{name}", "at least 1", value)
    _require(2 <= r.resolution <= _MOST_VOXELS, "--resolution", f"2 to {_MOST_VOXELS}", r.resolution)
    _require(0 <= r.seed < 2**31, "--seed", "between 0 and 2147483647", r.seed)
    for name in (
        "guidance",
        "emptiness_weight",
        "emptiness_scale",
        "emptiness_multiplier",
        "depth_weight",
        "color_scale",
    ):
        value = getattr(r, name)
        _require(value >= 0 and math.isfinite(value), f"--{name}", "finite and not negative", value)
    for name in ("lr", "background_lr"):
        value = getattr(r, name)
        _require(value > 0 and math.isfinite(value), f"--{name}", "finite and positive", value)
    _require(0 < r.half_size < math.inf, "half_size of the profile", "finite and positive", r.half_size)
    widest = 180.0 - VIEW_SCHEMES[r.views].back_half_deg
    _require(
        0 < r.front_half_deg <= widest,
        "--front_half_deg",
        f"above 0 and at most {widest:g} degrees, where the back begins",
        r.front_half_deg,
    )
    _require(
        0 <= r.emptiness_step <= 1, "--emptiness_step", "a share of the steps in [0, 1]", r.emptiness_step
    )


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise OptionError(f"{name} must be {rule}. It is {value}. Leave it out for the default.")
