"""docs/your_own_loop.md: its blocks run as they stand, and do in a foreign loop what D-SDS does."""

import re
from pathlib import Path

import pytest
import torch

from prompts.masked_lm import Bert
from prompts.views import VIEWS

PAGE = Path(__file__).parents[1] / "docs" / "your_own_loop.md"
IMPORTS, SDS, PAAS, DIFFUSERS, THREESTUDIO = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
CAMERAS = [(azimuth, elevation) for azimuth, elevation in ((0, 0), (90, 0), (180, 0), (0, 60))]
MU = dict(zip(VIEWS, (-0.6, -0.2, 0.2, 0.6)))


def run(block, **names):
    exec(compile(block, str(PAGE), "exec"), names)
    return names


class Contradicted:
    """A language model to which "smiling" is unlikely where the back is seen."""

    def gap_log_probabilities(self, texts, words):
        even = torch.full((len(texts), len(words)), 0.25, dtype=torch.float64)
        for row, text in zip(even, texts):
            if "smiling" in text:
                row[words.index("back")] = 0.05
        return even.log().numpy()


class Pictures:
    """A scene that is one picture for each camera, and the gradient of each as it came."""

    def __init__(self, channels=4, size=8, lr=0.02):
        self.seen = {camera: torch.zeros(1, channels, size, size, requires_grad=True) for camera in CAMERAS}
        self.optimizer = torch.optim.Adam(self.seen.values(), lr=lr)
        self.gradients = []

    def render(self, *camera):
        picture = self.seen[camera] * 1.0
        picture.register_hook(self.gradients.append)
        return picture


def gaussian(abar_of, asked, spread=0.5):
    """The exact noise prediction of N(mu, spread^2), where mu is the view's; `text` is the view prompt."""

    def predict_noise(noised, timestep, text):
        asked.append(text)
        mu, abar = MU[text.split()[0]], abar_of[timestep]
        return (1 - abar).sqrt() * (noised - abar.sqrt() * mu) / (abar * spread**2 + 1 - abar)

    return predict_noise


def test_the_names_at_the_top_are_there():
    assert {"DSDS_VIEWS", "Bert", "ClipSchedule", "clip", "debias_prompt", "generate", "load"} <= {
        *run(IMPORTS)
    }


@pytest.mark.parametrize("bounds", ["2.0, 8.0", "0.1, 0.2"])
def test_an_sds_loop_finds_each_views_mean_within_the_bound(bounds):
    torch.manual_seed(0)
    scene, asked, n_times = Pictures(), [], 150
    abar = torch.linspace(0.999, 0.005, 1000)
    run(
        SDS.replace("ClipSchedule(2.0, 8.0)", f"ClipSchedule({bounds})"),
        prompt="a smiling cat",
        masked_lm=Contradicted(),
        encode_text=lambda text: text,
        predict_noise=gaussian(abar, asked),
        alphas_cumprod=abar,
        cameras=CAMERAS * n_times,
        render=scene.render,
        optimizer=scene.optimizer,
    )
    assert asked[:4] == [
        "front view a smiling cat",
        "side view a smiling cat",
        "back view a cat",
        "top view a smiling cat",
    ]
    for picture, mu in zip(scene.seen.values(), MU.values()):
        assert picture.mean().item() == pytest.approx(mu, abs=0.05)
    start, end = map(float, bounds.split(","))
    largest = [gradient.abs().max().item() for gradient in scene.gradients]
    for step, value in enumerate(largest):
        assert value <= start + (end - start) * step / len(largest) + 1e-6
    if end < 1:
        assert largest[0] == pytest.approx(start), "the bound is reached, so it is what holds"


def test_the_loop_of_this_projects_model_runs_and_is_clipped(eps_folder, bert_folder):
    scene = Pictures()
    run(
        PAAS.replace("ClipSchedule(2.0, 8.0)", "ClipSchedule(0.5, 0.7)"),
        model=str(eps_folder),
        prompt="a smiling cat",
        masked_lm=Bert(str(bert_folder)),
        cameras=CAMERAS,
        render=scene.render,
        optimizer=scene.optimizer,
    )
    assert [g.abs().max().item() for g in scene.gradients] == pytest.approx([0.5, 0.55, 0.6, 0.65])


def test_the_functions_of_a_diffusers_pipeline_fit_into_the_loop(eps_folder, bert_folder):
    from diffusers import StableDiffusionPipeline

    pipe, scene = StableDiffusionPipeline.from_pretrained(eps_folder, safety_checker=None), Pictures()
    names = run(DIFFUSERS, torch=torch, pipe=pipe)
    run(
        SDS,
        prompt="a smiling cat",
        masked_lm=Bert(str(bert_folder)),
        cameras=CAMERAS,
        render=scene.render,
        optimizer=scene.optimizer,
        **{name: names[name] for name in ("encode_text", "predict_noise", "alphas_cumprod")},
    )
    assert all(0 < g.abs().max() <= 8 and torch.isfinite(g).all() for g in scene.gradients)
    text, noised = names["encode_text"]("a cat"), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        eps = names["predict_noise"](noised, torch.tensor([500]), text, scale=1.0)
        conditional = pipe.encode_prompt("a cat", "cpu", 1, do_classifier_free_guidance=False)[0]
        alone = pipe.unet(noised, 500, conditional).sample
    torch.testing.assert_close(eps, alone, msg="scale 1 is the prediction for the prompt")


def test_what_is_printed_for_threestudio(capsys):
    run(THREESTUDIO, prompt="a smiling cat", masked_lm=Contradicted())
    assert capsys.readouterr().out.splitlines() == [
        'system.prompt_processor.prompt_front="front view a smiling cat"',
        'system.prompt_processor.prompt_side="side view a smiling cat"',
        'system.prompt_processor.prompt_back="back view a cat"',
        'system.prompt_processor.prompt_overhead="top view a smiling cat"',
        "system.prompt_processor.front_threshold=22.5",
        "system.prompt_processor.back_threshold=45.0",
        "system.prompt_processor.overhead_threshold=41.81",
        "system.guidance.grad_clip=[0,2.0,8.0,10000]",
    ]
