"""A diffusers folder or repository: which of its files a run needs, and whether they fit together.

Decided by small JSON files and the headers of the weights, before anything large is fetched or read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from prompts.hub import files_in
from sjc_debiased.foreign import read_json
from sjc_debiased.tensor_files import SUPPORTED, ModelError, read_header

INDEX = "model_index.json"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""What the weights of a part are called, before .safetensors or .fp16.safetensors."""

PATTERNS = (
    "*.json",
    "tokenizer/*",
    "text_encoder/model.safetensors",
    "*/diffusion_pytorch_model.safetensors",
)
"""What `hf download --include` takes to fetch no more than a run needs: 4.3 GB of Stable Diffusion 1.5."""

_CONFIGS = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
_TOKENIZERS = (("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt"))
_FAMILIES = {  # by the start of the pipeline's class
    "StableDiffusionXL": "Stable Diffusion XL (SDXL)",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionInpaint": "an inpainting model",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionInstructPix2Pix": "an InstructPix2Pix model",
    "Flux": "Flux",
    "IF": "DeepFloyd IF",
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
    "deepfloyd/": _FAMILIES["IF"],
    "kandinsky-community/": _FAMILIES["Kandinsky"],
    "pixart-alpha/": _FAMILIES["PixArt"],
}
_CHOOSE = f"Choose another model. Supported: {SUPPORTED}."


def check_name(name: str) -> None:
    """Refuse a hub name that is known to be of another family.

    Raises:
        ModelError: says which.
    """
    family = next((f for start, f in _OWNERS.items() if name.lower().startswith(start)), None)
    if family:
        raise ModelError(f"--model must be Stable Diffusion 1.x or 2.x. {name} is {family}. {_CHOOSE}")


def check_index(path: Path, what: str) -> None:
    """Refuse a pipeline of another class.

    Args:
        what: how the person named it.

    Raises:
        ModelError: names the class, or says why the file cannot be read.
    """
    parts = _read(path, f"--model FOLDER must be a diffusers pipeline with a readable {INDEX}", what)
    name = parts.get("_class_name")
    if name != "StableDiffusionPipeline":
        family = next((f for start, f in _FAMILIES.items() if str(name).startswith(start)), "another model")
        raise ModelError(
            f"--model must be a StableDiffusionPipeline (1.x or 2.x). {what} is {family} ({name}). {_CHOOSE}"
        )
    foreign = [part for part in PARTS if not _is_known(parts.get(part))]
    if foreign:
        raise ModelError(
            f"--model must have {', '.join(PARTS)}, as classes of diffusers or transformers. {what} has "
            f"{', '.join(f'{part}: {parts.get(part)}' for part in foreign)}. {_CHOOSE}"
        )


def _is_known(part: object) -> bool:
    return isinstance(part, list) and len(part) == 2 and part[0] in ("diffusers", "transformers")


def read_index(folder: Path) -> Mapping:
    """Return what a pipeline's index says of its parts.

    Raises:
        ModelError: it cannot be read.
    """
    return _read(folder / INDEX, f"a pipeline must have a readable {INDEX}", str(folder))


def weight_files(part: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the safetensors of a part among the names of files: in full precision if there, else fp16.

    In one file or in numbered ones with their index, in either spelling of the fp16 variant:
    `model.fp16-00001-of-00002.safetensors` or `model-00001-of-00002.fp16.safetensors`.
    """
    stem = f"{part}/{STEMS[part]}"
    for variant in ("", ".fp16"):
        if f"{stem}{variant}.safetensors" in names:
            return (f"{stem}{variant}.safetensors",)
        for before, after in {(variant, ""), ("", variant)}:
            pattern = rf"{re.escape(stem + before)}-\d+-of-(\d+){re.escape(after)}\.safetensors"
            shards = sorted(n for n in names if re.fullmatch(pattern, n))
            index = f"{stem}.safetensors.index{variant}.json"
            if shards and index in names and len(shards) == int(re.sub(pattern, r"\1", shards[0])):
                return (index, *shards)
    return ()


def is_fp16(files: Collection[str]) -> bool:
    """Return whether the weights of a part are those of the fp16 variant."""
    return any(".fp16" in file for file in files)


def lacking(names: Collection[str]) -> list[str]:
    """Return the files that a run needs and that are not among these names."""
    missing = [file for file in (INDEX, *_CONFIGS) if file not in names]
    if not any(all(file in names for file in files) for files in _TOKENIZERS):
        missing += [file for file in _TOKENIZERS[1] if file not in names]
    return missing + [
        f"{part}/{stem}.safetensors" for part, stem in STEMS.items() if not weight_files(part, names)
    ]


def weights(names: Collection[str]) -> list[str]:
    """Return the files of weights that a run needs, among these names."""
    return [file for part in STEMS for file in weight_files(part, names)]


def small_files(names: Collection[str]) -> list[str]:
    """Return everything but the weights that a run needs, the index first."""
    small = [n for n in names if n.split("/")[0] in PARTS and n.endswith((".json", ".txt"))]
    return [INDEX, *sorted(n for n in small if ".index." not in n)]


def check_folder(folder: Path, what: str) -> None:
    """Refuse a folder that is no Stable Diffusion pipeline, or not whole, or whose parts do not fit.

    Args:
        what: how the person named it.

    Raises:
        ModelError: says what is wrong, and the way out.
    """
    check_index(folder / INDEX, what)
    names = files_in(folder)
    missing = lacking(names)
    if missing:
        raise ModelError(what_is_missing(missing, names, what))
    check_configs(folder, what)
    for file in weights(names):
        if file.endswith(".safetensors"):
            read_header(folder / file)


def what_is_missing(missing: list[str], names: Collection[str], what: str) -> str:
    """Return the message of a pipeline that is not whole."""
    rule = f"--model must hold {', '.join(PARTS)}. {what} lacks {', '.join(missing)}"
    pickles = sorted(n for n in names if n.split("/")[0] in STEMS and n.endswith(".bin"))
    if pickles and all(m.split("/")[0] in STEMS for m in missing):
        return (
            f"{rule}: it has pickles ({', '.join(pickles)}), which can run code when they are read. Convert "
            "them, without running any: python -m sjc_debiased.convert FOLDER"
        )
    return f"{rule}. Download the whole pipeline again."


def check_configs(folder: Path, what: str) -> None:
    """Refuse a pipeline whose parts do not fit together, by their configuration.

    Raises:
        ModelError: names the parts.
    """
    unet, vae, text, scheduler = (
        _read(folder / file, "a model's configuration must be readable JSON", what) for file in _CONFIGS
    )
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latents:
        raise ModelError(
            f"the U-Net must take the autoencoder's {latents} latent channels. That of {what} takes "
            f"{channels}, as inpainting and other editing models do. {_CHOOSE}"
        )
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"the model must predict epsilon or v. The scheduler of {what} says {prediction!r}. {_CHOOSE}"
        )
    asked = [k for k in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(k)]
    if asked:
        raise ModelError(
            f"the U-Net must ask for text alone. That of {what} has {', '.join(asked)}. {_CHOOSE}"
        )
    width, context = text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)
    if width != context:
        raise ModelError(
            f"the U-Net must take the text encoder's {width} numbers a token. That of {what} takes "
            f"{context}: parts of two models. Take both from the same one."
        )


def _read(path: Path, rule: str, what: str) -> Mapping:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{rule}. {what} has none ({error}). Name the folder that `save_pretrained` or `hf download` "
            "wrote."
        ) from error
