"""LoRAs, small files that change a model's weights to W + scale * B A: `--lora FILE_OR_NAME[:SCALE]`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from prompts.hub import files_in, gather
from sjc_debiased.models.tensor_files import (
    LORA,
    SD1,
    SD2,
    ModelError,
    Shapes,
    check_no_pickle,
    describe,
    read_header,
)

_DEFAULT = "pytorch_lora_weights.safetensors"
_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight")
_WIDTHS = {768: SD1, 1024: SD2, 2048: "Stable Diffusion XL (SDXL)"}
_OTHERS = {
    "lora_te2_": "Stable Diffusion XL (SDXL)",
    "text_encoder_2.": "Stable Diffusion XL (SDXL)",
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "joint_blocks": "Stable Diffusion 3",
    "transformer.transformer_blocks": "a diffusion transformer",
}


@dataclass(frozen=True)
class Lora:
    """Say which LoRA, and how strongly.

    Attributes:
        name: a file, a folder, a hub name, or a hub name and a file of it (OWNER/NAME/FILE).
        scale: factor on its change of the weights; 1 is as it was trained.
    """

    name: str
    scale: float = 1.0


def parse_lora(text: str) -> Lora:
    """Return what `--lora FILE_OR_NAME[:SCALE]` means; only a number after the last colon is a scale.

    Raises:
        ModelError: there is no name, or the scale is 0 or not finite.
    """
    found = re.fullmatch(
        r"(.*):([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf))", text, re.IGNORECASE
    )
    name, scale = (text, 1.0) if found is None or Path(text).exists() else (found[1], float(found[2]))
    if not name or scale == 0 or not math.isfinite(scale):
        raise ModelError(
            f"--lora must be FILE_OR_NAME[:SCALE], with a scale that is finite and not 0. It is {text!r}. "
            "Write for example toon.safetensors:0.8, or leave it out."
        )
    return Lora(name, scale)


def lora_file(lora: Lora, local_files_only: bool = False) -> Path:
    """Return the file of a LoRA, from the disk, the cache or the hub.

    Raises:
        MissingError: it is in none of them; ModelError: it is a pickle, or not the only one of its folder.
    """
    path = Path(lora.name)
    if path.is_file():
        check_no_pickle(path, "--lora")
        return path
    owner_and_name = "/".join(lora.name.split("/")[:2])
    wanted = "" if path.is_dir() else lora.name.removeprefix(owner_and_name).strip("/")
    if not path.is_dir() and (
        not re.fullmatch(r"[\w.-]+/[\w.-]+", owner_and_name)
        or lora.name.startswith((".", "/"))
        or owner_and_name.endswith(".safetensors")
    ):
        raise ModelError(
            f"--lora must be a .safetensors file, a folder or a hub name (owner/name). {lora.name!r} is "
            "none of them. Check the spelling."
        )

    def one_of(names: Collection[str]) -> list[str]:
        files = [n for n in names if n.endswith(".safetensors")]
        return [n for n in files if n == (wanted or _DEFAULT)] or ([] if wanted or len(files) != 1 else files)

    place = lora.name if path.is_dir() else owner_and_name
    folder = gather(
        place,
        lambda names: [] if one_of(names) else [wanted or f"{_DEFAULT}, or one .safetensors file alone"],
        one_of,
        "Name the file itself: --lora FILE, or --lora OWNER/NAME/FILE.",
        local_files_only,
    )
    return folder / one_of(files_in(folder))[0]


def check_lora(file: Path, context: int | None = None) -> Shapes:
    """Refuse a file that is no LoRA, or for another model; return its shapes.

    Args:
        context: numbers a token that the model's U-Net takes: 768 of Stable Diffusion 1.x, 1024 of 2.x. None
            where it is not known yet.

    Raises:
        ModelError: says what it is.
    """
    shapes = read_header(file)
    what = describe(shapes)
    if what != LORA:
        raise ModelError(
            f"--lora FILE must be a LoRA. {file} is {what}. A whole checkpoint is named by --model FILE."
        )
    if any("hada_w" in name or "lokr_w" in name for name in shapes):
        raise ModelError(
            f"--lora FILE must be a plain LoRA. {file} is a LoHa or LoKr, which diffusers does not read. "
            "Choose another."
        )
    other = next((what for mark, what in _OTHERS.items() if any(mark in name for name in shapes)), None)
    width = next(
        (s[1] for n, s in shapes.items() if "attn2" in n and "to_k" in n and n.endswith(_DOWN)), None
    )
    if other or (width and context and width != context):
        raise ModelError(
            f"a LoRA must be made for its model. {file} is for {other or _of_width(width)}; the model is "
            f"{_of_width(context)}. Choose a LoRA for it."
        )
    return shapes


def _of_width(width: int | None) -> str:
    return _WIDTHS.get(width, f"one of {width} numbers a token") if width else f"{SD1} or {SD2}"


def add_loras(pipeline, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Add LoRAs to the weights of a loaded pipeline, by diffusers' own loader; nothing of them stays beside.

    Raises:
        ModelError: one does not fit the model, or in part only.
    """
    check_peft()
    names, parts = [], (pipeline.unet, pipeline.text_encoder)
    for i, lora in enumerate(loras):
        file = lora_file(lora, local_files_only)
        shapes = check_lora(file, pipeline.unet.config.cross_attention_dim)
        names.append(f"lora{i}")
        try:
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=names[-1])
        except Exception as error:  # diffusers and peft fail in their own ways on a strange file
            raise ModelError(
                f"a LoRA must fit its model. {file} does not ({error}). Choose another."
            ) from error
        expected = sum(name.endswith(_DOWN) for name in shapes)
        fitted = sum(names[-1] in getattr(m, "lora_A", ()) for part in parts for m in part.modules())
        if fitted < expected:
            raise ModelError(
                f"a LoRA must fit its model. {fitted} of the {expected} layers of {file} do. Choose one "
                "that was made for this model."
            )
    pipeline.set_adapters(names, [lora.scale for lora in loras])
    pipeline.fuse_lora(adapter_names=names)
    pipeline.unload_lora_weights()


def check_peft() -> None:
    """Refuse --lora where the library that reads LoRAs is not installed.

    Raises:
        ModelError: says how to install it.
    """
    if find_spec("peft") is None:
        raise ModelError(
            "--lora needs the package peft, through which diffusers reads LoRAs. It is not installed. "
            "Install it: pip install peft"
        )
