"""A diffusers folder or repository: which of its files a run needs, and whether they fit together.

Decided by small JSON files and the headers of the weights, before anything large is fetched or read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from prompts.hub import files_in
from sjc_debiased.models.pipelines import CHOOSE, DEEPFLOYD_IF, INDEX, STABLE_DIFFUSION, Pipeline, pipeline_in
from sjc_debiased.models.tensor_files import ModelError, read_header
from sjc_debiased.untrusted import read_json

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""What the weights of a part are called, before .safetensors or .fp16.safetensors."""


def check_index(path: Path, what: str) -> Pipeline:
    """Return what a pipeline is by its index; refuse one that no adapter knows.

    Args:
        what: how the person named it.

    Raises:
        ModelError: names the class, or says why the file cannot be read.
    """
    index = _read(path, f"--model FOLDER must be a diffusers pipeline with a readable {INDEX}", what)
    return pipeline_in(index, what)


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


def lacking(names: Collection[str], pipeline: Pipeline = STABLE_DIFFUSION) -> list[str]:
    """Return the files that a run needs and that are not among these names.

    Weights of a text encoder that reads ahead are not: whether they are needed depends on the prompts.
    """
    missing = [file for file in (INDEX, *pipeline.configs) if file not in names]
    if not any(all(file in names for file in files) for files in pipeline.tokenizers):
        missing += [file for file in pipeline.tokenizers[1] if file not in names]
    needed = [p for p in pipeline.weighty if not (pipeline.reads_ahead and p == "text_encoder")]
    return missing + [f"{p}/{STEMS[p]}.safetensors" for p in needed if not weight_files(p, names)]


def weights(names: Collection[str], pipeline: Pipeline = STABLE_DIFFUSION) -> list[str]:
    """Return the files of weights that a run needs, among these names."""
    return [file for part in pipeline.weighty for file in weight_files(part, names)]


def small_files(names: Collection[str], pipeline: Pipeline = STABLE_DIFFUSION) -> list[str]:
    """Return everything but the weights that a run needs, the index first."""
    small = [
        n for n in names if n.split("/")[0] in pipeline.parts and n.endswith((".json", ".txt", ".model"))
    ]
    return [INDEX, *sorted(n for n in small if ".index." not in n)]


def check_folder(folder: Path, what: str) -> Pipeline:
    """Return what a folder is; refuse one that no adapter knows, is not whole, or whose parts do not fit.

    Args:
        what: how the person named it.

    Raises:
        ModelError: says what is wrong, and the way out.
    """
    pipeline = check_index(folder / INDEX, what)
    names = files_in(folder)
    missing = lacking(names, pipeline)
    if missing:
        raise ModelError(what_is_missing(missing, names, what, pipeline))
    check_configs(folder, what, pipeline)
    for file in weights(names, pipeline):
        if file.endswith(".safetensors"):
            read_header(folder / file)
    return pipeline


def what_is_missing(
    missing: Collection[str], names: Collection[str], what: str, pipeline: Pipeline = STABLE_DIFFUSION
) -> str:
    """Return the message of a pipeline that is not whole."""
    rule = f"--model must hold {', '.join(pipeline.parts)}. {what} lacks {', '.join(missing)}"
    pickles = sorted(n for n in names if n.split("/")[0] in STEMS and n.endswith(".bin"))
    if pickles and all(m.split("/")[0] in STEMS for m in missing):
        return (
            f"{rule}: it has pickles ({', '.join(pickles)}), which can run code when they are read. Convert "
            "them, without running any: python -m sjc_debiased.convert FOLDER"
        )
    return f"{rule}. Download the whole pipeline again."


def check_configs(folder: Path, what: str, pipeline: Pipeline) -> None:
    """Refuse a pipeline whose parts do not fit together, by their configuration.

    Raises:
        ModelError: names the parts.
    """
    rule = "a model's configuration must be readable JSON"
    configs = {file.split("/")[0]: _read(folder / file, rule, what) for file in pipeline.configs}
    if pipeline is DEEPFLOYD_IF:
        _check_first_stage(configs, what)
    else:
        _check_stable_diffusion(configs, what)


def _check_stable_diffusion(configs: Mapping[str, Mapping], what: str) -> None:
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
    _check_width(text.get("hidden_size", 512), unet.get("cross_attention_dim", 1280), what)


def _check_first_stage(configs: Mapping[str, Mapping], what: str) -> None:
    """Refuse what is not DeepFloyd IF's first stage, by the configuration of its parts.

    Raises:
        ModelError: names what does not fit.
    """
    unet = configs["unet"]
    taken, given = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if taken != 3 or given not in (3, 6) or unet.get("class_embed_type"):
        stage = " and is told a second noise level" if unet.get("class_embed_type") else ""
        raise ModelError(
            "the U-Net of IF's first stage takes 3 channels and gives 6 (noise and variance), or 3. That of "
            f"{what} takes {taken}, gives {given}{stage}; a second stage, which enlarges pictures, takes 6. "
            f"{CHOOSE}"
        )
    prediction = configs["scheduler"].get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise ModelError(f"IF must predict epsilon. The scheduler of {what} says {prediction!r}. {CHOOSE}")
    width = unet.get("encoder_hid_dim") or unet.get("cross_attention_dim", 1280)
    _check_width(configs["text_encoder"].get("d_model", 512), width, what)


def _check_width(text: int, taken: int, what: str) -> None:
    """Refuse a text encoder whose tokens have not as many numbers as the U-Net takes.

    Raises:
        ModelError: gives both.
    """
    if text != taken:
        raise ModelError(
            f"the U-Net must take the text encoder's {text} numbers a token. That of {what} takes "
            f"{taken}: parts of two models. Take both from the same one."
        )


def _read(path: Path, rule: str, what: str) -> Mapping:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{rule}. {what} has none ({error}). Name the folder that `save_pretrained` or `hf download` "
            "wrote."
        ) from error


def check_tensors(part: str, report: Mapping[str, Collection[str]]) -> None:
    """Refuse a part whose loader says that tensors are absent.

    Args:
        report: what a loader returns with `output_loading_info`.

    Raises:
        ValueError: says how many, and one of them.
    """
    if absent := sorted(report["missing_keys"]):
        raise ValueError(f"its {part} lacks {len(absent)} tensors, such as {absent[0]}")
