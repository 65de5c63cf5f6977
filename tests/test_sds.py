"""SDS: its gradient written out independently, the place of the bound, and closed forms of a Gaussian."""

import json
import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from sjc_debiased.clipping import clip
from sjc_debiased.denoiser import Conditioning, sigma_table
from sjc_debiased.guidance import Query
from sjc_debiased.guidance.build import build_guidance
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS, weight
from sjc_debiased.optimize import optimize_step
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import resolve
from sjc_debiased.options.forms import MEAN_WEIGHTS
from sjc_debiased.options.profiles import STABLE_DIFFUSION
from tests.options import options
from tests.test_contracts import Gaussian, scene_of

ABAR = (1 - torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
WEIGHTINGS = {
    "sds": lambda abar: 1 - abar,
    "uniform": lambda abar: 1.0,
    "fantasia3d": lambda abar: math.sqrt(abar) * (1 - abar),
}


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("timestep", [20, 300, 979])
def test_the_gradient_is_that_of_sds_written_out(weighting, timestep):
    """w(t) (eps - n) at x_t = sqrt(abar) x + sqrt(1 - abar) n, in float64, against the loop's way there."""
    abar = ABAR[timestep].item()
    random = torch.Generator().manual_seed(timestep)
    x, n, eps = torch.randn(3, 1, 4, 8, 8, generator=random, dtype=torch.float64)
    gradient = WEIGHTINGS[weighting](abar) * (eps - n)

    sigma = sigma_table(ABAR)[timestep].double()
    noised = x + sigma * n
    denoised = noised - sigma * eps  # what a network that answers eps at sqrt(abar) noised = x_t makes of it
    query = Query(noised, sigma, Conditioning((x[:, :1],)), 1.0)
    direction = SDS(weighting=weighting).answer(x, query, denoised)
    assert direction.weight == 1.0
    torch.testing.assert_close(-direction.value, gradient, atol=1e-6, rtol=1e-6)


def test_the_mean_weights_of_stable_diffusion():
    """0.632 over timesteps 20 to 980: by so much, on average, the same bound is looser than PAAS's."""
    sigmas = sigma_table(ABAR)[20:981]
    assert torch.stack([weight("sds", s) for s in sigmas]).mean().item() == pytest.approx(0.632, abs=1e-3)


@pytest.mark.parametrize("table", MEAN_WEIGHTS)
@pytest.mark.parametrize("weighting", MEAN_WEIGHTS["linear"])
def test_the_mean_weights_by_which_bounds_are_scaled(weighting, table):
    abar = {"linear": ABAR, "cosine": DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod}[table]
    found = torch.stack([weight(weighting, s) for s in sigma_table(abar)[20:981]]).mean().item()
    assert found == pytest.approx(MEAN_WEIGHTS[table][weighting], abs=5e-4)


def pushed(guidance, clip_value):
    """Return the gradient that one step of the loop puts on a picture, and the step."""
    scene = scene_of(
        guidance, "a prompt as long as fifty letters is a mean of 5.0", clip=(clip_value, clip_value)
    )
    scene.optimizer.step = lambda: None
    (step,) = optimize_step([scene], Gaussian())
    return scene.field.picture.grad, step


def test_the_bound_is_on_what_is_weighted():
    """Of PAAS, at the same draws, the bound is on the direction; of SDS on w times it."""
    free, step = pushed(PAAS(), None)
    w = weight("sds", step.sigma)
    bound = 0.5 * free.abs().median().item()
    of_paas, _ = pushed(PAAS(), bound)
    of_sds, recorded = pushed(SDS(), bound)
    torch.testing.assert_close(of_paas, free.clamp(-bound, bound))
    torch.testing.assert_close(of_sds, (w * free).clamp(-bound, bound))
    torch.testing.assert_close(recorded.direction, -w * free)
    assert not torch.allclose(of_sds, w * free.clamp(-bound, bound), atol=1e-3)


def phi(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def cumulative(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


@pytest.mark.parametrize("bound", [None, 0.2])
def test_the_mean_of_the_clipped_gradient_of_a_gaussian(bound):
    """Data of N(mu, v): n - eps is normal, mean m and deviation d, and the clipped mean is in closed form."""
    mu, v, x, timestep = 0.7, 0.25, -0.4, 400
    abar = ABAR[timestep].item()
    a, s = math.sqrt(abar), math.sqrt(1 - abar)
    total = a * a * v + s * s
    w = 1 - abar
    m, d = -w * s * a * (x - mu) / total, w * a * a * v / total
    expected = m
    if bound is not None:
        low, high = (-bound - m) / d, (bound - m) / d
        inside = m * (cumulative(high) - cumulative(low)) - d * (phi(high) - phi(low))
        expected = inside - bound * cumulative(low) + bound * (1 - cumulative(high))

    sigma = sigma_table(ABAR)[timestep]
    picture = torch.full((1, 1, 400, 500), x)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    noised = picture + sigma * noise
    denoised = (mu * sigma**2 + noised * v) / (v + sigma**2)
    query = Query(noised, sigma, Conditioning((picture[:, :1],)), 1.0)
    value = SDS().answer(picture, query, denoised).value
    assert clip(value, bound).mean().item() == pytest.approx(expected, abs=2e-3)
    assert value.std().item() == pytest.approx(d, rel=0.01)


def run_of(**given):
    (run,) = resolve(options(prompt=("a cat",), **given), STABLE_DIFFUSION, "sd", "0")
    return run


def built(**given):
    return build_guidance(run_of(**given), Gaussian(), [])


def test_options_choose_it():
    assert built() == PAAS()
    assert built(guidance_form="sds") == SDS(PAAS(101.0), "sds")
    guidance = built(guidance_form="sds", weighting="fantasia3d", guidance=99.0, timesteps=("20", "981"))
    assert (guidance.weighting, guidance.paas.scale, guidance.paas.timesteps.at(3)) == (
        "fantasia3d",
        99.0,
        (20, 981),
    )
    with pytest.raises(OptionError, match="--weighting belongs to --guidance_form sds and vsd"):
        run_of(weighting="uniform")


def test_a_run_with_it_logs_the_share_of_clipped_values(command):
    code, (folder,) = command("--guidance_form", "sds", "--preset", "dsds-preserved", "--clip.start", "0.1")
    assert code == 0
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert len(rows) == 60
    assert np.mean([row["clipped_fraction"] for row in rows]) > 0
