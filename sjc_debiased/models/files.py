"""A diffusers folder or repository: which of its files a run needs, and whether they are there.

Decided by small JSON files and the headers of the weights, before anything large is fetched or read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sjc_debiased.models.tensor_files import SUPPORTED, ModelError
from sjc_debiased.options.profiles import Profile
from sjc_debiased.schedules import N_TIMESTEPS
from sjc_debiased.untrusted import read_json

if TYPE_CHECKING:
    import torch

    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.models.finding import Found
    from sjc_debiased.models.lora import Lora

INDEX = "model_index.json"
CHOOSE = f"Choose another model. Supported: {SUPPORTED}."


@dataclass(frozen=True)
class Pipeline:
    """A family of models: a pipeline of diffusers that has an adapter, and all that tells it from others.

    Attributes:
        class_name: in the index, `model_index.json`.
        title: what it is called where it is one of those that can be used.
        stems: what the files of weights are called, before .safetensors or .fp16.safetensors, by the part
            that they are of, in the order in which they are fetched.
        tokenizers: the files of its tokenizer, in either of two forms.
        patterns: what `hf download --include` takes to fetch no more than a run needs.
        profile: what it needs to be used for 3D.
        check_configs: refuses a model whose parts do not fit together, by their configuration and by how the
            person named it. Raises ModelError.
        check_prompts: refuses prompts that its text encoder would cut; loads no network. Raises ValueError.
        check_loras: refuses LoRAs that are not for it, and may fetch them unless told not to. Raises
            ModelError or MissingError.
        load: returns it on a device, its networks in a dtype, with LoRAs, which may be fetched unless it is
            told not to; the last argument is the prompts that it will be asked. Raises ModelError.
        owners: how names on the hub begin by which it is known without asking.
        pixels: its pictures are RGB and not latents.
        last_timestep: of its table of noise levels.
        vsd: VSD can make a second model of its U-Net (`guidance.own_unet`).
        reads_ahead: its text encoder is too large to stay: it reads all prompts first, and what it has read
            is kept on the disk, so that a run of known prompts needs no weights of it.
        terms: what must be done before the hub gives its files.
    """

    class_name: str
    title: str
    stems: Mapping[str, str]
    tokenizers: tuple[tuple[str, ...], ...]
    patterns: tuple[str, ...]
    profile: Profile
    check_configs: Callable[[Mapping[str, Mapping], str], None]
    check_prompts: Callable[[Found, list[str]], None]
    check_loras: Callable[[Found, tuple[Lora, ...], bool], None]
    load: Callable[[Found, torch.device, torch.dtype, tuple[Lora, ...], bool, Sequence[str]], Denoiser]
    owners: tuple[str, ...] = ()
    pixels: bool = False
    last_timestep: int = N_TIMESTEPS - 1
    vsd: bool = False
    reads_ahead: bool = False
    terms: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts that a run reads."""
        tokenizers = dict.fromkeys(file.split("/")[0] for files in self.tokenizers for file in files)
        return (*self.stems, *tokenizers, "scheduler")

    @property
    def configs(self) -> tuple[str, ...]:
        """Return the files that say what the parts are, but for the tokenizer."""
        return (*(f"{part}/config.json" for part in self.stems), "scheduler/scheduler_config.json")


def read_index(folder: Path) -> Mapping:
    """Return what a pipeline's index says of its parts.

    Raises:
        ModelError: it cannot be read.
    """
    return read_named(folder / INDEX, f"a pipeline must have a readable {INDEX}", str(folder))


def weight_files(part: str, names: Collection[str], pipeline: Pipeline) -> tuple[str, ...]:
    """Return the safetensors of a part among the names of files: in full precision if there, else fp16.

    In one file or in numbered ones with their index, in either spelling of the fp16 variant:
    `model.fp16-00001-of-00002.safetensors` or `model-00001-of-00002.fp16.safetensors`.
    """
    stem = f"{part}/{pipeline.stems[part]}"
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


def lacking(names: Collection[str], pipeline: Pipeline) -> list[str]:
    """Return the files that a run needs and that are not among these names.

    Weights of a text encoder that reads ahead are not: whether they are needed depends on the prompts.
    """
    missing = [file for file in (INDEX, *pipeline.configs) if file not in names]
    if not any(all(file in names for file in files) for files in pipeline.tokenizers):
        missing += [file for file in pipeline.tokenizers[1] if file not in names]
    needed = {p: s for p, s in pipeline.stems.items() if not (pipeline.reads_ahead and p == "text_encoder")}
    return missing + [
        f"{p}/{stem}.safetensors" for p, stem in needed.items() if not weight_files(p, names, pipeline)
    ]


def weights(names: Collection[str], pipeline: Pipeline) -> list[str]:
    """Return the files of weights that a run needs, among these names."""
    return [file for part in pipeline.stems for file in weight_files(part, names, pipeline)]


def small_files(names: Collection[str], pipeline: Pipeline) -> list[str]:
    """Return everything but the weights that a run needs, the index first."""
    small = [
        n for n in names if n.split("/")[0] in pipeline.parts and n.endswith((".json", ".txt", ".model"))
    ]
    return [INDEX, *sorted(n for n in small if ".index." not in n)]


def what_is_missing(missing: Collection[str], names: Collection[str], what: str, pipeline: Pipeline) -> str:
    """Return the message of a pipeline that is not whole."""
    rule = f"--model must hold {', '.join(pipeline.parts)}. {what} lacks {', '.join(missing)}"
    pickles = sorted(n for n in names if n.split("/")[0] in pipeline.stems and n.endswith(".bin"))
    if pickles and all(m.split("/")[0] in pipeline.stems for m in missing):
        return (
            f"{rule}: it has pickles ({', '.join(pickles)}), which can run code when they are read. Convert "
            "them, without running any: python -m sjc_debiased.convert FOLDER"
        )
    return f"{rule}. Download the whole pipeline again."


def read_configs(folder: Path, what: str, pipeline: Pipeline) -> dict[str, Mapping]:
    """Return what the configuration of each part says.

    Raises:
        ModelError: one cannot be read.
    """
    rule = "a model's configuration must be readable JSON"
    return {file.split("/")[0]: read_named(folder / file, rule, what) for file in pipeline.configs}


def check_width(text: int, taken: int, what: str) -> None:
    """Refuse a text encoder whose tokens have not as many numbers as the U-Net takes.

    Raises:
        ModelError: gives both.
    """
    if text != taken:
        raise ModelError(
            f"the U-Net must take the text encoder's {text} numbers a token. That of {what} takes "
            f"{taken}: parts of two models. Take both from the same one."
        )


def read_named(path: Path, rule: str, what: str) -> Mapping:
    """Return what a JSON file holds.

    Args:
        rule: how an error begins. what: how the person named the model.

    Raises:
        ModelError: it cannot be read.
    """
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
