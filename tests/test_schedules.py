"""Schedules, and the range of timesteps: off, it changes nothing; on, every draw is in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adapt_sd import StableDiffusion
from sjc_debiased.denoiser import TIMESTEPS
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.options.command import OptionError
from sjc_debiased.options.config import resolve
from sjc_debiased.options.profiles import STABLE_DIFFUSION, Profile, load_profile
from sjc_debiased.schedules import Schedule, TimestepRange
from tests.options import options
from tests.small_models import load_pipeline


@pytest.mark.parametrize(
    ("text", "step", "value"),
    [
        *(("0:0.5,10000:2", *hand) for hand in ((0, 0.5), (2500, 0.875), (10_000, 2.0), (20_000, 2.0))),
        *(("10000:0,10001:1000", *hand) for hand in ((9999, 0.0), (10_000, 0.0), (10_001, 1000.0))),
        *(("5000:0.98,5001:0.5", *hand) for hand in ((0, 0.98), (5000, 0.98), (5001, 0.5))),
        ("0:10,1000:10,5000:1000", 2500, 381.25),
        ("1000:10,5000:1000", 0, 10.0),
        ("0:10,4000:1000", 2000, 505.0),
        ("980", 7, 980.0),
    ],
)
def test_the_numbers_of_threestudios_schedules(text, step, value):
    """`C` of threestudio's configurations at steps worked out by hand; written [s0, v0, v1, s1] there."""
    assert Schedule.parse(text).value(step) == pytest.approx(value)
    assert Schedule.parse(str(Schedule.parse(text))) == Schedule.parse(text)


@pytest.mark.parametrize(
    "text", ["", "a", "1:2:3", "5:1,5:2", "5:1,3:2", "-1:2,3:4", "0.5:1,2:3", "nan", "0:inf"]
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="a schedule must be a number, or STEP:VALUE"):
        Schedule.parse(text)


@pytest.mark.parametrize("ends", [("20", "20"), ("-1", "10"), ("0", "1001"), ("20", "0:980,100:10")])
def test_an_empty_range_is_refused_at_whatever_step_it_comes(ends):
    with pytest.raises(OptionError, match="--timesteps: timesteps must go from LOW"):
        resolve(options(prompt=("a cat",), timesteps=ends), STABLE_DIFFUSION, "sd", "0")


@pytest.fixture(scope="module")
def denoiser(eps_folder):
    return StableDiffusion(load_pipeline(str(eps_folder)), torch.device("cpu"), torch.float32)


def queries(denoiser, timesteps, n=200):
    guidance, cond = PAAS(timesteps=timesteps), denoiser.condition(["a cat"])
    picture = torch.zeros(1, 4, 8, 8)
    return [guidance.ask(picture, cond, i, np.random.default_rng([3, i]), denoiser) for i in range(n)]


def test_off_and_sjcs_own_range_draw_the_same_bits(denoiser):
    own = TimestepRange.parse(*map(str, TIMESTEPS))
    for one, other in zip(queries(denoiser, None), queries(denoiser, own)):
        assert torch.equal(one.sigma, other.sigma)
        assert torch.equal(one.noised, other.noised)
    rng = np.random.default_rng([3, 0])
    first = queries(denoiser, None, 1)[0]
    assert torch.equal(first.sigma, denoiser.sigmas[int(rng.integers(10, 970))])
    noise = torch.from_numpy(rng.standard_normal((1, 4, 8, 8), dtype=np.float32))
    assert torch.equal(first.noised, first.sigma * noise)


def test_every_draw_is_in_the_range_of_its_step(denoiser):
    drawn = queries(denoiser, TimestepRange.parse("20", "0:23,100:23,101:500"))
    timesteps = [int((denoiser.sigmas == query.sigma).nonzero()) for query in drawn]
    assert {*timesteps[:101]} == {20, 21, 22}, "the upper end is not in it"
    assert max(timesteps[101:]) > 300 and min(timesteps) >= 20 and max(timesteps) < 500


@pytest.mark.parametrize(
    ("n_steps", "high"),
    [
        (None, "0:700,400:700,800:350"),
        (1600, "0:700,800:700,1600:350"),
        (300, "0:700,150:700,300:350"),
        (1, "0:700,1:350"),
    ],
)
def test_a_profiles_range_is_stretched_to_the_run_and_an_options_is_not(n_steps, high):
    told = ("50", "0:700,400:700,800:350")
    profile = Profile(n_steps=800, timesteps=told)
    (run,) = resolve(options(prompt=("a cat",), n_steps=n_steps), profile, "sd", "0")
    assert run.guidance.timesteps == ("50", high)
    (run,) = resolve(options(prompt=("a cat",), n_steps=n_steps, timesteps=told), profile, "sd", "0")
    assert run.guidance.timesteps == told


def test_a_profile_and_an_option_say_the_range(tmp_path: Path):
    profile = Profile(timesteps=("20", "500"))
    (run,) = resolve(options(prompt=("a cat",)), profile, "sd", "0")
    assert run.guidance.timesteps == ("20", "500")
    (run,) = resolve(options(prompt=("a cat",), timesteps=("20.0", "0:980,50:5e2")), profile, "sd", "0")
    assert run.guidance.timesteps == ("20", "0:980,50:500")
    (run,) = resolve(options(prompt=("a cat",)), STABLE_DIFFUSION, "sd", "0")
    assert run.guidance.timesteps is None
    (tmp_path / "profile.json").write_text(json.dumps({"timesteps": [20, "0:980,50:500"]}))
    assert load_profile(str(tmp_path), STABLE_DIFFUSION).timesteps == ("20", "0:980,50:500")
    for bad in ([20], [500, 20], "20", 7, ["a", "b"]):
        (tmp_path / "profile.json").write_text(json.dumps({"timesteps": bad}))
        with pytest.raises(ValueError, match=r"a profile\.json must hold"):
            load_profile(str(tmp_path), STABLE_DIFFUSION)


def test_a_run_draws_from_its_range(command):
    code, (folder,) = command("--timesteps", "20", "40", "--n_steps", "20")
    assert code == 0
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert all(0.1 < row["sigma"] < 0.25 for row in rows)
