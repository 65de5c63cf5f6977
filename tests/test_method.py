"""Score, clipping, losses: hand numbers, closed forms, invariants."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sjc_debiased.clipping import clip, within
from sjc_debiased.denoiser import drawn_sigma, guided, nearest_timestep, sigma_table
from sjc_debiased.losses import center_depth_loss
from sjc_debiased.optimize import Settings
from sjc_debiased.schedules import ClipSchedule
from sjc_debiased.score import paas_direction, perturb


def direction_of(denoise, latent, sigma, noise, var_red=True):
    noised = perturb(latent, sigma, noise)
    return paas_direction(denoise(noised, sigma.expand(len(noise))), latent, noised, sigma, var_red)


def gaussian_denoiser(mu, s):
    return lambda z, sigma: (
        (mu * sigma.view(-1, 1, 1, 1) ** 2 + z * s**2) / (s**2 + sigma.view(-1, 1, 1, 1) ** 2)
    )


def test_paas_of_a_gaussian_has_its_closed_form():
    mu, s, sigma = 0.7, 0.5, torch.tensor(1.3)
    latent = torch.full((1, 4, 3, 3), -0.4)
    noise = torch.randn(20_000, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = sigma * (mu + 0.4) / (s**2 + sigma**2)
    direction = direction_of(gaussian_denoiser(mu, s), latent, sigma, noise)
    torch.testing.assert_close(direction, torch.full_like(latent, expected), atol=0.01, rtol=0)


def test_without_variance_reduction_the_mean_noise_is_subtracted():
    latent, noise = torch.randn(1, 4, 3, 3), torch.randn(3, 4, 3, 3)
    denoise = gaussian_denoiser(0.1, 0.8)
    eq16 = direction_of(denoise, latent, torch.tensor(0.9), noise)
    eq15 = direction_of(denoise, latent, torch.tensor(0.9), noise, var_red=False)
    torch.testing.assert_close(eq16 - eq15, noise.mean(0, keepdim=True))


def test_eps_form():
    """With D(z) = z - sigma eps the direction is n - eps."""
    latent, noise, eps = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    direction = direction_of(lambda z, s: z - s.view(-1, 1, 1, 1) * eps, latent, torch.tensor(2.0), noise)
    torch.testing.assert_close(direction, noise - eps, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("step", "value"), [(0, 2.0), (2500, 3.5), (5000, 5.0), (7500, 6.5), (9999, 7.9994)])
def test_the_papers_schedule(step, value):
    assert ClipSchedule(2.0, 8.0).value(step, 10_000) == pytest.approx(value)


def test_no_clipping_and_static_clipping():
    assert ClipSchedule(None, None).value(3, 10) is None
    assert ClipSchedule(4.0, 4.0).value(3, 10) == 4.0
    direction = torch.tensor([-9.0, 0.5, 3.0])
    assert clip(direction, None) is direction
    assert clip(direction, 2.0).tolist() == [-2.0, 0.5, 2.0]
    torch.testing.assert_close(clip(clip(direction, 2.0), 2.0), clip(direction, 2.0))


def test_an_answer_outside_the_range_of_pictures_is_brought_to_its_edge():
    """By channel: the first in [-1, 1], the second in [0, 3]."""
    answer = torch.tensor([[[[-2.0, 0.5]], [[-0.5, 4.0]]]])
    assert within(answer, (-1.0, 0.0, 1.0, 3.0)).tolist() == [[[[-1.0, 0.5]], [[0.0, 3.0]]]]
    assert within(answer, ()) is answer


def test_sigma_table_of_stable_diffusion():
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    sigmas = sigma_table((1 - betas).cumprod(0))
    known = {0: 0.0291672, 10: 0.0982911, 100: 0.343931, 500: 1.618279, 969: 12.228761, 999: 14.614641}
    for timestep, sigma in known.items():
        assert sigmas[timestep].item() == pytest.approx(sigma, rel=1e-5)
    assert sigmas[10:970].mean().item() == pytest.approx(2.7272, abs=1e-3)


def test_the_last_level_of_zero_terminal_snr_is_no_number_and_never_drawn():
    sigmas = sigma_table(torch.tensor([0.9, 0.5, 0.0]))
    assert sigmas.tolist() == pytest.approx([1 / 3, 1.0])
    rng = np.random.default_rng(0)
    assert {float(drawn_sigma(sigmas, rng, (1, 2))) for _ in range(9)} == {1.0}
    with pytest.raises(ValueError, match=r"end at 1.*HIGH of at most 2"):
        drawn_sigma(sigmas, rng, (0, 3))


def test_sigma_is_snapped_to_the_nearest():
    sigmas = torch.tensor([0.1, 0.5, 2.0])
    asked = torch.tensor([0.0, 0.29, 0.31, 1.2, 1.3, 99.0])
    assert nearest_timestep(sigmas, asked).tolist() == [0, 0, 1, 1, 2, 2]


def test_guidance_is_sjcs_form():
    u, c = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), 3.0)
    assert guided(u, c, 100.0) == 201.0
    assert guided(u, c, 1.0) == c
    assert guided(u, c, 100.0) == c + 99.0 * (c - u), "D-SDS Eq. 3 with s = scale - 1"


def test_emptiness_weight_jumps_at_half_of_the_steps():
    settings = Settings(n_steps=10_000)
    assert settings.emptiness_weight_at(4999) == 1e4
    assert settings.emptiness_weight_at(5000) == 2e5


def test_step_sizes_fall_over_the_second_half():
    settings = Settings(n_steps=100, lr=0.5, lr_end=0.1)
    assert [settings.lr_share_at(step) for step in (0, 50, 75, 100, 150)] == pytest.approx(
        [1, 1, 0.55, 0.1, 0.1]
    )
    assert {Settings().lr_share_at(step) for step in (0, 9999)} == {1.0}
    assert replace(settings, schedule_steps=50).lr_share_at(50) == pytest.approx(0.1)


def test_depth_losses_have_the_same_gradient_where_the_centre_is_nearer():
    gradients = []
    for form in ("published", "corrected"):
        depth = torch.full((64, 64), 5.0)
        depth[7:57, 7:57] = 1.0
        depth.requires_grad_()
        loss = center_depth_loss(depth, form)
        loss.backward()
        gradients.append(depth.grad)
        assert math.isnan(loss.item()) == (form == "published")
    torch.testing.assert_close(*gradients)
    assert loss.item() == pytest.approx(-math.log(4.0))
    assert gradients[0][32, 32] > 0, "descent brings the centre nearer"


def test_corrected_depth_loss_is_zero_where_the_centre_is_farther():
    depth = torch.ones(8, 8, requires_grad=True)
    loss = center_depth_loss(depth, "corrected")
    loss.backward()
    assert loss.item() == 0
    assert (depth.grad == 0).all()


@pytest.mark.parametrize("form", ["published", "corrected"])
@pytest.mark.parametrize("shape", [(64, 64), (32, 32), (16, 24), (5, 3)])
def test_the_depth_loss_is_that_of_masks_bit_for_bit(form, shape):
    """As SJC's code computes it: means over a boolean mask of the centre and over the rest."""
    depth = torch.rand(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    top, left = (round(n * 7 / 64) for n in shape)
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[top : shape[0] - top, left : shape[1] - left] = True
    gap = depth[~inside].mean() - depth[inside].mean()
    if form == "published":
        expected = -torch.log(-gap + 1e-12)
    else:
        expected = -torch.log(torch.where(gap > 0, gap, torch.ones_like(gap)))
    ours = center_depth_loss(depth, form)
    for a, b in zip(*((t, *torch.autograd.grad(t, depth)) for t in (ours, expected))):
        torch.testing.assert_close(a, b, atol=0, rtol=0, equal_nan=True)
