"""SJC's guidance: perturb the picture, denoise the copies, average (`score`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance import Direction, Query
from sjc_debiased.schedules import TimestepRange
from sjc_debiased.score import paas_direction, perturb
from sjc_debiased.settings import GuidanceSettings
from voxnerf.rays import to_device


@dataclass(frozen=True)
class PAAS:
    """Perturb-and-average scoring; every noise level has the same weight.

    Attributes:
        scale, n_noise, var_red: as in `GuidanceSettings`.
        timesteps: from which the noise level is drawn; None leaves it to the 2D model, which draws as SJC.
    """

    scale: float = GuidanceSettings.scale
    n_noise: int = GuidanceSettings.n_noise
    var_red: bool = GuidanceSettings.var_red
    timesteps: TimestepRange | None = None

    def ask(
        self,
        picture: Float[Tensor, "1 c h w"],
        cond: Conditioning,
        step: int,
        rng: np.random.Generator,
        denoiser: Denoiser,
    ) -> Query:
        """Return `n_noise` copies of the picture, noised to one level that the 2D model draws."""
        bounds = () if self.timesteps is None else (self.timesteps.at(step),)
        sigma = denoiser.draw_sigma(rng, *bounds)
        noise = rng.standard_normal((self.n_noise, *picture.shape[1:]), dtype=np.float32)
        noised = perturb(picture, sigma, to_device(noise, picture.device))
        return Query(noised, sigma, cond.repeated(self.n_noise), self.scale)

    def answer(
        self, picture: Float[Tensor, "1 c h w"], query: Query, denoised: Float[Tensor, "n c h w"]
    ) -> Direction:
        """Return sigma * score."""
        return Direction(paas_direction(denoised, picture, query.noised, query.sigma, self.var_red))
