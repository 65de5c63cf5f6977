"""Which families of models there are: what tells them apart, and what a run needs of those it can use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prompts.hub import cached
from sjc_debiased.models.tensor_files import SUPPORTED, ModelError
from sjc_debiased.options import profiles
from sjc_debiased.options.profiles import Profile
from sjc_debiased.untrusted import read_json

INDEX = "model_index.json"
CHOOSE = f"Choose another model. Supported: {SUPPORTED}."


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of diffusers that has an adapter.

    Attributes:
        class_name: in the index, `model_index.json`.
        weighty: the parts that have weights, in the order in which they are fetched.
        tokenizers: the files of its tokenizer, in either of two forms.
        patterns: what `hf download --include` takes to fetch no more than a run needs.
        profile: what it needs to be used for 3D.
        pixels: its pictures are RGB and not latents; VSD makes no second model of its U-Net.
        reads_ahead: its text encoder is too large to stay: it reads all prompts first, and what it has read
            is kept on the disk, so that a run of known prompts needs no weights of it.
        terms: what must be done before the hub gives its files.
    """

    class_name: str
    weighty: tuple[str, ...]
    tokenizers: tuple[tuple[str, ...], ...]
    patterns: tuple[str, ...]
    profile: Profile
    pixels: bool = False
    reads_ahead: bool = False
    terms: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts that a run reads."""
        return (*self.weighty, "tokenizer", "scheduler")

    @property
    def configs(self) -> tuple[str, ...]:
        """Return the files that say what the parts are, but for the tokenizer."""
        return (*(f"{part}/config.json" for part in self.weighty), "scheduler/scheduler_config.json")


STABLE_DIFFUSION = Pipeline(
    "StableDiffusionPipeline",
    weighty=("unet", "vae", "text_encoder"),
    tokenizers=(("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt")),
    patterns=(
        *("*.json", "tokenizer/*", "text_encoder/model.safetensors"),
        "*/diffusion_pytorch_model.safetensors",
    ),
    profile=profiles.STABLE_DIFFUSION,
)
DEEPFLOYD_IF = Pipeline(
    "IFPipeline",
    weighty=("text_encoder", "unet"),
    tokenizers=(("tokenizer/tokenizer.json",), ("tokenizer/spiece.model",)),
    patterns=(
        *("*.json", "tokenizer/*", "text_encoder/model*.safetensors"),
        "unet/diffusion_pytorch_model*.safetensors",
    ),
    profile=profiles.DEEPFLOYD_IF,
    pixels=True,
    reads_ahead=True,
    terms="DeepFloyd's models are for non-commercial research, and the hub gives them to whoever accepts "
    "that: log in at https://huggingface.co, accept the licence on "
    "https://huggingface.co/DeepFloyd/IF-I-XL-v1.0, then run `hf auth login` here.",
)
_SUPPORTED = {pipeline.class_name: pipeline for pipeline in (STABLE_DIFFUSION, DEEPFLOYD_IF)}

_SECOND_STAGE = "DeepFloyd IF's second stage, which enlarges pictures"
_FAMILIES = {  # by the start of the pipeline's class
    "StableDiffusionXL": "Stable Diffusion XL (SDXL)",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionInpaint": "an inpainting model",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionInstructPix2Pix": "an InstructPix2Pix model",
    "Flux": "Flux",
    "IFSuperResolution": _SECOND_STAGE,
    "IFImg2ImgSuperResolution": _SECOND_STAGE,
    "IFInpaintingSuperResolution": _SECOND_STAGE,
    "IF": "DeepFloyd IF for changing pictures",
    "Kandinsky": "Kandinsky",
    "PixArt": "PixArt",
    "StableCascade": "Stable Cascade",
}
_OWNERS = {  # by the start of a hub name, for those that are known without asking
    "stabilityai/stable-diffusion-xl": _FAMILIES["StableDiffusionXL"],
    "stabilityai/sdxl": _FAMILIES["StableDiffusionXL"],
    "stabilityai/stable-diffusion-3": _FAMILIES["StableDiffusion3"],
    "stabilityai/stable-cascade": _FAMILIES["StableCascade"],
    "black-forest-labs/": _FAMILIES["Flux"],
    "deepfloyd/if-ii": _SECOND_STAGE,
    "kandinsky-community/": _FAMILIES["Kandinsky"],
    "pixart-alpha/": _FAMILIES["PixArt"],
}


def check_name(name: str) -> None:
    """Refuse a hub name that is known to be of a family without an adapter.

    Raises:
        ModelError: says which.
    """
    family = next((f for start, f in _OWNERS.items() if name.lower().startswith(start)), None)
    if family:
        raise ModelError(
            f"--model must be Stable Diffusion 1.x or 2.x, or DeepFloyd IF's first stage. {name} is "
            f"{family}. {CHOOSE}"
        )


def pipeline_of(location: str) -> Pipeline:
    """Return what a model is by its index, in its folder or in the cache, or else by its name.

    Stable Diffusion where nothing says otherwise; `pipeline_in` refuses what it is not.
    """
    place = Path(location)
    folder = place if place.exists() else cached(location)
    try:
        name = read_json(folder / INDEX)["_class_name"] if folder else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        name = None
    by_name = not place.exists() and location.lower().startswith("deepfloyd/")
    return _SUPPORTED.get(str(name), DEEPFLOYD_IF if by_name and name is None else STABLE_DIFFUSION)


def pipeline_in(index: Mapping, what: str) -> Pipeline:
    """Return what a model is by what its index says.

    Args:
        what: how the person named it.

    Raises:
        ModelError: there is no adapter for it, or a part of it is of another library; says which.
    """
    name = str(index.get("_class_name"))
    pipeline = _SUPPORTED.get(name)
    if pipeline is None:
        family = next((f for start, f in _FAMILIES.items() if name.startswith(start)), "another model")
        raise ModelError(
            "--model must be a StableDiffusionPipeline (1.x or 2.x) or an IFPipeline (the first stage). "
            f"{what} is {family} ({name}). {CHOOSE}"
        )
    foreign = [part for part in pipeline.parts if not _is_known(index.get(part))]
    if foreign:
        raise ModelError(
            f"--model must have {', '.join(pipeline.parts)}, as classes of diffusers or transformers. {what} "
            f"has {', '.join(f'{part}: {index.get(part)}' for part in foreign)}. {CHOOSE}"
        )
    return pipeline


def _is_known(part: object) -> bool:
    return isinstance(part, list) and len(part) == 2 and part[0] in ("diffusers", "transformers")
