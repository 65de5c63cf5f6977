"""The package as a library: names that are imported when asked for, and errors that speak of arguments."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

import sjc_debiased
from sjc_debiased import generate, load
from sjc_debiased.making.session import DivergedError
from sjc_debiased.options.profiles import Profile

SMALL = {"resolution": 12, "guidance": 2.0, "emptiness_weight": 1.0, "n_steps": 3}


@pytest.fixture
def small_model(eps_folder, bert_folder, tmp_path):
    """A tiny model whose profile makes tiny objects, with a language model of its own."""
    folder = shutil.copytree(eps_folder, tmp_path / "model")
    profile = asdict(Profile(**SMALL, masked_lm=str(bert_folder)))
    (folder / "profile.json").write_text(json.dumps(profile))
    return folder


def test_importing_it_is_instant_and_its_names_are_lazy():
    code = (
        "import sys, sjc_debiased\n"
        "assert not {'torch', 'numpy', 'tyro', 'transformers', 'diffusers'} & sys.modules.keys()\n"
        "assert set(sjc_debiased.__all__) <= set(dir(sjc_debiased))\n"
        "from sjc_debiased import DSDS_VIEWS\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()\n"
        "from sjc_debiased import Bert, ClipSchedule, clip, debias_prompt, generate, load\n"
        "assert not {'transformers', 'diffusers', 'lpips'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_is_there_and_no_other():
    for name in sjc_debiased.__all__:
        assert getattr(sjc_debiased, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = sjc_debiased.lod


def test_generate_makes_the_object_of_the_command(command, small_model):
    code, (folder,) = command("--debias", "--seed", "3", "--n_steps", "3", model=small_model)
    assert code == 0
    denoiser = load(str(small_model), "cpu", "float32")
    scene, prompts = generate("a smiling cat", seed=3, model=str(small_model), denoiser=denoiser)
    saved = load_file(folder / "checkpoints" / "step_000003.safetensors")
    for name, values in scene.field.named_parameters():
        assert torch.equal(saved[f"grid.{name}"], values), name
    assert scene.done == 3
    assert prompts.sent == json.loads((folder / "options.json").read_text())["view_prompts"]["sent"]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"prompt": "!"}, "prompt must have a word. It is '!'"),
        ({"preset": "dsd"}, "preset must be sjc, .* It is 'dsd'. Choose one."),
        ({"seed": -1}, "seed must be between 0 and 2147483647. It is -1."),
        ({"n_steps": 0}, "n_steps must be at least 1. It is 0."),
        ({"model": "sd16"}, "model must be auto, sd15, .* Received 'sd16'"),
        ({"model": "auto", "denoiser": object()}, "model must name what denoiser is. It is 'auto'."),
        ({"model": "gone.safetensors"}, "model FILE must be there"),
        ({"prompt": "a purple cat", "model": "menagerie"}, "Use these, or model sd15 for any words."),
    ],
)
def test_errors_of_generate_speak_of_arguments(wrong, rule):
    with pytest.raises(ValueError, match=f"^{rule}|{rule}$") as raised:
        generate(**{"prompt": "a cat", "model": "menagerie"} | wrong)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"device": "gpu"}, "device must be auto, cpu, cuda, cuda:N or mps. Received 'gpu'. Choose one."),
        ({"precision": "float8"}, "precision must be auto, .* Received 'float8'. Choose one."),
        ({"model": "nobody/nothing"}, "use the embedded model: model menagerie."),
    ],
)
def test_errors_of_load_speak_of_arguments(wrong, rule):
    with pytest.raises(ValueError, match=rule) as raised:
        load(**wrong)
    assert "--model" not in str(raised.value)


def test_what_did_not_stay_finite_is_not_returned(small_model, monkeypatch):
    denoiser = load(str(small_model), "cpu", "float32")
    monkeypatch.setattr(denoiser, "denoise", lambda noised, *_: noised * float("nan"))
    with pytest.raises(DivergedError, match="must stay finite"):
        generate("a cat", "dsds-preserved", n_steps=2, model=str(small_model), denoiser=denoiser)
