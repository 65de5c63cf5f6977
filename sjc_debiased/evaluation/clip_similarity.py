"""CLIP similarity by azimuth (D-SDS Fig. 5): which view prompt does the object match from where?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

TURNS = {"front": 0.0, "side": 90.0, "back": 180.0}
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
    return abs(turned - TURNS[view])


@cache
def load_clip(name: str):
    """Return model and processor of any transformers CLIP, from a folder or the hub, loaded once."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(name, use_safetensors=True).float().eval()
    return model, CLIPImageProcessor.from_pretrained(name), CLIPTokenizer.from_pretrained(name)


def similarities(images: Tensor, texts: list[str], name: str) -> np.ndarray:
    """Return cosine similarities of images [n, 3, h, w] in [-1, 1] and texts, float [n, len(texts)]."""
    model, processor, tokenizer = load_clip(name)
    u8 = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    pixels = processor(images=list(u8), return_tensors="pt").pixel_values
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pixels)
    return (outputs.image_embeds @ outputs.text_embeds.T).numpy()


def azimuth_curves(
    images: Tensor, azimuth_deg: np.ndarray, view_prompts: dict[str, str], prompt: str, name: str
) -> AzimuthCurves:
    """Measure every azimuth against every view prompt and the plain prompt.

    Every method is measured against the same prompts, "VIEW view PROMPT" as D-SDS
    writes them, whatever it sent itself.

    Args:
        images: [n, 3, h, w] in [-1, 1]. view_prompts: by view, for the views of `TURNS`.
    """
    table = similarities(images, [*(view_prompts[v] for v in TURNS), prompt], name)
    return AzimuthCurves(azimuth_deg, {v: table[:, i] for i, v in enumerate(TURNS)}, table[:, -1])
