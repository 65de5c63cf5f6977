"""The judge: is a face seen in this picture, and from which azimuth was it taken?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sjc_debiased.menagerie import WEIGHTS

AZIMUTH_BINS = 8
FACE_VISIBLE_SHARE = 0.05  # a face is seen where eyes, nose and mouth are over 5 % of the creature
LABELS = ("face", *(f"azimuth {360 // AZIMUTH_BINS * i}" for i in range(AZIMUTH_BINS)))


@dataclass(frozen=True)
class Verdict:
    """Hold calibrated probabilities: `face` [n]; `azimuth` [n, 8], bins of 45 degrees around 0, 45, ..."""

    face: Tensor
    azimuth: Tensor


class Judge:
    """Load the judge of the menagerie."""

    def __init__(self, folder=WEIGHTS / "judge"):
        from transformers import ResNetForImageClassification

        self._model = ResNetForImageClassification.from_pretrained(folder).float().eval()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Verdict:
        """Judge RGB images in [-1, 1], float [n, 3, h, w]; any size, they are resized to 128."""
        images = torch.nn.functional.interpolate(images.float(), (128, 128), mode="bilinear", antialias=True)
        logits = self._model(pixel_values=images).logits
        return Verdict(logits[:, 0].sigmoid(), logits[:, 1:].softmax(-1))
