"""One `.safetensors` file with a whole Stable Diffusion in it, as most people have theirs.

Such a file holds tensors and no word about them. The configuration of 1.x and 2.x and CLIP's vocabulary ship
with the code, so that it loads without a network; whether it predicts noise or v is asked of the U-Net.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sjc_debiased.models.tensor_files import SD1, SD2, ModelError

CONFIGS = Path(__file__).parent / "configs"
_MERGES = CONFIGS / "clip_merges.txt.gz"
_FOLDERS = {SD1: "sd1", SD2: "sd2"}
_PADDING = {SD1: "<|endoftext|>", SD2: "!"}
_V_SIZE = 96  # latents of the 2.x models that predict v, which were trained on 768 pixels


def clip_tokenizer(family: str):
    """Return CLIP's tokenizer, of 49,408 tokens and 77 positions, as Stable Diffusion 1.x or 2.x pads it."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(_MERGES.read_bytes()).decode().splitlines()
    merges: Any = [tuple(line.split()) for line in lines]  # the tokenizer's annotation knows no pairs
    letters = _byte_letters()
    tokens = [*letters, *(a + "</w>" for a in letters), *("".join(m) for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=_PADDING[family])


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte, in CLIP's order: the printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [*map(chr, printable), *(chr(256 + i) for i in range(256 - len(printable)))]


def config_folder(family: str) -> Path:
    """Return the folder with the configuration of a family's parts, in diffusers' format."""
    return CONFIGS / _FOLDERS[family]


def load(path: Path, family: str):
    """Load the pipeline of a single file that `check_checkpoint` has let through.

    Raises:
        ModelError: a tensor is missing or of another shape, or the network is neither of noise nor of v.
    """
    from diffusers import StableDiffusionPipeline

    try:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path),
            config=str(config_folder(family)),
            tokenizer=clip_tokenizer(family),
            local_files_only=True,
        )
        for part in ("unet", "vae", "text_encoder"):
            module = getattr(pipeline, part)
            absent = [n for n, p in module.named_parameters() if p.is_meta]
            if absent:
                raise ValueError(f"its {part} lacks {len(absent)} tensors, such as {absent[0]}")
            torch.nn.Module.to(module, torch.float32)
    except Exception as error:  # the converter fails on a strange file in its own ways
        why = "tensors are missing" if "meta tensor" in str(error) else error
        raise ModelError(
            f"a checkpoint must have the tensors of {family}. {path} has not ({why}). Use a diffusers "
            "folder of this model, or another checkpoint."
        ) from error
    _set_prediction(pipeline, path, family)
    return pipeline


def _set_prediction(pipeline, path: Path, family: str) -> None:
    unet, scheduler = pipeline.unet, pipeline.scheduler
    share = noise_share(unet, scheduler.alphas_cumprod[-1])
    if 0.25 < share < 0.75:
        raise ModelError(
            f"a checkpoint must predict noise or v. {path} predicts {share:.0%} of the noise that it is "
            "given at the highest level, which is neither. Use a diffusers folder of this model, whose "
            "scheduler says what it does."
        )
    predicts_v = share <= 0.25
    if predicts_v:
        pipeline.scheduler = scheduler.from_config(scheduler.config, prediction_type="v_prediction")
        if family == SD2:
            unet.register_to_config(sample_size=_V_SIZE)
    print(
        f"{path.name}: {family} that predicts {'v' if predicts_v else 'noise'}, as it shows at the highest "
        "noise level"
    )


@torch.no_grad()
def noise_share(unet, alpha_cumprod: Tensor) -> float:
    """Return how much of almost pure noise n a network gives back: <output, n> / <n, n> at the last timestep.

    There abar is 0.005. A network of noise returns n: about 1. One of v returns
    sqrt(abar) n - sqrt(1 - abar) x0, where its guess at x0 knows next to nothing of n: about 0.07, or less.
    """
    generator = torch.Generator().manual_seed(0)
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    noise = torch.randn(1, unet.config.in_channels, size, size, generator=generator)
    text = torch.zeros(1, 77, width)
    output = unet((1 - alpha_cumprod).sqrt() * noise, 999, text, return_dict=False)[0]
    return float((output * noise).sum() / noise.square().sum())
