"""How far half precision moves the direction, against float32, in one run.

python benchmarks/bench_precision.py [--model menagerie|FOLDER] [--device cpu|cuda] [--guidance 100]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import tyro
from diffusers import AutoencoderTiny

from benchmarks.common import describe
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.menagerie.creatures import random_creature
from sjc_debiased.menagerie.report import Embedded
from sjc_debiased.menagerie.train_autoencoder import encode
from sjc_debiased.menagerie.world import portrait
from sjc_debiased.models.choose import choose_model
from sjc_debiased.models.loading import load_model
from sjc_debiased.score import paas_direction, perturb

TIMESTEPS = (50, 200, 400, 600, 800, 950)


def main(
    model: str = "menagerie", device: str = "cpu", guidance: tuple[float, ...] = (100.0, 30.0), n: int = 8
) -> None:
    """Print the error of the direction, root mean square over that of float32's, by timestep.

    The pictures are photographs of the menagerie's world on the menagerie, else noise of latents' size; noise
    and prompt are the same in every precision.

    Args:
        n: pictures a timestep.
    """
    choice, place = choose_model(model, device), torch.device(device)
    denoisers = {
        dtype: load_model(choice.location, place, dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    }
    exact = denoisers[torch.float32]
    latents = _latents(exact, choice.name == "menagerie", n).to(place)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(place)
    print(f"{choice.name}, {n} pictures a timestep, {describe(place)}\n")
    print(f"| guidance | precision | {' | '.join(f't = {t}' for t in TIMESTEPS)} |")
    print("|---" * (len(TIMESTEPS) + 2) + "|")
    for scale in guidance:
        found = {dtype: [] for dtype in denoisers}
        for timestep in TIMESTEPS:
            for dtype, denoiser in denoisers.items():
                found[dtype].append(_directions(denoiser, latents, noise, timestep, scale))
        for dtype in (torch.bfloat16, torch.float16):
            errors = [
                ((ours - theirs).square().mean() / theirs.square().mean()).sqrt().item()
                for ours, theirs in zip(found[dtype], found[torch.float32])
            ]
            row = " | ".join(f"{100 * error:.1f} %" for error in errors)
            print(f"| {scale:g} | {str(dtype).removeprefix('torch.')} | {row} |")


def _latents(denoiser: Embedded, of_the_world: bool, n: int) -> torch.Tensor:
    if not of_the_world:
        size = n, denoiser.channels, denoiser.size, denoiser.size
        return torch.randn(size, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    photos = [portrait(random_creature(rng), 360 * i / n, 15.0, i).image_u8 for i in range(n)]
    vae = AutoencoderTiny.from_pretrained(WEIGHTS / "vae")
    return encode(vae, torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2))


def _directions(
    denoiser: Embedded, latents: torch.Tensor, noise: torch.Tensor, timestep: int, scale: float
) -> torch.Tensor:
    cond = denoiser.condition(["front view of a smiling cat"])
    sigma = denoiser.sigmas[timestep]
    found = []
    for latent, its in zip(latents.split(1), noise.split(1)):
        noised = perturb(latent, sigma, its)
        denoised = denoiser.denoise(noised, sigma[None], cond, torch.tensor([scale]))
        found.append(paas_direction(denoised, latent, noised, sigma))
    return torch.cat(found)


if __name__ == "__main__":
    tyro.cli(main)
