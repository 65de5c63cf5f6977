"""What the command line's options mean for a model: every number of a run, with nothing left to a default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from prompts.views import VIEW_SCHEMES
from sjc_debiased.options.command import Basic, MethodOptions, OptionError, Options, SJCOptions
from sjc_debiased.options.forms import clip_bounds, guidance_scale
from sjc_debiased.options.frameworks import framework_numbers
from sjc_debiased.options.presets import PRESETS, Method
from sjc_debiased.options.profiles import Profile
from sjc_debiased.options.rules import check_numbers, require
from sjc_debiased.schedules import ClipSchedule, TimestepRange
from sjc_debiased.settings import GuidanceSettings, Prompting, Settings, Viewing
from voxnerf.settings import GridConfig

_Part = TypeVar("_Part", Prompting, Settings, GuidanceSettings, GridConfig, Viewing)
_MOST_RANKED = 100
OF_LIGHT = ("textureless", "least_ambient", "shaken")
"""Options of scenes that are lit."""
_OPTION_OF = {"scale": "guidance", "background_mapping": "background"}
"""Options whose names say more than those of the numbers that they set."""
_NO_OPTIONS = {
    "channels",
    "density_shift",
    "step_ratio",
    "background_size",
    "roughness_weight",
    "albedo_share",
}
"""What no option sets."""
_VSD_LR = 1e-4  # ProlificDreamer's


@dataclass(frozen=True)
class Resolved:
    """Hold every number of a run, with nothing left to a default. Two equal ones are the same run.

    The machine (device, precision, kernel) is no part of it.

    Attributes:
        fingerprint: tells the model's weights apart.
        field: but for its channels, which are the model's.
    """

    prompt: str
    preset: str
    model: str
    fingerprint: str
    seed: int
    prompting: Prompting
    settings: Settings
    guidance: GuidanceSettings
    field: GridConfig
    viewing: Viewing

    @property
    def n_steps(self) -> int:
        """Return the number of optimisation steps."""
        return self.settings.n_steps


def by_option(run: Resolved) -> dict[str, Any]:
    """Return a run's numbers by the names of their options, as `options.json` and `--dry_run` have them."""
    alone = {name: value for name, value in vars(run).items() if not is_dataclass(value)}
    return alone | _named(run.prompting, run.settings, run.guidance, run.field, run.viewing)


def defaults() -> dict[str, Any]:
    """Return, by the names of options, what runs were made with before there were such options."""
    return _named(Prompting(), Settings(), GuidanceSettings(), GridConfig(), Viewing())


def part(kind: type[_Part], options: Mapping[str, Any]) -> _Part:
    """Return one part of a run; what its options do not say has its default.

    Args:
        options: by their names, those of other parts among them, as of `by_option` and `RunReader.options`.
    """
    clip = ClipSchedule(options.get("clip_start"), options.get("clip_end"))
    options = {"clip": clip, **options}
    named = {f.name: _OPTION_OF.get(f.name, f.name) for f in fields(kind)}
    return kind(**{name: options[option] for name, option in named.items() if option in options})


def _named(*parts: Prompting | Settings | GuidanceSettings | GridConfig | Viewing) -> dict[str, Any]:
    numbers = {name: value for one in parts for name, value in vars(one).items() if name not in _NO_OPTIONS}
    clip = numbers.pop("clip")
    named = {_OPTION_OF.get(name, name): value for name, value in numbers.items()}
    return named | {"clip_start": clip.start, "clip_end": clip.end}


def resolve(o: Options, profile: Profile, model: str, fingerprint: str) -> list[Resolved]:
    """Return what the options mean for a model: one run for each prompt and seed.

    Args:
        model: as chosen; no "auto". fingerprint: what tells the model's weights apart.

    Raises:
        OptionError: an option is out of range, or two contradict each other.
    """
    preset, method = _method(o.basic, o.method)
    framework = framework_numbers(method.framework, profile) if method.framework else {}
    given = {name: value for name, value in (vars(o.basic) | vars(o.sjc)).items() if value is not None}
    numbers: dict[str, Any] = vars(profile) | framework | given
    longer = 1.0 if "timesteps" in given else numbers["n_steps"] / profile.n_steps
    numbers |= {"timesteps": _timesteps(numbers["timesteps"], longer)} | _guidance(o.sjc, numbers, profile)
    numbers |= _softness(o.sjc, numbers)
    bounds = clip_bounds(profile, numbers["guidance_form"], numbers["weighting"])
    numbers |= dict(zip(("clip_start", "clip_end"), _clip(o.method, method, bounds)))
    settings = part(Settings, {"schedule_steps": numbers["n_steps"]} | numbers)
    guidance, field = part(GuidanceSettings, numbers), part(GridConfig, numbers)
    viewing = part(Viewing, numbers)
    prompting = _prompting(o.method, method, profile)
    require(o.machine.pack is None or o.machine.pack >= 1, "--pack", "at least 1", o.machine.pack)
    if not o.basic.prompt:
        raise OptionError(
            '--prompt must be given. It is missing. Write for example --prompt "a smiling cat".'
        )
    seeds = _seeds(o.basic) if o.basic.best_of is None else _seeds_to_rank(o, o.basic.best_of)
    runs = [
        Resolved(
            prompt.strip(), preset, model, fingerprint, seed, prompting, settings, guidance, field, viewing
        )
        for prompt in o.basic.prompt
        for seed in seeds
    ]
    for run in runs:
        _check(run)
    if o.machine.resume and len(runs) > 1:
        raise OptionError(
            f"--resume goes on with one run. {len(runs)} were asked for. Leave it out for several."
        )
    return list(dict.fromkeys(runs))


def _prompting(o: MethodOptions, method: Method, profile: Profile) -> Prompting:
    front = VIEW_SCHEMES["sjc"].front_half_deg if method.views == "sjc" else profile.front_half_deg
    told = Prompting(method.views, front if o.front_half_deg is None else o.front_half_deg)
    if not method.remove_words:
        return told
    masked_lm = o.masked_lm or profile.masked_lm
    return replace(told, masked_lm=masked_lm, keep=o.keep, pmi_normalized=o.pmi_normalized)


def _guidance(o: SJCOptions, numbers: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
    """Return what belongs to the form of guidance; None is what another form does not have."""
    form = numbers.get("guidance_form", GuidanceSettings.guidance_form)
    scale = guidance_scale(profile, form) if o.guidance is None else o.guidance
    told = {"guidance_form": form, "guidance": scale}
    forms = {"weighting": ("sds", "vsd"), "vsd_model": ("vsd",), "vsd_lr": ("vsd",)}
    for name, those in forms.items():
        if getattr(o, name) is not None and form not in those:
            raise OptionError(
                f"--{name} belongs to --guidance_form {' and '.join(those)}. It came with {form}. Leave it "
                f"out, or add --guidance_form {those[0]}."
            )
    if form == "paas":
        return told | {"weighting": None}
    weighting = numbers.get("weighting", "sds")
    require(
        o.var_red is not False,
        "--var_red",
        f"True with --guidance_form {form}: without, it is SJC's Eq. 15, of paas",
        o.var_red,
    )
    if form == "sds":
        return told | {"weighting": weighting}
    kind, lr = o.vsd_model or "lora", _VSD_LR if o.vsd_lr is None else o.vsd_lr
    require(lr > 0 and math.isfinite(lr), "--vsd_lr", "finite and positive", lr)
    if kind == "lora" and find_spec("peft") is None:
        raise OptionError(
            "--vsd_model lora needs the package peft. It is not installed. Install it: pip install peft, or "
            "choose --vsd_model copy."
        )
    return told | {"weighting": weighting, "vsd_model": kind, "vsd_lr": lr}


def _softness(o: SJCOptions, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return how soft a light is and how shaken its cameras; without one these are no numbers of a run."""
    if numbers.get("light"):
        return {name: numbers[name] for name in OF_LIGHT}
    for name in OF_LIGHT:
        if getattr(o, name) is not None:
            raise OptionError(
                f"--{name} belongs to a scene that is lit. This one is not. Leave it out, or choose --preset "
                "dreamfusion-sd, dreamfusion-if or magic3d."
            )
    return {name: getattr(Viewing, name) for name in OF_LIGHT}


def _timesteps(given: tuple[str, ...], longer: float) -> tuple[str, str] | None:
    """Return a range as it is written down: two that mean the same are the same run.

    Args:
        longer: by how much the run is longer than the one that the range is meant for.
    """
    if not given:
        return None
    try:
        timesteps = TimestepRange.parse(*given).stretched(longer)
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


def _seeds_to_rank(o: Options, n: int) -> range:
    for name, given in (("--seeds", o.basic.seeds), ("--resume", o.machine.resume)):
        if given is not None:
            raise OptionError(
                f"--best_of {n} makes {n} runs itself, of seeds from --seed on, and goes on with them by "
                f"itself. It came with {name}. Leave one of the two out."
            )
    if not 2 <= n <= _MOST_RANKED:
        raise OptionError(f"--best_of must be 2 to {_MOST_RANKED}. It is {n}. Leave it out for one run.")
    return range(o.basic.seed, o.basic.seed + n)


def _method(basic: Basic, o: MethodOptions) -> tuple[str, Method]:
    """Return the method that preset and flags ask for, under the name of its own preset if it has one."""
    framework = PRESETS[o.preset].framework
    if basic.debias and o.preset not in ("sjc", "dsds") and framework is None:
        raise OptionError(
            f"--debias means --preset dsds. It came with --preset {o.preset}. Leave one of them out."
        )
    method = replace(PRESETS["dsds"], framework=framework) if basic.debias else PRESETS[o.preset]
    if o.score_debias and method.clip == "none":
        method = replace(method, clip="dynamic")
    if o.prompt_debias:
        method = replace(method, views="dsds", remove_words=True)
    if o.clip_kind is not None and not method.clip.startswith(o.clip_kind):
        kind = "static-high" if o.clip_kind == "static" else o.clip_kind
        method = replace(method, clip=kind)
    return next((name for name, m in PRESETS.items() if m == method), "custom"), method


def _clip(o: MethodOptions, method: Method, bounds: tuple[float, float]) -> tuple[float | None, float | None]:
    start = bounds[0] if o.clip_start is None else o.clip_start
    end = bounds[1] if o.clip_end is None else o.clip_end
    if method.clip == "none":
        if o.clip_start is not None or o.clip_end is not None:
            raise OptionError(
                "--clip.start and --clip.end bound a clipped score. This run does not clip. Add "
                "--score_debias, or --clip.kind dynamic."
            )
        return None, None
    for name, value in (("--clip.start", start), ("--clip.end", end)):
        require(value > 0 and math.isfinite(value), name, "a positive number", value)
    if method.clip.startswith("static"):
        if None not in (o.clip_start, o.clip_end):
            raise OptionError(
                f"a static clip has one bound. --clip.start {start:g} and --clip.end {end:g} were given. "
                "Leave one of them out."
            )
        at_start = o.clip_end is None and (method.clip == "static-low" or o.clip_start is not None)
        level = start if at_start else end
        return level, level
    if start > end:
        raise OptionError(
            f"the clip value grows from --clip.start to --clip.end. It would fall from {start:g} to "
            f"{end:g}. Swap the two."
        )
    return start, end


def _check(run: Resolved) -> None:
    if not any(character.isalnum() for character in run.prompt):
        raise OptionError(f"--prompt must have a word. It is {run.prompt!r}. Write what you want to see.")
    if "\0" in run.prompt:
        raise OptionError("--prompt must be text. It holds a NUL character. Remove it.")
    check_numbers(by_option(run))
    half_size, front = run.field.half_size, run.prompting.front_half_deg
    require(0 < half_size < math.inf, "half_size of the profile", "finite and positive", half_size)
    widest = 180.0 - VIEW_SCHEMES[run.prompting.views].back_half_deg
    require(
        0 < front <= widest,
        "--front_half_deg",
        f"above 0 and at most {widest:g} degrees, where the back begins",
        front,
    )
