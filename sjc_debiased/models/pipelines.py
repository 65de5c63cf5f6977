"""Which families of models there are, all that tells them apart, and which of them a model is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prompts.hub import cached, files_in
from sjc_debiased.models import deepfloyd, stable_diffusion
from sjc_debiased.models import files as model_files
from sjc_debiased.models.files import CHOOSE, INDEX, Pipeline
from sjc_debiased.models.tensor_files import ModelError, read_header
from sjc_debiased.options import profiles
from sjc_debiased.options.profiles import Profile, load_profile
from sjc_debiased.untrusted import read_json

STABLE_DIFFUSION = Pipeline(
    "StableDiffusionPipeline",
    title="Stable Diffusion 1.x or 2.x",
    stems={"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"},
    tokenizers=(("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt")),
    patterns=(
        *("*.json", "tokenizer/*", "text_encoder/model.safetensors"),
        "*/diffusion_pytorch_model.safetensors",
    ),
    profile=profiles.STABLE_DIFFUSION,
    check_configs=stable_diffusion.check_configs,
    check_prompts=stable_diffusion.check_prompts,
    check_loras=stable_diffusion.check_loras,
    load=stable_diffusion.load,
    vsd=True,
)
DEEPFLOYD_IF = Pipeline(
    "IFPipeline",
    title="DeepFloyd IF's first stage",
    stems={"text_encoder": "model", "unet": "diffusion_pytorch_model"},
    tokenizers=(("tokenizer/tokenizer.json",), ("tokenizer/spiece.model",)),
    patterns=(
        *("*.json", "tokenizer/*", "text_encoder/model*.safetensors"),
        "unet/diffusion_pytorch_model*.safetensors",
    ),
    profile=profiles.DEEPFLOYD_IF,
    check_configs=deepfloyd.check_configs,
    check_prompts=deepfloyd.check_prompts,
    check_loras=deepfloyd.check_loras,
    load=deepfloyd.load,
    owners=("deepfloyd/",),
    pixels=True,
    last_timestep=deepfloyd.LAST_TIMESTEP,
    reads_ahead=True,
    terms="DeepFloyd's models are for non-commercial research, and the hub gives them to whoever accepts "
    "that: log in at https://huggingface.co, accept the licence on "
    "https://huggingface.co/DeepFloyd/IF-I-XL-v1.0, then run `hf auth login` here.",
)
_SUPPORTED = {pipeline.class_name: pipeline for pipeline in (STABLE_DIFFUSION, DEEPFLOYD_IF)}
_ONE_OF_THEM = f"--model must be {', or '.join(pipeline.title for pipeline in _SUPPORTED.values())}."

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
        raise ModelError(f"{_ONE_OF_THEM} {name} is {family}. {CHOOSE}")


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
    if name is None and not place.exists():
        by_name = (p for p in _SUPPORTED.values() if location.lower().startswith(p.owners))
        return next(by_name, STABLE_DIFFUSION)
    return _SUPPORTED.get(str(name), STABLE_DIFFUSION)


def profile_of(location: str) -> Profile:
    """Return what a model needs to be used for 3D: what its folder says, and else its family.

    Raises:
        ValueError: the folder's `profile.json` is not one.
    """
    return load_profile(location, pipeline_of(location).profile)


def check_index(path: Path, what: str) -> Pipeline:
    """Return what a pipeline is by its index; refuse one that no adapter knows.

    Args:
        what: how the person named it.

    Raises:
        ModelError: names the class, or says why the file cannot be read.
    """
    index = model_files.read_named(
        path, f"--model FOLDER must be a diffusers pipeline with a readable {INDEX}", what
    )
    return pipeline_in(index, what)


def check_folder(folder: Path, what: str) -> Pipeline:
    """Return what a folder is; refuse one that no adapter knows, is not whole, or whose parts do not fit.

    Args:
        what: how the person named it.

    Raises:
        ModelError: says what is wrong, and the way out.
    """
    pipeline = check_index(folder / INDEX, what)
    names = files_in(folder)
    missing = model_files.lacking(names, pipeline)
    if missing:
        raise ModelError(model_files.what_is_missing(missing, names, what, pipeline))
    pipeline.check_configs(model_files.read_configs(folder, what, pipeline), what)
    for file in model_files.weights(names, pipeline):
        if file.endswith(".safetensors"):
            read_header(folder / file)
    return pipeline


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
        raise ModelError(f"{_ONE_OF_THEM} {what} is {family} ({name}). {CHOOSE}")
    foreign = [part for part in pipeline.parts if not _is_known(index.get(part))]
    if foreign:
        raise ModelError(
            f"--model must have {', '.join(pipeline.parts)}, as classes of diffusers or transformers. {what} "
            f"has {', '.join(f'{part}: {index.get(part)}' for part in foreign)}. {CHOOSE}"
        )
    return pipeline


def _is_known(part: object) -> bool:
    return isinstance(part, list) and len(part) == 2 and part[0] in ("diffusers", "transformers")
