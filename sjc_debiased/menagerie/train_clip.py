"""Stage 4: a small CLIP, trained contrastively on photos and their captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from sjc_debiased.menagerie.captions import caption, view_of
from sjc_debiased.menagerie.dataset import halved, pictures_of
from sjc_debiased.menagerie.spoil import spoil
from sjc_debiased.menagerie.tokenizers import CONTEXT, clip_tokenizer
from sjc_debiased.menagerie.training import SEED, autocast, device, fit, step_generator

_BATCH = 96
_MEAN_STD = 0.5


def train(images: np.ndarray, truths: list[dict], work: Path, out: Path, n_steps: int) -> None:
    """Train on the album and save model, tokenizer and image processor."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    eos = tokenizer.eos_token_id
    tower = {"num_attention_heads": 4, "hidden_size": 128, "intermediate_size": 256}
    text = tower | {
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "bos_token_id": eos - 1,
        "eos_token_id": eos,
        "pad_token_id": eos,
    }
    vision = tower | {"num_hidden_layers": 3, "image_size": 128, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    model.to(device())
    views = [view_of(t["azimuth_deg"], t["elevation_deg"]) for t in truths]

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, stage=4)
        rng = np.random.default_rng([SEED, 4, step])
        picks = torch.randint(len(images), (_BATCH,), generator=g).numpy()
        texts = [caption(truths[i]["creature"], views[i], rng) for i in picks]
        ids = tokenizer(
            texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
        ).input_ids
        pixels = spoil(halved(pictures_of(images, picks)) / 255, g)
        pixels = ((pixels - _MEAN_STD) / _MEAN_STD).to(device())
        with autocast(pixels.device):
            outputs = model(input_ids=ids.to(device()), pixel_values=pixels)
        logits = outputs.logits_per_image.float()
        same = torch.tensor([[a == b for b in texts] for a in texts], device=logits.device).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    fit("clip", work, model, loss_at, n_steps, lr=1e-3)
    model.to("cpu", torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = {"height": 128, "width": 128}
    CLIPImageProcessor(
        size={"shortest_edge": 128},
        crop_size=size,
        image_mean=[_MEAN_STD] * 3,
        image_std=[_MEAN_STD] * 3,
    ).save_pretrained(out)
