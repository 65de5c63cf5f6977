"""Stage 5: the judge, a small ResNet that says whether a face is seen and from which azimuth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from sjc_debiased.menagerie.creatures import random_creature
from sjc_debiased.menagerie.dataset import halved, pictures_of, take_photo
from sjc_debiased.menagerie.judge import AZIMUTH_BINS, FACE_VISIBLE_SHARE, LABELS
from sjc_debiased.menagerie.spoil import spoil, spoil_latents
from sjc_debiased.menagerie.train_autoencoder import encode
from sjc_debiased.menagerie.training import SEED, autocast, device, fit, save, step_generator

_BATCH = 64
_N_ODD = 8000
_N_HELD_OUT = 1500


def train(
    images: np.ndarray,
    truths: list[dict],
    vae_folder: Path,
    work: Path,
    out: Path,
    n_steps: int,
    begin: Path | None = None,
) -> None:
    """Train on the album and on odd ones (two faces, none, blots), spoiled; calibrate on held-out ones.

    Args:
        begin: a judge's folder, from whose weights to start. None: from random ones.
    """
    vae = AutoencoderTiny.from_pretrained(vae_folder).to(device()).eval()
    odd = _cached(work / "odd.pt", _N_ODD, seed=51)
    held_out = _cached(work / "held_out.pt", _N_HELD_OUT, seed=52)
    face = torch.tensor([_face_seen(t["face_share"], t["coverage"]) for t in truths])
    azimuth = torch.tensor([_bin(t["azimuth_deg"], t["elevation_deg"], False) for t in truths])
    face, azimuth = torch.cat([face, odd["face"]]), torch.cat([azimuth, odd["azimuth"]])
    torch.manual_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=24,
            hidden_sizes=[24, 48, 72, 96],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            num_labels=len(LABELS),
            id2label=dict(enumerate(LABELS)),
        )
    )
    if begin is not None:
        model = ResNetForImageClassification.from_pretrained(begin).float()
    model.to(device())

    def photos_of(picks: list[int]) -> torch.Tensor:
        own = [i for i in picks if i < len(images)]
        others = [i - len(images) for i in picks if i >= len(images)]
        return torch.cat([pictures_of(images, own), odd["images"][others]])

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, stage=5)
        picks = torch.randint(len(images) + 4 * _N_ODD, (_BATCH,), generator=g)
        picks = torch.where(picks < len(images), picks, len(images) + picks % _N_ODD).sort().values
        pixels = spoiled_by_field(vae, photos_of(picks.tolist()), g)
        with autocast(pixels.device):
            logits = model(pixel_values=pixels).logits
        return _loss(logits.float().cpu(), face[picks], azimuth[picks])

    fit("judge", work, model, loss_at, n_steps, lr=2e-3)
    few = [photos_of(list(range(i, len(images) + _N_ODD, 997))) for i in range(40)]
    _settle(model, [spoiled_by_field(vae, some, step_generator(i, stage=7)) for i, some in enumerate(few)])
    _calibrate(model, vae, held_out)
    model.to("cpu", torch.float16).save_pretrained(out)


def spoiled_by_field(vae: AutoencoderTiny, images_u8: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Return photos in [-1, 1], halved, as the judge learns them: spoiled, three quarters as latents too."""
    pixels = halved(images_u8) / 255
    trip = torch.rand(len(pixels), generator=g) < 0.75
    latent = spoil_latents(encode(vae, images_u8[trip]), g)
    with torch.no_grad(), autocast(vae.device):
        back = vae.decode(latent.to(vae.device) / vae.config.scaling_factor).sample
    pixels[trip] = (halved(back.cpu()).clamp(-1, 1) + 1) / 2
    return (spoil(pixels, g) * 2 - 1).to(device())


def _loss(logits: torch.Tensor, face: torch.Tensor, azimuth: torch.Tensor) -> torch.Tensor:
    loss = F.binary_cross_entropy_with_logits(logits[:, 0], face.float())
    return loss + F.cross_entropy(logits[:, 1:], azimuth, ignore_index=-1)


@torch.no_grad()
def _settle(model: ResNetForImageClassification, batches: list[torch.Tensor]) -> None:
    """Let BatchNorm's statistics follow the averaged weights."""
    model.train()
    for pixels in batches:
        model(pixel_values=pixels)
    model.eval()


@torch.no_grad()
def _calibrate(model: ResNetForImageClassification, vae: AutoencoderTiny, held_out: dict) -> None:
    """Divide each head by the temperature that is likeliest on the held-out pictures."""
    g = step_generator(0, stage=6)
    spoiled = (spoiled_by_field(vae, some, g) for some in held_out["images"].split(_BATCH))
    logits = torch.cat([model(pixel_values=pixels).logits for pixels in spoiled]).float().cpu()
    zero = torch.zeros_like(logits)
    head = model.classifier[-1]
    temperatures = torch.logspace(-0.7, 0.7, 57)
    for part in (slice(0, 1), slice(1, None)):
        losses = []
        for temperature in temperatures:
            scaled = zero.clone()
            scaled[:, part] = logits[:, part] / temperature
            losses.append(_loss(scaled, held_out["face"], held_out["azimuth"]))
        best = temperatures[int(torch.stack(losses).argmin())]
        head.weight[part] /= best
        head.bias[part] /= best


def _cached(path: Path, n: int, seed: int) -> dict[str, torch.Tensor]:
    """Return creatures from everywhere, in turn as they are, two-faced, faceless, and faceless with blots."""
    if not path.exists():
        rng = np.random.default_rng([SEED, seed])
        images, face, azimuth = [], [], []
        for i in range(n):
            creature = random_creature(rng)
            blots = int(rng.integers(2, 7)) if i % 4 == 3 else 0
            oddity = {"extra_face": i % 4 == 1, "faceless": i % 4 >= 2, "n_blots": blots}
            creature = type(creature)(**(vars(creature) | oddity))
            azimuth_deg, elevation_deg = rng.uniform(0, 360), float(np.clip(rng.normal(15, 12), -6, 50))
            photo = take_photo(creature, azimuth_deg, elevation_deg, rng)
            images.append(torch.from_numpy(photo.image_u8).permute(2, 0, 1))
            face.append(_face_seen(photo.face_share, photo.coverage))
            azimuth.append(_bin(azimuth_deg, elevation_deg, creature.extra_face))
        data = {"images": torch.stack(images), "face": torch.tensor(face)}
        save(data | {"azimuth": torch.tensor(azimuth)}, path)
    return torch.load(path, weights_only=True)


def _face_seen(face_share: float, coverage: float) -> bool:
    return face_share > FACE_VISIBLE_SHARE * max(coverage, 1e-6)


def _bin(azimuth_deg: float, elevation_deg: float, two_faced: bool) -> int:
    """Return the azimuth bin, or -1 where there is no telling: two faces, or straight from above."""
    if two_faced or elevation_deg > 60:
        return -1
    return int((azimuth_deg % 360 + 180 / AZIMUTH_BINS) % 360 // (360 / AZIMUTH_BINS))
