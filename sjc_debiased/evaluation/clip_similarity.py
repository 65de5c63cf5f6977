"""CLIP similarity by azimuth (D-SDS Fig. 5): which view prompt does the object match from where?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prompts.hub import download_command, gather
from prompts.quiet import quiet
from prompts.views import VIEW_AZIMUTHS_DEG
from voxnerf.snapshot import to_u8

CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
"""For other models than the menagerie: a ViT-B/32 in safetensors. OpenAI's own has pickles alone."""
PATTERNS = ("*.json", "merges.txt", "model.safetensors")
"""What `hf download --include` takes to fetch no more than this needs: 605 MB."""
WEIGHTS_FILE = "model.safetensors"
_ARC_DEG = 45.0


@dataclass(frozen=True)
class AzimuthCurves:
    """Hold cosine similarities by azimuth.

    Attributes:
        azimuth_deg: [n]. similarity: view -> [n], against that view's prompt.
        plain: [n], against the prompt without a view.
    """

    azimuth_deg: np.ndarray
    similarity: dict[str, np.ndarray]
    plain: np.ndarray

    def peak_deg(self, view: str) -> float:
        """Return the distance of the azimuth of highest similarity from the middle of the view, degrees."""
        best = self.azimuth_deg[int(np.argmax(self.similarity[view]))]
        return float(_off(best, view))

    def margin(self, view: str) -> float:
        """Return how much better the view's prompt fits within 45 degrees of it than outside, on average."""
        near = np.array([_off(a, view) <= _ARC_DEG for a in self.azimuth_deg])
        values = self.similarity[view]
        return float(values[near].mean() - values[~near].mean())


def _off(azimuth_deg: float, view: str) -> float:
    """Return the angle to the middle of a view; a side has two."""
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    return abs(turned - VIEW_AZIMUTHS_DEG[view])


def find_clip(name: str, local_files_only: bool = False) -> Path:
    """Return a folder with the files of a CLIP: the one that is named, or from the cache or the hub.

    Raises:
        MissingError: lists what is missing, and where it was looked for.
    """

    def lacking(files: Collection[str]) -> list[str]:
        missing = [
            file for file in ("config.json", "preprocessor_config.json", WEIGHTS_FILE) if file not in files
        ]
        has_tokenizer = "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= {*files}
        return missing + ([] if has_tokenizer else ["tokenizer.json"])

    def chosen(files: Collection[str]) -> list[str]:
        return [f for f in files if "/" not in f and any(fnmatch(f, pattern) for pattern in PATTERNS)]

    remedy = (
        "A CLIP in transformers' format, in safetensors, is needed. Download it where there is a network "
        f"({download_command(CLIP, PATTERNS)}), or name a local folder: --clip FOLDER."
    )
    return gather(name, lacking, chosen, remedy, local_files_only)


@cache
def load_clip(name: str):
    """Return model, image processor and tokenizer of any transformers CLIP, loaded once.

    Raises:
        MissingError: as `find_clip`.
        ValueError: its weights are not those of a whole CLIP.
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = find_clip(name)
    with quiet("transformers"):
        cls: Any = CLIPModel  # its annotations know no loading info
        model, report = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        processor = CLIPImageProcessor.from_pretrained(folder)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    absent, size = len(report["missing_keys"]), model.config.text_config.vocab_size
    if absent or len(tokenizer) != size:
        raise ValueError(
            f"--clip must be a whole CLIP with its own tokenizer. {name!r} lacks {absent} tensors and has "
            f"{len(tokenizer)} of {size} tokens. Download it again, or name another."
        )
    return model.float().eval(), processor, tokenizer


def similarities(images: Tensor, texts: list[str], name: str, device: str = "cpu") -> np.ndarray:
    """Return cosine similarities of images [n, 3, h, w] in [-1, 1] and texts, float [n, len(texts)].

    Args:
        device: where the network works.
    """
    model, processor, tokenizer = load_clip(name)
    model = model.to(device)
    pixels = processor(images=list(to_u8(images)), return_tensors="pt").pixel_values
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(
            input_ids=tokens.input_ids.to(device),
            attention_mask=tokens.attention_mask.to(device),
            pixel_values=pixels.to(device),
        )
    return (outputs.image_embeds @ outputs.text_embeds.T).cpu().numpy()


def azimuth_curves(
    images: Tensor,
    azimuth_deg: np.ndarray,
    view_prompts: dict[str, str],
    prompt: str,
    name: str,
    device: str = "cpu",
) -> AzimuthCurves:
    """Measure every azimuth against every view prompt and the plain prompt.

    Every method is measured against the same prompts, "VIEW view PROMPT" as D-SDS
    writes them, whatever it sent itself.

    Args:
        images: [n, 3, h, w] in [-1, 1]. view_prompts: by view, for the views of `VIEW_AZIMUTHS_DEG`.
    """
    table = similarities(images, [*(view_prompts[v] for v in VIEW_AZIMUTHS_DEG), prompt], name, device)
    return AzimuthCurves(azimuth_deg, {v: table[:, i] for i, v in enumerate(VIEW_AZIMUTHS_DEG)}, table[:, -1])
