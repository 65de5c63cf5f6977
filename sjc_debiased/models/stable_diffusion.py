"""Stable Diffusion 1.x and 2.x: what fits together, and how a folder or a single file is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prompts.hub import files_in
from prompts.quiet import quiet
from sjc_debiased.models import files as model_files
from sjc_debiased.models.bars import parts_with_bar
from sjc_debiased.models.files import CHOOSE, check_width
from sjc_debiased.models.lora import Lora, add_loras, check_lora, check_peft, lora_file
from sjc_debiased.models.tensor_files import ModelError
from sjc_debiased.models.tokens import check_length, check_vocabulary
from sjc_debiased.untrusted import read_json

if TYPE_CHECKING:
    import torch

    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.models.finding import Found


def check_configs(configs: Mapping[str, Mapping], what: str) -> None:
    """Refuse a pipeline whose parts do not fit together, by their configuration.

    Raises:
        ModelError: names the parts.
    """
    unet, text = configs["unet"], configs["text_encoder"]
    channels, latents = unet.get("in_channels", 4), configs["vae"].get("latent_channels", 4)
    if channels != latents:
        raise ModelError(
            f"the U-Net must take the autoencoder's {latents} latent channels. That of {what} takes "
            f"{channels}, as inpainting and other editing models do. {CHOOSE}"
        )
    prediction = configs["scheduler"].get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"the model must predict epsilon or v. The scheduler of {what} says {prediction!r}. {CHOOSE}"
        )
    asked = [k for k in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if unet.get(k)]
    if asked:
        raise ModelError(
            f"the U-Net must ask for text alone. That of {what} has {', '.join(asked)}. {CHOOSE}"
        )
    check_width(text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280), what)


def check_prompts(found: Found, prompts: list[str]) -> None:
    """Refuse prompts that CLIP would cut.

    Raises:
        ValueError: says what would be cut. Or the tokenizer is not the text encoder's.
    """
    tokenizer = load_tokenizer(found)
    for prompt in prompts:
        check_length(tokenizer, prompt)


def check_loras(found: Found, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Refuse LoRAs that cannot be read or are for another model.

    Raises:
        ModelError, MissingError: says what is wrong.
    """
    from sjc_debiased.models.single_file import config_folder

    check_peft()
    folder = config_folder(found.family) if found.family else found.place
    context = read_json(folder / "unet" / "config.json").get("cross_attention_dim")
    for lora in loras:
        check_lora(lora_file(lora, local_files_only), context)


def load_tokenizer(found: Found):
    """Return a model's tokenizer, which is checked against its text encoder's vocabulary.

    Raises:
        ModelError: it cannot be read, or is not the text encoder's.
    """
    if found.family:
        from sjc_debiased.models.single_file import clip_tokenizer

        return clip_tokenizer(found.family)
    from transformers import CLIPTokenizer

    try:
        with quiet("transformers"):
            tokenizer = CLIPTokenizer.from_pretrained(found.place / "tokenizer", local_files_only=True)
    except Exception as error:  # the reader of tokenizer.json raises plain Exceptions
        raise ModelError(
            f"the tokenizer must be readable. That of {found.location} is not ({error}). Download its "
            "tokenizer/ again."
        ) from error
    size = read_json(found.place / "text_encoder" / "config.json").get("vocab_size", 49408)
    try:
        check_vocabulary(tokenizer, size)
        _check_merges(tokenizer)
    except ValueError as error:
        raise ModelError(f"{found.location} cannot be used: {error}") from error
    return tokenizer


def _check_merges(tokenizer) -> None:
    """Refuse a byte-pair encoding whose merges are cut: its words would fall apart into letters.

    Raises:
        ValueError: says how many tokens nothing can make.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    made = {m.replace(" ", "", 1) if isinstance(m, str) else "".join(m) for m in model["merges"]}
    added = set(tokenizer.get_added_vocab())
    unmade = [
        t for t in model["vocab"] if len(t.removesuffix("</w>")) > 1 and t not in made and t not in added
    ]
    if len(unmade) > len(model["vocab"]) // 100:
        raise ValueError(
            f"the tokenizer's merges must make its tokens. Those of {len(unmade)} of {len(model['vocab'])} "
            "are missing: merges.txt is cut. Download the model's tokenizer/ again."
        )


def load(
    found: Found,
    device: torch.device,
    dtype: torch.dtype,
    loras: tuple[Lora, ...],
    local_files_only: bool,
    prompts: Sequence[str],
) -> Denoiser:
    """Return the model as a denoiser; its text encoder stays, so that prompts are read when they come.

    Raises:
        ModelError: as `load_pipeline`.
    """
    from adapt_sd import StableDiffusion

    return StableDiffusion(load_pipeline(found, loras, local_files_only), device, dtype)


def load_pipeline(found: Found, loras: tuple[Lora, ...] = (), local_files_only: bool = False):
    """Load the parts that 3D needs as a pipeline of diffusers, from a folder or a single file.

    Only safetensors are read, and no code of the model's is run.

    Args:
        loras: low-rank changes of the weights, added to them.

    Raises:
        ModelError: it is damaged, or a LoRA does not fit.
    """
    from sjc_debiased.models import single_file

    with quiet("transformers", "diffusers"):
        pipeline = single_file.load(found.place, found.family) if found.family else _load_folder(found)
        if loras:
            add_loras(pipeline, loras, local_files_only)
    return pipeline


def _load_folder(found: Found):
    import diffusers
    from transformers import CLIPTextModel

    folder, index = found.place, model_files.read_index(found.place)
    names = files_in(folder)
    parts: dict[str, Any] = {"tokenizer": load_tokenizer(found)}
    try:
        scheduler = getattr(diffusers, index["scheduler"][1])
        classes: dict[str, Any] = {
            "unet": diffusers.UNet2DConditionModel,
            "vae": getattr(diffusers, index["vae"][1]),
            "text_encoder": CLIPTextModel,
        }
        parts["scheduler"] = scheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        files_of = {part: model_files.weight_files(part, names, found.pipeline) for part in classes}
        for part in parts_with_bar(folder, files_of):
            parts[part], report = classes[part].from_pretrained(
                folder / part,
                variant="fp16" if model_files.is_fp16(files_of[part]) else None,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            model_files.check_tensors(part, report)
    except ModelError:
        raise
    except Exception as error:  # each library has its own way to say that a file does not fit
        raise ModelError(
            f"a model's weights must fit its configuration. Those of {found.location} do not ({error}). "
            "Download it again, or choose another one."
        ) from error
    parts |= {"safety_checker": None, "feature_extractor": None}
    return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
