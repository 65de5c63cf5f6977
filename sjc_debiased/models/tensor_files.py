"""What a file of tensors is, from the names and shapes in its header alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

Shapes = Mapping[str, tuple[int, ...]]

SD1 = "Stable Diffusion 1.x"
SD2 = "Stable Diffusion 2.x"
LORA = "a LoRA"
SUPPORTED = (
    "Stable Diffusion 1.x and 2.x, text to image, as a diffusers folder, a hub name or one .safetensors "
    "file; DeepFloyd IF's first stage, as a diffusers folder or a hub name"
)
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")

_HEADER_LIMIT = 100 * 2**20  # the format's own
_UNET = "model.diffusion_model."
_FIRST_CONV = _UNET + "input_blocks.0.0.weight"
_OTHER_INPUTS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an InstructPix2Pix model",
    9: "an inpainting model",
}
_BY_NAME = (  # the first whose parts of names are all found
    ("a ControlNet", ("control_model.",)),
    ("a ControlNet", ("controlnet_cond_embedding.",)),
    ("Stable Diffusion XL (SDXL)", ("conditioner.embedders.",)),
    ("Stable Diffusion XL (SDXL)", (_UNET + "label_emb.0.0.weight",)),
    ("Stable Diffusion 3", ("joint_blocks.0.",)),
    ("Flux", ("double_blocks.0.",)),
    ("Stable Cascade", ("clip_txt_mapper.",)),
    ("PixArt", ("scale_shift_table", "caption_projection.")),
)
_PARTS_ALONE = (
    ("a U-Net alone", ("down_blocks.0.", "time_embedding.")),
    ("an autoencoder (VAE) alone", ("encoder.", "decoder.")),
    ("an autoencoder (VAE) alone", ("first_stage_model.",)),
    ("a text encoder alone", ("encoder.layers.0.",)),
    ("a textual inversion embedding", ("emb_params",)),
    ("a textual inversion embedding", ("string_to_param",)),
    ("a diffusion transformer", ("transformer_blocks.0.",)),
)
_LORA_MARKS = (
    "lora_down",
    "lora_up",
    "lora_A",
    "lora_B",
    "lora.down",
    "lora.up",
    "lora_unet_",
    "hada_w1",
    "lokr_w1",
)


class ModelError(ValueError):
    """A model cannot be used; the message says the rule, what was found, and the way out."""


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a safetensors file's tensors by name, without reading a tensor.

    Raises:
        ModelError: it is no safetensors file, or not whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if start == b"version ":
                raise ModelError(
                    f"a model's weights must be the weights. {path} is the pointer that git leaves without "
                    "git-lfs. Run `git lfs pull` there, or download the file itself."
                )
            if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise ValueError(f"{size} bytes, and no header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except ModelError:
        raise
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"a model's weights must be a readable safetensors file. {path} is none ({error}). Download it "
            "again."
        ) from error
    if size < 8 + length + end:
        raise ModelError(
            f"a model's weights must be whole. {path} has {size} of {8 + length + end} bytes: a download "
            "that broke off. Download it again."
        )
    return shapes


def describe(shapes: Shapes) -> str:
    """Return what tensors of these names and shapes are: `SD1`, `SD2`, `LORA`, or what is not supported."""

    def found(marks: tuple[str, ...]) -> bool:
        return all(any(mark in name for name in shapes) for mark in marks)

    if any(found((mark,)) for mark in _LORA_MARKS):
        return LORA
    for what, marks in _BY_NAME:
        if found(marks):
            return what
    if _FIRST_CONV in shapes:
        return _stable_diffusion(shapes)
    if found((_UNET,)):
        return "a model of another kind"
    return next((what for what, marks in _PARTS_ALONE if found(marks)), "nothing known here")


def _stable_diffusion(shapes: Shapes) -> str:
    channels = shapes[_FIRST_CONV][1]
    if channels != 4:
        return _OTHER_INPUTS.get(channels, f"a model of {channels} input channels")
    if "ztsnr" in shapes:
        return "a model of zero terminal SNR, whose noise has no highest level"
    prefixes = {name.partition(".")[0] for name in shapes}
    if "first_stage_model" not in prefixes and "vae" not in prefixes:
        return "a checkpoint without its autoencoder (VAE)"
    if any(name.startswith("cond_stage_model.transformer.text_model.") for name in shapes):
        return SD1
    if any(name.startswith("cond_stage_model.model.transformer.") for name in shapes):
        return SD2
    return "a checkpoint without its text encoder"


def check_checkpoint(path: Path) -> str:
    """Return `SD1` or `SD2` for a single-file checkpoint; refuse every other file, by its name.

    Raises:
        ModelError: says what the file is, and what to do with it.
    """
    check_no_pickle(path, "--model")
    if path.suffix.lower() != ".safetensors":
        raise ModelError(
            f"--model FILE must be a .safetensors checkpoint. {path} is a {path.suffix or 'nameless'} file. "
            f"Supported: {SUPPORTED}."
        )
    shapes = read_header(path)
    what = describe(shapes)
    if what in (SD1, SD2):
        return what
    if what == LORA:
        remedy = f"Give it beside a model: --model sd15 --lora {path}."
    elif "alone" in what or "without" in what:
        remedy = "Name the whole checkpoint, or the whole diffusers folder."
    elif what == "nothing known here":
        remedy = f"Its first tensor is {min(shapes, default='none')!r}. Supported: {SUPPORTED}."
    else:
        remedy = f"Supported: {SUPPORTED}."
    raise ModelError(
        f"--model FILE must be a whole checkpoint of Stable Diffusion 1.x or 2.x. {path} is {what}. {remedy}"
    )


def check_no_pickle(path: Path, option: str) -> None:
    """Refuse a file that runs code when it is read.

    Raises:
        ModelError: names the conversion.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"{option} FILE must be safetensors. {path} is a pickle, which can run code when it is read. "
            f"Convert it, without running any: python -m sjc_debiased.convert {path}"
        )
