"""The 2D score: perturb-and-average scoring (PAAS), SJC's estimate of the score at a clean render."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def perturb(
    latent: Float[Tensor, "1 c h w"], sigma: Float[Tensor, ""], noise: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """Return the noised copies latent + sigma * n_i, [n, ...] without gradient, that are to be denoised.

    Args:
        latent: [1, channels, height, width].
        sigma: scalar tensor.
        noise: n_i ~ N(0, I), [n, channels, height, width]; n = 1 in the published code.
    """
    return latent.detach() + sigma * noise


def paas_direction(
    denoised: Float[Tensor, "n c h w"],
    latent: Float[Tensor, "1 c h w"],
    noised: Float[Tensor, "n c h w"],
    sigma: Float[Tensor, ""],
    var_red: bool = True,
) -> Float[Tensor, "1 c h w"]:
    """Estimate sigma * score at a clean render from the denoised copies of it.

    SJC Eq. 16 (arXiv:2212.00774) times sigma, with n_i ~ N(0, I):

        direction = mean_i [D(latent + sigma * n_i; sigma) - latent] / sigma

    and without `var_red` Eq. 15, which subtracts the noised copy instead of the render; the two differ by
    the mean of n_i. With D(z; sigma) = z - sigma * eps they are n - eps and -eps. The unit is that of
    predicted noise, which is what `ClipSchedule` bounds. For the exact denoiser of N(mu, s^2) the
    expectation is sigma (mu - latent) / (s^2 + sigma^2).

    Args:
        denoised: D of each noised copy, [n, channels, height, width].
        latent: the render, [1, channels, height, width].
        noised: what `perturb` returned.
        sigma: scalar tensor.

    Returns:
        [1, channels, height, width], without gradient.
    """
    origin = latent.detach() if var_red else noised
    return ((denoised - origin) / sigma).mean(dim=0, keepdim=True)
