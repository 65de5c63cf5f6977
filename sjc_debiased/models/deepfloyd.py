"""The parts of a DeepFloyd IF folder: a text encoder that reads all prompts and goes, then the U-Net.

T5-XXL, of 4.7 billion parameters, is needed once for each prompt: what it makes of one stays on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.hub import download_command, files_in
from prompts.quiet import quiet
from sjc_debiased.folder.runs import atomic
from sjc_debiased.models import files as model_files
from sjc_debiased.models.bars import parts_with_bar
from sjc_debiased.models.files import CHOOSE, check_width
from sjc_debiased.models.fingerprints import digest_of, fingerprint_of
from sjc_debiased.models.tensor_files import ModelError
from sjc_debiased.models.tokens import check_length
from sjc_debiased.untrusted import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sjc_debiased.denoiser import Denoiser
    from sjc_debiased.models.finding import Found
    from sjc_debiased.models.lora import Lora

LAST_TIMESTEP = 980  # sigma 33.8; at 999 it is 20,291, where a picture is lost in rounding
MAX_TOKENS = 77  # of a prompt: T5 takes more, and IF was trained on these
_PADDED_TO = 128  # T5 has a few tokens more than its tokenizer, up to a multiple of this
_TEXT, _ENCODER, _UNET = "text", "text_encoder", "unet"


def as_sent(prompt: str) -> str:
    """Return a prompt as IF gets it: lowercase and stripped, as diffusers' `IFPipeline` does it.

    threestudio sends prompts as they are written.
    """
    return prompt.lower().strip()


def check_configs(configs: Mapping[str, Mapping], what: str) -> None:
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
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"IF must predict epsilon or v. The scheduler of {what} says {prediction!r}. {CHOOSE}"
        )
    width = unet.get("encoder_hid_dim") or unet.get("cross_attention_dim", 1280)
    check_width(configs["text_encoder"].get("d_model", 512), width, what)


def check_prompts(found: Found, prompts: list[str]) -> None:
    """Refuse prompts that T5 would cut; where all weights are there, also new ones that nothing can read.

    Raises:
        ValueError: says what would be cut, or what is missing. Or the tokenizer is not the text encoder's.
    """
    tokenizer, sent = load_tokenizer(found), [as_sent(prompt) for prompt in prompts]
    if not found.to_fetch:
        TextReader(found).check(sent)
    for prompt in sent:
        check_length(tokenizer, prompt)


def check_loras(found: Found, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Refuse LoRAs.

    Raises:
        ModelError: always.
    """
    raise ModelError(
        f"--lora changes Stable Diffusion 1.x and 2.x. {found.location} is DeepFloyd IF. Leave --lora out."
    )


def load(
    found: Found,
    device: torch.device,
    dtype: torch.dtype,
    loras: tuple[Lora, ...],
    local_files_only: bool,
    prompts: Sequence[str],
) -> Denoiser:
    """Return the model as a denoiser, after its text encoder has read the prompts and is gone.

    Raises:
        ModelError: it is damaged, or a prompt is new and the weights of T5 are absent.
    """
    from adapt_if import DeepFloydIF

    reader = TextReader(found)
    if prompts:
        reader(["", *prompts])  # so that the text encoder is gone before the U-Net comes
    unet, scheduler = load_unet(found, dtype)
    return DeepFloydIF(unet, scheduler, reader, device, dtype, LAST_TIMESTEP)


def texts_folder() -> Path:
    """Return where the embeddings of prompts are kept."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "sjc-debiased" / "texts"


def load_tokenizer(found: Found):
    """Return T5's tokenizer, limited to IF's 77 tokens.

    Raises:
        ModelError: it cannot be read, or is not the text encoder's.
    """
    from transformers import T5Tokenizer

    folder = found.place / "tokenizer"
    if not (folder / "tokenizer.json").exists() and not (_has("sentencepiece") and _has("google.protobuf")):
        raise ModelError(
            "a tokenizer in spiece.model is read by the packages sentencepiece and protobuf. That of "
            f"{found.location} is in one, and they are not installed. Install them: pip install "
            "sentencepiece protobuf"
        )
    try:
        with quiet("transformers"):
            tokenizer = T5Tokenizer.from_pretrained(
                folder, model_max_length=MAX_TOKENS, local_files_only=True
            )
    except Exception as error:  # the readers of both forms raise what they like
        raise ModelError(
            f"the tokenizer must be readable. That of {found.location} is not ({error}). Download its "
            "tokenizer/ again."
        ) from error
    size = read_json(found.place / _ENCODER / "config.json").get("vocab_size", 32128)
    if not 0 <= size - len(tokenizer) < _PADDED_TO:
        raise ModelError(
            f"the tokenizer must have the text encoder's tokens, {size} with what pads them. That of "
            f"{found.location} has {len(tokenizer)}. Download its tokenizer/ again."
        )
    return tokenizer


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


class TextReader:
    """Make embeddings of prompts, with T5 loaded for as long as that takes, or from what is kept of it.

    T5 gets its attention mask, the U-Net gets none: it sees all 77 places, as in diffusers' pipeline. T5
    stays on the CPU, in float32, or in bfloat16 where the folder has the fp16 files alone: float16 overflows.
    A prompt is read by itself, so that what is kept does not depend on others.
    """

    def __init__(self, found: Found):
        """Look at a folder whose files are all there, but for those of T5, which may be gone."""
        self._found = found
        self._weights = model_files.weight_files(_ENCODER, files_in(found.place), found.pipeline)
        self._model = fingerprint_of(found.location, found.pipeline, local_files_only=True)
        self._encoder = digest_of({file: found.place / file for file in self._weights})

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return the embeddings of prompts, [n, 77, width], on the CPU.

        Raises:
            ModelError: a prompt is new, and the weights of T5 are absent or broken; or it cannot be kept.
        """
        import torch

        self.check(prompts)
        sent = [as_sent(prompt) for prompt in prompts]
        kept = {text: self._kept(text) for text in sent}
        known = {text: embedding for text, embedding in kept.items() if embedding is not None}
        known |= self._read([text for text in kept if text not in known])
        return torch.stack([known[text] for text in sent])

    def check(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that are new where the weights of T5 are not there; nothing is loaded.

        Raises:
            ModelError: lists what is missing.
        """
        if self._weights or all(self._kept(as_sent(prompt)) is not None for prompt in prompts):
            return
        found = self._found
        file = f"{_ENCODER}/{found.pipeline.stems[_ENCODER]}.safetensors"
        why = model_files.what_is_missing([file], files_in(found.place), found.location, found.pipeline)
        fetch = download_command(found.location, found.pipeline.patterns)
        how = "" if Path(found.location).exists() else f" To fetch it: {fetch}."
        raise ModelError(f"{why}{how} Without it only prompts can be used that it has read before.")

    def _read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the embeddings of new prompts, and keep them; T5 is gone when this returns."""
        if not texts:
            return {}
        import torch
        from transformers import T5EncoderModel

        dtype = torch.bfloat16 if model_files.is_fp16(self._weights) else torch.float32
        load, made = partial(T5EncoderModel.from_pretrained, dtype=dtype), {}
        tokenizer, encoder = load_tokenizer(self._found), _load(load, self._found, _ENCODER, self._weights)
        for text in texts:
            tokens = tokenizer(text, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
            with torch.no_grad():
                read = encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state[0]
            if not torch.isfinite(read).all():
                raise ModelError(
                    f"embeddings must be finite. T5 of {self._found.location} makes others of {text!r}. "
                    "Download its text_encoder/ again."
                )
            made[text] = read
            self._keep(text, read)
        return made

    def _file(self, text: str) -> Path:
        """Return where the embedding of a prompt is kept, by the model and the prompt."""
        key = hashlib.sha256(f"{self._model} {MAX_TOKENS} {text}".encode()).hexdigest()
        return texts_folder() / f"{key}.safetensors"

    def _kept(self, text: str) -> Tensor | None:
        """Return what is kept of a prompt; None where it is new, its file is broken, or of another T5."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._file(text), framework="pt") as file:
                own = not self._weights or (file.metadata() or {}).get(_ENCODER) == self._encoder
                return file.get_tensor(_TEXT) if own else None
        except (OSError, SafetensorError):
            return None

    def _keep(self, text: str, embedding: Tensor) -> None:
        from safetensors.torch import save_file

        path = self._file(text)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as partial_path:
                save_file({_TEXT: embedding.contiguous()}, partial_path, metadata={_ENCODER: self._encoder})
        except OSError as error:
            raise ModelError(
                f"what T5 makes of prompts must be kept. {path.parent} cannot be written ({error}). Make it "
                "writable, or set XDG_CACHE_HOME to another place."
            ) from error


def load_unet(found: Found, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the U-Net of an IF folder, on the CPU, and its scheduler.

    Raises:
        ModelError: they cannot be read, or the weights do not fit the configuration.
    """
    import diffusers

    place = found.place
    files = model_files.weight_files(_UNET, files_in(place), found.pipeline)
    load = partial(diffusers.UNet2DConditionModel.from_pretrained, torch_dtype=dtype)
    unet = _load(load, found, _UNET, files)
    kind = getattr(diffusers, model_files.read_index(place)["scheduler"][1])
    return unet, kind.from_pretrained(place / "scheduler", local_files_only=True)


def _load(load: Callable[..., Any], found: Found, part: str, files: Sequence[str]) -> Any:
    """Return a part of a folder; refuse it where a tensor is absent or of another shape."""
    try:
        with quiet("transformers", "diffusers"):
            for _ in parts_with_bar(found.place, {part: files}):
                network, report = load(
                    found.place / part,
                    variant="fp16" if model_files.is_fp16(files) else None,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
        model_files.check_tensors(part, report)
    except Exception as error:  # each library has its own way to say that a file does not fit
        raise ModelError(
            f"a model's weights must fit its configuration. Those of {found.location} do not ({error}). "
            "Download it again, or choose another one."
        ) from error
    return network.eval()
