"""Score distillation sampling (DreamFusion, arXiv:2209.14988, Eq. 3): PAAS times w(t), clipped after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance import Direction, Query
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.settings import Weighting


def weight(weighting: Weighting, sigma: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return w(t) at a noise level, as threestudio defines it, with abar = 1 / (1 + sigma^2).

    sds: 1 - abar. uniform: 1. fantasia3d: sqrt(abar) (1 - abar).
    """
    noise_share = sigma**2 / (1 + sigma**2)
    if weighting == "sds":
        return noise_share
    if weighting == "fantasia3d":
        return noise_share / (1 + sigma**2).sqrt()
    return sigma.new_ones(())


@dataclass(frozen=True)
class SDS:
    """Score distillation: at one noise level, SDS's gradient is -w(t) times the direction of PAAS.

    With x the picture, n ~ N(0, I) and x_t = sqrt(abar) x + sqrt(1 - abar) n it is w(t) (eps(x_t; t) - n).
    **The bound acts on w(t) times the direction**, as threestudio's `grad_clip` does, from which the paper's
    figures of other frameworks come (App. A.4); for PAAS it acts on the direction itself.

    Attributes:
        paas: the copies, the noise level and the scale; SDS has one copy.
        weighting: of noise levels.
    """

    paas: PAAS = PAAS()
    weighting: Weighting = "sds"

    def ask(
        self,
        picture: Float[Tensor, "1 c h w"],
        cond: Conditioning,
        step: int,
        rng: np.random.Generator,
        denoiser: Denoiser,
    ) -> Query:
        """Return the picture, noised, as PAAS does."""
        return self.paas.ask(picture, cond, step, rng, denoiser)

    def answer(
        self, picture: Float[Tensor, "1 c h w"], query: Query, denoised: Float[Tensor, "n c h w"]
    ) -> Direction:
        """Return w(t) sigma * score; nothing weighs it after the bound."""
        direction = self.paas.answer(picture, query, denoised).value
        return Direction(weight(self.weighting, query.sigma) * direction)
