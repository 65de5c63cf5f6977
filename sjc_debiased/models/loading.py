"""From a name to a loaded model: find its files, fetch what is missing, load its parts, wrap them.

The one place of the package that knows the adapters. It names one where it is used, so that no import of the
package needs one; an adapter itself imports the contract alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prompts.hub import files_in, megabytes
from prompts.quiet import quiet
from sjc_debiased.models import files as model_files
from sjc_debiased.models import single_file
from sjc_debiased.models.bars import parts_with_bar
from sjc_debiased.models.finding import Found, fetch_files, find_model
from sjc_debiased.models.lora import Lora, add_loras, check_lora, check_peft, lora_file
from sjc_debiased.models.pipelines import DEEPFLOYD_IF
from sjc_debiased.models.tensor_files import ModelError
from sjc_debiased.untrusted import read_json

if TYPE_CHECKING:
    import torch

    from sjc_debiased.denoiser import Denoiser


def check_prompts(location: str, prompts: list[str], local_files_only: bool = False) -> None:
    """Refuse prompts that the model's text encoder would cut; loads the tokenizer, not the model.

    Raises:
        ValueError: a prompt is too long; says what would be cut. Or the tokenizer is not the text encoder's.
        MissingError, ModelError: as `find_model`.
    """
    from adapt_sd import check_length

    found = find_model(location, local_files_only)
    if found.pipeline is DEEPFLOYD_IF:
        from sjc_debiased.models import deepfloyd

        tokenizer, prompts = deepfloyd.load_tokenizer(found), [deepfloyd.as_sent(p) for p in prompts]
        if not found.to_fetch:
            deepfloyd.TextReader(found).check(prompts)
    else:
        tokenizer = load_tokenizer(found)
    for prompt in prompts:
        check_length(tokenizer, prompt)


def check_loras(location: str, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Refuse LoRAs that cannot be read or are for another model, before the model is loaded.

    Raises:
        ModelError, MissingError: says what is wrong.
    """
    if not loras:
        return
    found = find_model(location, local_files_only)
    if found.pipeline is DEEPFLOYD_IF:
        raise ModelError(
            f"--lora changes Stable Diffusion 1.x and 2.x. {location} is DeepFloyd IF. Leave --lora out."
        )
    check_peft()
    folder = single_file.config_folder(found.family) if found.family else found.place
    context = read_json(folder / "unet" / "config.json").get("cross_attention_dim")
    for lora in loras:
        check_lora(lora_file(lora, local_files_only), context)


def load_tokenizer(found: Found):
    """Return a model's tokenizer, which is checked against its text encoder's vocabulary.

    Raises:
        ModelError: it cannot be read, or is not the text encoder's.
    """
    if found.family:
        return single_file.clip_tokenizer(found.family)
    from transformers import CLIPTokenizer

    from adapt_sd import check_vocabulary

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


def load_model(
    location: str,
    device: torch.device,
    dtype: torch.dtype,
    local_files_only: bool = False,
    loras: tuple[Lora, ...] = (),
    compiled: bool = False,
    prompts: Iterable[str] = (),
) -> Denoiser:
    """Load a 2D model onto a device.

    Args:
        dtype: of its networks, but the autoencoder's.
        loras: low-rank changes of the weights, added to them.
        compiled: compile its network at the first call; it goes on without where that fails.
        prompts: what it will be asked. A text encoder that reads ahead reads them first, and goes; others do
            not look at them.

    Raises:
        ModelError, MissingError: as `load_pipeline`.
        ValueError: it is none that an adapter knows.
    """
    found = _whole(location, local_files_only)
    if found.pipeline is DEEPFLOYD_IF:
        denoiser = _deepfloyd(found, device, dtype, prompts)
    else:
        from adapt_sd import StableDiffusion

        denoiser = StableDiffusion(_stable_diffusion(found, local_files_only, loras), device, dtype)
    if compiled:
        denoiser.compile()
    return denoiser


def load_pipeline(location: str, local_files_only: bool = False, loras: tuple[Lora, ...] = ()):
    """Load the parts that 3D needs of a Stable Diffusion pipeline: a folder, a hub name or a single file.

    Only safetensors are read, and no code of the model's is run.

    Args:
        loras: low-rank changes of the weights, added to them.

    Raises:
        ModelError: it is none that is supported, or damaged.
        MissingError: it is not within reach.
    """
    return _stable_diffusion(_whole(location, local_files_only), local_files_only, loras)


def _whole(location: str, local_files_only: bool) -> Found:
    """Return where a model is, with all of its files there."""
    found = find_model(location, local_files_only)
    if found.to_fetch:
        print(f"fetching {megabytes(sum(found.to_fetch.values()))} of {location} from the hub")
        fetch_files(location, found.to_fetch, found.place.name, found.pipeline)
        model_files.check_folder(found.place, location)
    return found


def _deepfloyd(found: Found, device: torch.device, dtype: torch.dtype, prompts: Iterable[str]):
    from adapt_if import DeepFloydIF
    from sjc_debiased.models.deepfloyd import TextReader, load_unet

    reader = TextReader(found)
    if ahead := list(prompts):
        reader(["", *ahead])  # so that the text encoder is gone before the U-Net comes
    unet, scheduler = load_unet(found, dtype)
    return DeepFloydIF(unet, scheduler, reader, device, dtype)


def _stable_diffusion(found: Found, local_files_only: bool, loras: tuple[Lora, ...]):
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
        files_of = {part: model_files.weight_files(part, names) for part in classes}
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
