"""Variational score distillation (ProlificDreamer, arXiv:2305.16213): a second model learns the renders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.guidance import Direction, Query
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import weight
from sjc_debiased.score import perturb
from sjc_debiased.settings import Weighting
from sjc_debiased.training_state import restore_training, training_state
from voxnerf.rays import to_device


class OwnModel(Protocol):
    """A denoiser of one scene's own renders, which is trained; `OwnUNet` is one."""

    def __call__(
        self,
        noised: Float[Tensor, "n c h w"],
        sigma: Float[Tensor, "n"],
        cond: Conditioning,
        pose: Float[Tensor, "n 16"],
    ) -> Float[Tensor, "n c h w"]:
        """Return D_q(noised; sigma), without classifier-free guidance, differentiable: [n, c, h, w].

        Args:
            noised: [n, c, h, w]. sigma: [n]. cond: of n pictures.
            pose: camera-to-world matrices, row by row, [n, 16].
        """
        ...

    def draw_sigma(self, rng: np.random.Generator) -> Float[Tensor, ""]:
        """Draw a noise level to learn at, a scalar on the model's device."""
        ...

    def loss_weight(self, sigma: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return what a squared error of D_q weighs, so that it is one of the network's own answer."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all parameters; those that require a gradient are trained."""
        ...


class VSD:
    """Score distillation against a model of the scene's own renders, in place of the noise that was added.

    ProlificDreamer Eq. 9: at one noise level the gradient is w(t) (eps_pre - eps_q), that is -w(t) times

        (D_pre(x + sigma n; sigma) - D_q(x + sigma n; sigma)) / sigma

    where D_pre is guided and reads the view prompt, and D_q is not guided and reads a prompt without view
    words, and the camera. **The bound acts on w(t) times this direction**, as for SDS. After every step of
    the scene D_q takes one of its own, on the same render at a noise level of its own.

    Args:
        own: D_q, changed in place; each scene has its own.
        cond: what it is told, of one picture.
        poses: the camera of every step, camera-to-world row by row, [n_steps, 16], on the model's device.
        paas: copies, noise level and scale; ProlificDreamer has one copy and a scale of 7.5.
        weighting: of noise levels.
        lr: of AdamW (betas 0.9 and 0.999, weight decay 0.01); ProlificDreamer has 1e-4.
    """

    def __init__(
        self,
        own: OwnModel,
        cond: Conditioning,
        poses: Float[Tensor, "n_steps 16"],
        paas: PAAS,
        weighting: Weighting,
        lr: float,
    ):
        self.own, self.cond, self.poses, self.paas = own, cond, poses, paas
        self.weighting: Weighting = weighting
        self._trained = [(name, p) for name, p in own.named_parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW([p for _, p in self._trained], lr=lr)
        self._pose = poses[:1]

    def ask(
        self,
        picture: Float[Tensor, "1 c h w"],
        cond: Conditioning,
        step: int,
        rng: np.random.Generator,
        denoiser: Denoiser,
    ) -> Query:
        """Return the picture, noised, as PAAS does; note the camera for what follows in this step."""
        self._pose = self.poses[step : step + 1]
        return self.paas.ask(picture, cond, step, rng, denoiser)

    def answer(
        self, picture: Float[Tensor, "1 c h w"], query: Query, denoised: Float[Tensor, "n c h w"]
    ) -> Direction:
        """Return w(t) (D_pre - D_q) / sigma, of the mean of the copies."""
        with torch.no_grad():
            of_renders = self._denoise(query.noised, query.sigma)
        direction = ((denoised - of_renders) / query.sigma).mean(dim=0, keepdim=True)
        return Direction(weight(self.weighting, query.sigma) * direction)

    def learn(self, picture: Float[Tensor, "1 c h w"], query: Query, rng: np.random.Generator) -> None:
        """Take one step of D_q towards denoising this render."""
        sigma = self.own.draw_sigma(rng)
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        noised = perturb(picture, sigma, to_device(noise, picture.device))
        error = self._denoise(noised, sigma) - picture
        # The sum, not the mean: to Adam it is the same, and the gradients of half precision do not underflow.
        loss = (self.own.loss_weight(sigma) * error.square()).sum()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what resuming needs: what is trained, and AdamW's moments."""
        return training_state(self._trained, self._optimizer, "own", "adamw")

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state.

        Raises:
            KeyError, RuntimeError: it is of another model.
        """
        restore_training(state, self._trained, self._optimizer, "own", "adamw")

    def _denoise(self, noised: Tensor, sigma: Tensor) -> Tensor:
        n = len(noised)
        return self.own(noised, sigma.expand(n), self.cond.repeated(n), self._pose.expand(n, -1))
