"""The command that makes a run again."""

from __future__ import annotations

import shlex
from dataclasses import fields

from prompts.views import VIEW_SCHEMES
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.models.choose import ALIASES
from sjc_debiased.models.pipelines import profile_of
from sjc_debiased.options.command import MeshOptions, MethodOptions, SJCOptions
from sjc_debiased.options.config import OF_LIGHT, defaults
from sjc_debiased.options.forms import clip_bounds, guidance_scale
from sjc_debiased.options.frameworks import FRAMEWORKS, framework_numbers
from sjc_debiased.options.presets import PRESETS, PresetName
from sjc_debiased.options.profiles import Profile
from sjc_debiased.pages.explain import help_texts, mesh_settings_of

_SCENE = ("cameras", "light", "highest_deg")  # tell the frameworks apart


def command_again(run: RunReader) -> str:
    """Return the command that makes one run again, whatever command it was one of.

    It names what differs from the model's profile.

    Raises:
        RunError: the options cannot be read.
        ValueError: the model's profile cannot be read.
        KeyError: an option is missing.
    """
    r, record = run.options, run.record
    model: str = r["model"]
    profile = profile_of(ALIASES.get(model, model))
    words = ["python", "run_sjc.py"]
    words += [f"--prompt={r['prompt']}"] if r["prompt"].startswith("-") else ["--prompt", r["prompt"]]
    words += ["--preset", _base(r), "--model", model, "--seed", str(r["seed"])]
    words += ["--n_steps", str(r["n_steps"])]
    if r["views"] == "dsds" and PRESETS[_base(r)].views == "sjc":
        words.append("--prompt_debias")
    words += _clip(r, profile)
    for name, usual in _if_not_given(r, profile).items():
        if r[name] not in (None, usual):
            words += [f"--{name}", *map(str, r[name] if isinstance(r[name], list) else [r[name]])]
    words += ["--keep", *r["keep"]] if r["keep"] else []
    for lora in record.get("model_identity", {}).get("loras", ()):
        words += ["--lora", f"{lora['name']}:{lora['scale']:g}"]
    usual_mesh = {field.name: field.default for field in fields(MeshOptions)}
    for name, value in mesh_settings_of(run).items():
        if value != usual_mesh[name]:
            words += [f"--{help_texts(MeshOptions)[name][0]}", str(value)]
    machine = record.get("machine", {})
    words += ["--precision", machine["precision"]] if machine.get("asked") else []
    return shlex.join(words)


def _if_not_given(r: dict, profile: Profile) -> dict:
    """Return what options come to that are not given, for a run's preset and model."""
    framework = PRESETS[_base(r)].framework
    numbers = defaults() | vars(profile) | (framework_numbers(framework, profile) if framework else {})
    usual = {field.name: numbers[field.name] for field in fields(SJCOptions)}
    usual = {name: list(value) if isinstance(value, tuple) else value for name, value in usual.items()}
    if not r["light"]:
        usual |= {name: r[name] for name in OF_LIGHT}  # an option of these is refused, and changes nothing
    usual["schedule_steps"] = r["n_steps"]
    usual["guidance"] = guidance_scale(profile, r["guidance_form"])
    scheme = VIEW_SCHEMES[r["views"]]
    usual["front_half_deg"] = profile.front_half_deg if r["views"] == "dsds" else scheme.front_half_deg
    usual["pmi_normalized"] = MethodOptions.pmi_normalized
    usual["masked_lm"] = profile.masked_lm if r["masked_lm"] is not None else None
    return usual


def _base(r: dict) -> PresetName:
    """Return the preset of a run, or the one that a run of none is changed from."""
    if r["preset"] in PRESETS:
        return r["preset"]
    for name, its in FRAMEWORKS.items():
        if all(r[option] == its[option] for option in _SCENE):
            return name
    if r["views"] == "sjc":
        return "sjc"
    return "dsds-preserved" if r["masked_lm"] is None else "dsds"


def _clip(r: dict, profile: Profile) -> list[str]:
    """Return the options of the clip's bounds, where they are not those of the preset and the profile."""
    start, end = r["clip_start"], r["clip_end"]
    if start is None:
        return [] if PRESETS[_base(r)].clip == "none" else ["--clip.kind", "none"]
    if r["preset"] not in PRESETS and start == end:
        return ["--clip.kind", "static", "--clip.start", str(start)]
    if r["preset"] not in PRESETS:
        return ["--clip.kind", "dynamic", "--clip.start", str(start), "--clip.end", str(end)]
    clip = PRESETS[r["preset"]].clip
    low, high = clip_bounds(profile, r["guidance_form"], r["weighting"])
    if (start, end) == {"dynamic": (low, high), "static-low": (low, low), "static-high": (high, high)}[clip]:
        return []
    return ["--clip.start", str(start), *(["--clip.end", str(end)] if clip == "dynamic" else [])]
