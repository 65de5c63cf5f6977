"""The command line's options, the presets of the paper's table rows, and what both resolve to.

Imports nothing heavy, so that `--help` and every error about an option are instant.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagConversionOff, UseAppendAction, arg

from prompts.views import VIEW_SCHEMES
from sjc_debiased.profiles import Profile

ClipKind = Literal["none", "static", "dynamic"]
PresetName = Literal[
    "sjc", "score-only", "prompt-only", "dsds-preserved", "dsds", "static-low", "static-high"
]
MeshFormat = Literal["glb", "ply", "obj"]


@dataclass(frozen=True)
class Method:
    """What a preset is: how the score is clipped, which view prompts, whether words are removed.

    `clip` "static-low" and "static-high" are the two ends of the model's dynamic range.
    """

    clip: Literal["none", "dynamic", "static-low", "static-high"]
    views: Literal["sjc", "dsds"]
    remove_words: bool


PRESETS: dict[PresetName, Method] = {
    "sjc": Method("none", "sjc", remove_words=False),
    "score-only": Method("dynamic", "sjc", remove_words=False),
    "prompt-only": Method("none", "dsds", remove_words=True),
    "dsds-preserved": Method("dynamic", "dsds", remove_words=False),
    "dsds": Method("dynamic", "dsds", remove_words=True),
    "static-low": Method("static-low", "dsds", remove_words=True),
    "static-high": Method("static-high", "dsds", remove_words=True),
}
"""The rows of the paper's tables: Table 1 (sjc, dsds-preserved, dsds), Figs. 7/13 (score-only,
prompt-only), Figs. 8/14 (prompt-only has no clipping, static-low, static-high, dsds)."""


@dataclass(frozen=True)
class ClipOptions:
    """Override how the score is clipped."""

    kind: ClipKind | None = None
    """none, static (at the one bound that is given; else at `start` if the preset is static-low, at `end` if
    not) or dynamic (from `start` to `end`). Default: the preset's."""
    start: float | None = None
    """Bound at the first step, in units of predicted noise. Default: the model's (2 for SD)."""
    end: float | None = None
    """Bound at the last step. Default: the model's (8 for SD)."""


@dataclass(frozen=True)
class Options:
    """Turn a prompt into a 3D object with Score Jacobian Chaining, debiased as D-SDS does it."""

    prompt: Annotated[UseAppendAction[tuple[str, ...]], arg(aliases=["--sd.prompt"])]
    """What to make, for example "a smiling cat". Given more than once: several objects."""
    debias: bool = False
    """Score and prompt debiasing: the same as --preset dsds."""
    preset: PresetName = "sjc"
    """The method, by the paper's table rows."""
    score_debias: bool = False
    """Add dynamic clipping of the score to the preset."""
    prompt_debias: bool = False
    """Add prompt debiasing (narrow views, contradicting words removed) to the preset."""
    clip: ClipOptions = field(default_factory=ClipOptions)
    """Details of score debiasing."""
    front_half_deg: float | None = None
    """Front prompts hold this far to either side. Default: 45 with SJC's views, the model's with D-SDS's
    (22.5 for SD)."""
    keep: tuple[str, ...] = ()
    """Words that prompt debiasing must not remove, beside the subject and the articles."""
    model: str = "auto"
    """auto, menagerie, sd15, sd21, a diffusers folder, or a hub name."""
    masked_lm: str | None = None
    """Hub name or folder of a BERT-format language model. Default: the model's."""
    seed: int = 0
    """Decides the cameras, the initial scene, and the noise of every step."""
    seeds: str | None = None
    """Several seeds, as in 0,1,2: one object for each prompt and seed."""
    pack: int = 1
    """Objects that are optimised at a time, in one call of the U-Net for all of them."""
    n_steps: int | None = None
    """Optimisation steps. Default: the model's (10,000 for SD)."""
    guidance: Annotated[float | None, arg(aliases=["--sd.scale"])] = None
    """Classifier-free guidance scale. Default: the model's (100 for SD)."""
    var_red: FlagConversionOff[bool] = True
    """Subtract the render (SJC Eq. 16) and not its noised copy (Eq. 15) from the denoised one."""
    n_noise: int = 1
    """Noise samples per step."""
    lr: float | None = None
    """Adamax step size of the grid. Default: the model's (0.05 for SD)."""
    background_lr: float | None = None
    """Adamax step size of the background. Default: the model's (1e-4 for SD)."""
    emptiness_weight: float | None = None
    """Weight of the emptiness loss. Default: the model's (10,000 for SD)."""
    emptiness_scale: float = 10.0
    """Scale inside the emptiness loss."""
    emptiness_step: float = 0.5
    """Share of the steps after which the weight is multiplied."""
    emptiness_multiplier: Annotated[float, arg(aliases=["--emptiness_multipler"])] = 20.0
    """Factor on the weight from then on."""
    depth_weight: float = 0.0
    """Weight of the centre-depth loss."""
    depth_loss: Literal["published", "corrected"] = "published"
    """Sign inside the centre-depth loss: SJC's, or the one that was meant (docs/deviations.md)."""
    background: Literal["published", "seamless"] = "published"
    """Background mapping: SJC's, or one whose pole is up and which has no seam."""
    resolution: int | None = None
    """Voxels along an axis of the grid. Default: the model's (100 for SD)."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the U-Net. auto: float16 on CUDA, bfloat16 on a CPU."""
    compile: bool = False
    """Compile the U-Net (torch.compile): a minute at the start, faster steps on a GPU."""
    local_files_only: bool = False
    """Never ask the hub."""
    run_root: Path = Path("runs")
    """Parent of the numbered run folders."""
    resume: Path | None = None
    """Go on with this run folder, which must have the same options."""
    mesh: tuple[MeshFormat, ...] = ("glb",)
    """Mesh formats to write."""
    dry_run: bool = False
    """Print the resolved configuration and the view prompts, and stop."""


@dataclass(frozen=True)
class Resolved:
    """Hold every number of a run, with nothing left to a default. Two equal ones are the same run."""

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
    depth_loss: str
    background: str
    resolution: int
    half_size: float
    device: str
    precision: str


class OptionError(ValueError):
    """An option breaks a rule; the message says the rule, what was received, and the way out."""


def resolve(
    o: Options, profile: Profile, model: str, fingerprint: str, device: str, precision: str
) -> list[Resolved]:
    """Return what the options mean for a model: one run for each prompt and seed.

    Args:
        model, device, precision: as chosen; no "auto". fingerprint: what tells the model's weights apart.

    Raises:
        OptionError: an option is out of range, or two contradict each other.
    """
    preset, method = _method(o)
    clip_start, clip_end = _clip(o.clip, method, profile)

    front = profile.front_half_deg if method.views == "dsds" else VIEW_SCHEMES["sjc"].front_half_deg

    def own(value, default):
        return default if value is None else value

    template = Resolved(
        prompt="",
        seed=0,
        preset=preset,
        model=model,
        fingerprint=fingerprint,
        masked_lm=own(o.masked_lm, profile.masked_lm) if method.remove_words else None,
        keep=o.keep if method.remove_words else (),
        views=method.views,
        front_half_deg=own(o.front_half_deg, front),
        clip_start=clip_start,
        clip_end=clip_end,
        n_steps=own(o.n_steps, profile.n_steps),
        guidance=own(o.guidance, profile.guidance),
        var_red=o.var_red,
        n_noise=o.n_noise,
        lr=own(o.lr, profile.lr),
        background_lr=own(o.background_lr, profile.background_lr),
        emptiness_weight=own(o.emptiness_weight, profile.emptiness_weight),
        emptiness_scale=o.emptiness_scale,
        emptiness_step=o.emptiness_step,
        emptiness_multiplier=o.emptiness_multiplier,
        depth_weight=o.depth_weight,
        depth_loss=o.depth_loss,
        background=o.background,
        resolution=own(o.resolution, profile.resolution),
        half_size=profile.half_size,
        device=device,
        precision=precision,
    )
    _require(o.pack >= 1, "--pack", "at least 1", o.pack)
    if not o.prompt:
        raise OptionError(
            '--prompt must be given. It is missing. Write for example --prompt "a smiling cat".'
        )
    runs = [
        dataclasses.replace(template, prompt=p.strip(), seed=seed) for p in o.prompt for seed in _seeds(o)
    ]
    for run in runs:
        _check(run)
    if o.resume and len(runs) > 1:
        raise OptionError(
            f"--resume goes on with one run. {len(runs)} were asked for. Leave it out for several."
        )
    return list(dict.fromkeys(runs))


def _seeds(o: Options) -> list[int]:
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


def _method(o: Options) -> tuple[str, Method]:
    """Return the method that preset and flags ask for, under the name of its own preset if it has one."""
    if o.debias and o.preset not in ("sjc", "dsds"):
        raise OptionError(
            f"--debias means --preset dsds. It came with --preset {o.preset}. Leave one of them out."
        )
    method = PRESETS["dsds" if o.debias else o.preset]
    if o.score_debias and method.clip == "none":
        method = dataclasses.replace(method, clip="dynamic")
    if o.prompt_debias:
        method = dataclasses.replace(method, views="dsds", remove_words=True)
    if o.clip.kind is not None and not method.clip.startswith(o.clip.kind):
        kind = "static-high" if o.clip.kind == "static" else o.clip.kind
        method = dataclasses.replace(method, clip=kind)
    return next((name for name, m in PRESETS.items() if m == method), "custom"), method


def _clip(o: ClipOptions, method: Method, profile: Profile) -> tuple[float | None, float | None]:
    start = profile.clip_start if o.start is None else o.start
    end = profile.clip_end if o.end is None else o.end
    if method.clip == "none":
        if o.start is not None or o.end is not None:
            raise OptionError(
                "--clip.start and --clip.end bound a clipped score. This run does not clip. Add "
                "--score_debias, or --clip.kind dynamic."
            )
        return None, None
    for name, value in (("--clip.start", start), ("--clip.end", end)):
        _require(value > 0 and math.isfinite(value), name, "a positive number", value)
    if method.clip.startswith("static"):
        level = start if o.end is None and (method.clip == "static-low" or o.start is not None) else end
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
    for name in ("n_steps", "n_noise", "resolution"):
        value = getattr(r, name)
        least = 2 if name == "resolution" else 1
        _require(value >= least, f"--{name}", f"at least {least}", value)
    _require(0 <= r.seed < 2**31, "--seed", "between 0 and 2147483647", r.seed)
    for name in ("guidance", "emptiness_weight", "emptiness_scale", "emptiness_multiplier", "depth_weight"):
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
