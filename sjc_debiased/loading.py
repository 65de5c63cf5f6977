"""From a name to a loaded model: find its files, fetch what is missing, load its parts, wrap them.

The one place of the package that knows an adapter. It names it where it is used, so that no import of the
package needs one; an adapter itself imports the contract alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.hub import (
    MissingError,
    cache_of,
    cached,
    download_command,
    fetch,
    files_in,
    listing,
    megabytes,
    message,
)
from prompts.quiet import quiet
from sjc_debiased import model_files, single_file
from sjc_debiased.bars import parts_with_bar
from sjc_debiased.foreign import read_json
from sjc_debiased.lora import Lora, add_loras, check_lora, check_peft, lora_file
from sjc_debiased.model_files import INDEX, PATTERNS, ModelError
from sjc_debiased.tensor_files import check_checkpoint

if TYPE_CHECKING:
    import torch

    from sjc_debiased.denoiser import Denoiser

WAYS_OUT = (
    "Or name a folder or a .safetensors file: --model FOLDER; or use the embedded model: --model menagerie."
)


@dataclass(frozen=True)
class Found:
    """Say where a model is, and what is still to be fetched of it.

    Attributes:
        location: how it was named.
        place: its folder (of a hub name: in the cache), or its single file.
        family: "Stable Diffusion 1.x" or "... 2.x" of a single file; None of a folder.
        to_fetch: weights that the hub will be asked for, with their sizes in bytes.
    """

    location: str
    place: Path
    family: str | None = None
    to_fetch: dict[str, int] = field(default_factory=dict)

    def weights(self) -> dict[str, int]:
        """Return the files of weights that are there, with their sizes in bytes."""
        if self.family:
            return {str(self.place): self.place.stat().st_size}
        sizes = files_in(self.place)
        return {name: sizes[name] for name in model_files.weights(sizes)}

    def __str__(self) -> str:
        if self.family:
            return f"weights: {self.place} ({megabytes(self.place.stat().st_size)}), {self.family}"
        there = [f"{n} ({megabytes(size)})" for n, size in self.weights().items()]
        lines = [f"weights in {self.place}: {', '.join(there) or 'none'}"]
        if self.to_fetch:
            missing = [f"{n} ({megabytes(size)})" for n, size in self.to_fetch.items()]
            lines.append(f"weights that will be fetched from the hub: {', '.join(missing)}")
        return "\n".join(lines)


def find_model(location: str, local_files_only: bool = False) -> Found:
    """Find a model's files and decide whether they can be used, before anything large is fetched or read.

    Of a hub name the small files are fetched where they are not in the cache; the hub is asked at most once.

    Raises:
        ModelError: it is none that is supported, or damaged.
        MissingError: it is not within reach; lists what is missing and where it was looked for.
    """
    place = Path(location)
    if place.is_file():
        return Found(location, place, check_checkpoint(place))
    if place.is_dir():
        model_files.check_folder(place, location)
        return Found(location, place)
    folder = cached(location)
    names = files_in(folder)
    if folder and INDEX in names:
        model_files.check_index(folder / INDEX, location)
    if folder and not model_files.lacking(names):
        model_files.check_folder(folder, location)
        return Found(location, folder)
    return _find_on_hub(location, folder, names, local_files_only)


def _find_on_hub(name: str, folder: Path | None, names: dict[str, int], local_files_only: bool) -> Found:
    missing, places = model_files.lacking(names), [f"the cache ({cache_of(name)})"]
    command = download_command(name, PATTERNS)
    remedy = f"Download them where there is a network ({command}), or copy the cache. {WAYS_OUT}"
    if local_files_only:
        raise MissingError(message(name, missing, [*places, "nowhere else: --local_files_only"], remedy))
    revision = folder.name if folder else None
    try:
        there = listing(name, revision)
    except MissingError as error:
        raise MissingError(message(name, missing, [*places, str(error)], remedy)) from error
    if INDEX not in there.sizes:
        files = [n for n in there.sizes if "/" not in n and n.endswith(".safetensors")]
        raise ModelError(
            f"--model NAME must be a diffusers pipeline on the hub. {name} has no {INDEX}"
            + (
                f"; it has {', '.join(files)}. Download one of them and name it: --model FILE."
                if files
                else ". "
            )
            + ("" if files else "Check the name.")
        )
    if folder is None or INDEX not in names:
        folder = fetch(name, [INDEX], revision)
    model_files.check_index(folder / INDEX, name)
    still = model_files.lacking(there.sizes)
    if still:
        raise ModelError(model_files.what_is_missing(still, there.sizes, name))
    folder = fetch(name, model_files.small_files(there.sizes), folder.name)
    model_files.check_configs(folder, name)
    to_fetch = {n: there.sizes[n] for n in model_files.weights(there.sizes) if n not in names}
    return Found(name, folder, to_fetch=to_fetch)


def check_prompts(location: str, prompts: list[str], local_files_only: bool = False) -> None:
    """Refuse prompts that the model's text encoder would cut; loads the tokenizer, not the model.

    Raises:
        ValueError: a prompt is too long; says what would be cut. Or the tokenizer is not the text encoder's.
        MissingError, ModelError: as `find_model`.
    """
    from adapt_sd import check_length

    tokenizer = load_tokenizer(find_model(location, local_files_only))
    for prompt in prompts:
        check_length(tokenizer, prompt)


def check_loras(location: str, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Refuse LoRAs that cannot be read or are for another model, before the model is loaded.

    Raises:
        ModelError, MissingError: says what is wrong.
    """
    if not loras:
        return
    check_peft()
    found = find_model(location, local_files_only)
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
) -> Denoiser:
    """Load a 2D model onto a device.

    Args:
        dtype: of its networks, but the autoencoder's.
        loras: low-rank changes of the weights, added to them.
        compiled: compile its network at the first call; it goes on without where that fails.

    Raises:
        ModelError, MissingError: as `load_pipeline`.
        ValueError: it is none that an adapter knows.
    """
    from adapt_sd import StableDiffusion

    denoiser = StableDiffusion(load_pipeline(location, local_files_only, loras), device, dtype)
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
    found = find_model(location, local_files_only)
    if found.to_fetch:
        print(f"fetching {megabytes(sum(found.to_fetch.values()))} of {location} from the hub")
        fetch(location, found.to_fetch, found.place.name)
        model_files.check_folder(found.place, location)
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
            absent = sorted(report["missing_keys"])
            if absent:
                raise ValueError(f"its {part} lacks {len(absent)} tensors, such as {absent[0]}")
    except ModelError:
        raise
    except Exception as error:  # each library has its own way to say that a file does not fit
        raise ModelError(
            f"a model's weights must fit its configuration. Those of {found.location} do not ({error}). "
            "Download it again, or choose another one."
        ) from error
    parts |= {"safety_checker": None, "feature_extractor": None}
    return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
