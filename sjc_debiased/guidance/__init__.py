"""The contract of guidance: what is asked of the 2D model, and what is made of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sjc_debiased.denoiser import Conditioning, Denoiser


@dataclass(frozen=True)
class Query:
    """What the 2D model is asked about one picture, in n noised copies.

    Attributes:
        noised: [n, channels, height, width], without gradient.
        sigma: noise level of all copies, scalar.
        cond: of the n copies.
        scale: of classifier-free guidance.
    """

    noised: Float[Tensor, "n c h w"]
    sigma: Float[Tensor, ""]
    cond: Conditioning
    scale: float


@dataclass(frozen=True)
class Direction:
    """Where a picture should go.

    Attributes:
        value: [1, channels, height, width], without gradient, in units of predicted noise: what is clipped.
            For PAAS sigma * score; for SDS that times w(t), so that the same bound is looser.
        weight: multiplies what clipping leaves, scalar.
    """

    value: Float[Tensor, "1 c h w"]
    weight: Float[Tensor, ""] | float = 1.0


class Guidance(Protocol):
    """What draws a picture towards its prompt. The loop calls the 2D model in between, for several scenes."""

    def ask(
        self,
        picture: Float[Tensor, "1 c h w"],
        cond: Conditioning,
        step: int,
        rng: np.random.Generator,
        denoiser: Denoiser,
    ) -> Query:
        """Return what to ask about a picture.

        Args:
            picture: [1, channels, height, width], without gradient.
            cond: of this one picture.
            step: 0-based number of the optimisation step.
            rng: of this step; whatever is random is drawn from it.
            denoiser: that will be asked; it draws the noise level.
        """
        ...

    def answer(
        self, picture: Float[Tensor, "1 c h w"], query: Query, denoised: Float[Tensor, "n c h w"]
    ) -> Direction:
        """Return where the picture should go.

        Args:
            picture: as `ask` had it. query: what `ask` returned.
            denoised: D of each noised copy, [n, channels, height, width].
        """
        ...


@runtime_checkable
class TrainedGuidance(Guidance, Protocol):
    """Guidance with a model of its own, which learns from the renders; checkpoints hold its state."""

    def learn(self, picture: Float[Tensor, "1 c h w"], query: Query, rng: np.random.Generator) -> None:
        """Learn from a render, after the step of its scene.

        Args:
            picture: as `ask` had it. query: what `ask` returned.
            rng: of this step, after what `ask` drew.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return whatever resuming needs, by name."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state.

        Raises:
            KeyError, RuntimeError: it is of another guidance.
        """
        ...
