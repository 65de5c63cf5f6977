"""DeepFloyd IF's first stage: a tiny one with random weights, in diffusers' own folder format."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, IFPipeline
from safetensors.torch import load_file, save_file
from transformers import T5Tokenizer

from adapt_if import DeepFloydIF
from sjc_debiased.denoiser import TIMESTEPS
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.models import deepfloyd
from sjc_debiased.models.choose import choose_model, fingerprint
from sjc_debiased.models.deepfloyd import LAST_TIMESTEP, TextReader, texts_folder
from sjc_debiased.models.finding import find_model
from sjc_debiased.models.loading import check_loras, check_prompts, load_model
from sjc_debiased.models.lora import Lora
from tests.small_models import write_if

CPU = torch.device("cpu")
CAT = "a smiling cat"
T5 = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def if_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("if") / "model"
    write_if(folder)
    return folder


@pytest.fixture(autouse=True)
def texts(tmp_path, monkeypatch):
    """What is kept of prompts, empty at the start of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return texts_folder()


@pytest.fixture
def own_folder(if_folder, tmp_path):
    """A copy of the model that a test may change."""
    return shutil.copytree(if_folder, tmp_path / "model")


@pytest.fixture
def pipeline(if_folder):
    return IFPipeline.from_pretrained(if_folder)


def load(folder, prompts=(), dtype=torch.float32):
    return load_model(str(folder), CPU, dtype, local_files_only=True, prompts=prompts)


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("timestep", [10, 300, 969])
@pytest.mark.parametrize("guidance", [1.0, 21.0])
def test_denoised_equals_the_schedulers_pred_original_sample(if_folder, pipeline, timestep, guidance):
    """As IFPipeline steps: the noise is guided, the variance is the prompt's; D needs the first alone."""
    model = load(if_folder)
    noised_vp = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    told = [*reversed(pipeline.encode_prompt(CAT))]
    with torch.no_grad():
        none, text = (pipeline.unet(noised_vp, timestep, t).sample.split(3, dim=1) for t in told)
    output = torch.cat([none[0] + guidance * (text[0] - none[0]), text[1]], dim=1)
    plain = {"thresholding": False, "clip_sample": False}
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, **plain)
    assert scheduler.config.variance_type == "learned_range"
    scheduler.set_timesteps(1000)
    reference = scheduler.step(output, timestep, noised_vp).pred_original_sample
    sigma = model.sigmas[timestep]
    noised = noised_vp * (1 + sigma**2).sqrt()
    ours = model.denoise(noised, sigma[None], model.condition([CAT]), torch.tensor([guidance]))
    size = reference.abs().max()
    torch.testing.assert_close(ours / size, reference / size, atol=1e-5, rtol=1e-5)


def test_a_network_that_gives_v_is_asked_for_it(own_folder):
    """D of diffusers' own scheduler, from the same network's answer read as v."""
    with_change("scheduler/scheduler_config.json", prediction_type="v_prediction")(own_folder)
    model, noised_vp = load(own_folder), torch.randn(1, 3, 16, 16)
    (text,) = model.condition([CAT]).parts
    with torch.no_grad():
        v = model.unet(noised_vp, 300, text).sample[:, :3]
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )
    reference = scheduler.step(v, 300, noised_vp).pred_original_sample
    sigma = model.sigmas[300]
    noised = noised_vp * (1 + sigma**2).sqrt()
    ours = model.denoise(noised, sigma[None], model.condition([CAT]), torch.ones(1))
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def test_the_variance_has_no_part_in_it(if_folder):
    model = load(if_folder)
    arguments = torch.randn(2, 3, 16, 16), model.sigmas[[50, 800]], model.condition([CAT, "a dog"])
    scale = torch.tensor([21.0, 3.0])
    before = model.denoise(*arguments, scale)
    with torch.no_grad():
        model.unet.conv_out.weight[3:] += 1
        model.unet.conv_out.bias[3:] -= 7
    assert torch.equal(model.denoise(*arguments, scale), before)
    with torch.no_grad():
        model.unet.conv_out.bias[:3] -= 7
    assert not torch.equal(model.denoise(*arguments, scale), before)


def test_noise_alone_is_enough(tmp_path):
    write_if(tmp_path / "noise", size=8, out_channels=3)
    model = load(tmp_path / "noise")
    cond = model.condition([CAT])
    denoised = model.denoise(torch.randn(1, 3, 8, 8), model.sigmas[300:301], cond, torch.ones(1))
    assert denoised.shape == (1, 3, 8, 8)


def test_sigmas_are_those_of_the_cosine_table(if_folder):
    """Against the table worked out in float64 from its formula, Nichol and Dhariwal's Eq. 17."""
    model = load(if_folder)
    shown = {0: 0.006425, 10: 0.02686, 20: 0.04347, 200: 0.3375, 500: 1.0155, 800: 3.120, 980: 33.76}
    for timestep, sigma in shown.items():
        assert float(model.sigmas[timestep]) == pytest.approx(sigma, rel=2e-4)
    times = np.arange(1001) / 1000
    signal = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
    abar = np.cumprod(1 - np.minimum(1 - signal[1:] / signal[:-1], 0.999))
    exact = np.sqrt((1 - abar) / abar)[:981]
    np.testing.assert_allclose(model.sigmas, exact, rtol=2e-6)
    assert len(model.sigmas) == 981
    assert TIMESTEPS[1] <= 980
    highest = model.denoise(
        torch.zeros(1, 3, 16, 16), torch.tensor([2e4]), model.condition([CAT]), torch.ones(1)
    )
    assert torch.isfinite(highest).all()


def test_noise_levels_are_drawn_from_the_range(if_folder):
    model, rng = load(if_folder), np.random.default_rng(0)
    drawn = [model.draw_sigma(rng, (978, 981)) for _ in range(50)]
    assert {*map(float, drawn)} == {*map(float, model.sigmas[978:981])}
    with pytest.raises(ValueError, match=r"end at 980.*HIGH of at most 981"):
        model.draw_sigma(rng, (20, 982))


def test_sigma_is_snapped(if_folder):
    model = load(if_folder)
    noised, cond, scale = torch.randn(1, 3, 16, 16), model.condition([CAT]), torch.tensor([5.0])
    near = model.denoise(noised, model.sigmas[500:501] * 1.0001, cond, scale)
    torch.testing.assert_close(near, model.denoise(noised, model.sigmas[500:501], cond, scale))


class Recorder(torch.nn.Module):
    """A U-Net that gives back what it gets and remembers it."""

    def __init__(self, out_channels=6):
        super().__init__()
        self.config = SimpleNamespace(in_channels=3, out_channels=out_channels, sample_size=16)
        self.got = []

    def forward(self, *arguments, return_dict):
        self.got.append(arguments)
        return (torch.cat([arguments[0], torch.full_like(arguments[0], 9.0)], dim=1),)


def test_float16_never_sees_sigma():
    scheduler, unet = DDPMScheduler(beta_schedule="squaredcos_cap_v2"), Recorder()
    model = DeepFloydIF(
        unet, scheduler, lambda told: torch.zeros(len(told), 77, 32), CPU, torch.float16, LAST_TIMESTEP
    )
    sigma = model.sigmas[980:]
    noised = sigma * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    cond = model.condition([CAT] * 4)
    denoised = model.denoise(noised, sigma.expand(4), cond, torch.full((4,), 2.0))
    scaled, timestep, text = unet.got[0]
    assert scaled.dtype == text.dtype == torch.float16
    assert scaled.abs().max() < 6
    assert timestep.tolist() == [980] * 8
    eps = (noised.double() / (1 + sigma.double() ** 2).sqrt()).float().half().double()
    exact = noised.double() - sigma.double() * eps
    torch.testing.assert_close(denoised.double(), exact, atol=1e-5, rtol=0)


def test_pictures_are_images(if_folder):
    model = load(if_folder)
    assert (model.channels, model.size) == (3, 16)
    image = (torch.rand(2, 3, 16, 16) * 2 - 1).requires_grad_()
    model.encode(image).sum().backward()
    assert torch.equal(model.encode(image), image)
    wide = model.encode(image.detach().repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert wide.shape == image.shape
    assert (wide - image).abs().mean() < 0.4 * image.std(), "a larger picture of the same"
    assert torch.equal(image.grad, torch.ones_like(image))
    squares = (torch.arange(64) + 1) // 2  # one is in the middle of each 4 x 4 pixels
    checkerboard = 1 - 2.0 * (squares[:, None] + squares).remainder(2).expand(1, 3, 64, 64)
    assert model.encode(checkerboard).abs().max() < 0.05, "averaged, not picked"
    assert torch.equal(model.decode(image), image)
    assert model.decode(3 * image).abs().max() == 1


@pytest.mark.parametrize("wrong", [{"in_channels": 6}, {"out_channels": 4}])
def test_another_unet_is_refused(if_folder, wrong):
    unet = Recorder()
    vars(unet.config).update(wrong)
    with pytest.raises(ValueError, match=r"takes 3 channels and gives 6.*It takes \d and gives \d"):
        DeepFloydIF(unet, None, None, CPU, torch.float32, LAST_TIMESTEP)


def test_another_prediction_is_refused():
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type="sample"))
    with pytest.raises(ValueError, match="must predict epsilon or v.*'sample'"):
        DeepFloydIF(Recorder(), scheduler, None, CPU, torch.float32, LAST_TIMESTEP)


def test_prompts_are_read_as_the_pipeline_reads_them(if_folder, pipeline):
    """77 places; the mask goes to T5, or what pads a prompt would change it; lowercase and stripped."""
    model = load(if_folder)
    text, none = pipeline.encode_prompt(CAT)
    assert text.shape == (1, 77, 32)
    torch.testing.assert_close(model.condition([CAT]).parts[0], text)
    torch.testing.assert_close(model.condition([""]).parts[0], none)
    torch.testing.assert_close(model.condition([" A Smiling CAT "]).parts[0], text)
    assert not torch.allclose(text, none)
    ids = pipeline.tokenizer(CAT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        unmasked = pipeline.text_encoder(ids).last_hidden_state
    assert not torch.allclose(unmasked, text, atol=1e-3)


@pytest.fixture
def readings(monkeypatch):
    """Return the list of what T5 is loaded for."""
    loaded, original = [], deepfloyd._load

    def noted(load, found, part, files):
        loaded.append(part)
        return original(load, found, part, files)

    monkeypatch.setattr(deepfloyd, "_load", noted)
    return loaded


def test_all_prompts_are_read_once_before_the_unet_is_loaded(own_folder, readings, texts):
    model = load(own_folder, prompts=[CAT, "a dog"])
    assert readings == ["text_encoder", "unet"]
    first = model.condition([CAT, "a dog", CAT]).parts[0]
    model.denoise(torch.zeros(1, 3, 16, 16), model.sigmas[:1], model.condition([CAT]), torch.ones(1))
    assert readings == ["text_encoder", "unet"], "nor for the empty prompt"
    assert len([*texts.iterdir()]) == 3
    again = load(own_folder, prompts=["a dog", CAT])
    assert readings == ["text_encoder", "unet", "unet"]
    assert torch.equal(again.condition([CAT, "a dog", CAT]).parts[0], first)


def test_known_prompts_need_no_weights_of_t5(own_folder):
    name = str(own_folder)
    before = fingerprint(name), load(own_folder, prompts=[CAT]).condition([CAT]).parts[0]
    (own_folder / T5).unlink()
    check_prompts(name, [CAT], local_files_only=True)
    model = load(own_folder, prompts=[CAT])
    assert torch.equal(model.condition([CAT]).parts[0], before[1])
    assert fingerprint(name) == before[0], "it is the same run"
    for ask in (lambda: check_prompts(name, [CAT, "a dog"], True), lambda: model.condition(["a dog"])):
        with pytest.raises(ValueError, match=r"lacks text_encoder/model.safetensors.*has read before"):
            ask()


def test_a_broken_file_is_made_again(own_folder, texts, readings):
    expected = load(own_folder, prompts=[CAT]).condition([CAT]).parts[0]
    for path in texts.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    (texts / "other.safetensors").write_bytes(b"")
    assert torch.equal(load(own_folder, prompts=[CAT]).condition([CAT]).parts[0], expected)
    assert readings.count("text_encoder") == 2
    load(own_folder, prompts=[CAT])
    assert readings.count("text_encoder") == 2, "it is whole again"


def test_another_model_has_texts_of_its_own(own_folder, readings):
    """By its U-Net, its configuration and, where it is there, its T5."""
    first = load(own_folder, prompts=[CAT]).condition([CAT]).parts[0]
    tensors = load_file(own_folder / T5)
    save_file({name: 2 * t for name, t in tensors.items()}, own_folder / T5, {"format": "pt"})
    second = load(own_folder, prompts=[CAT]).condition([CAT]).parts[0]
    assert not torch.allclose(first, second)
    path = own_folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 2 * t for name, t in load_file(path).items()}, path, {"format": "pt"})
    load(own_folder, prompts=[CAT])
    assert readings.count("text_encoder") == 3


def test_embeddings_that_are_not_finite_are_refused_and_not_kept(own_folder, texts):
    tensors = load_file(own_folder / T5)
    save_file({name: t * torch.nan for name, t in tensors.items()}, own_folder / T5, {"format": "pt"})
    with pytest.raises(ValueError, match="must be finite"):
        load(own_folder, prompts=[CAT])
    assert not texts.exists()


def test_a_place_that_cannot_be_written_is_named(own_folder, texts):
    texts.parent.parent.mkdir()
    texts.parent.write_text("a file")
    with pytest.raises(ValueError, match="must be kept.*cannot be written.*XDG_CACHE_HOME"):
        load(own_folder, prompts=[CAT])


def test_fp16_files_of_t5_are_read_in_bfloat16(own_folder):
    tensors = {name: t.half() for name, t in load_file(own_folder / T5).items()}
    exact = load(own_folder).condition([CAT]).parts[0]
    (own_folder / T5).unlink()
    save_file(tensors, own_folder / T5.replace("model.", "model.fp16."), {"format": "pt"})
    read = TextReader(find_model(str(own_folder)))([CAT])
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.float(), exact, atol=0.1, rtol=0.1)


def test_a_long_prompt_is_refused_with_what_would_be_cut(if_folder):
    with pytest.raises(ValueError, match=r"77 tokens.*would lose '.*hat"):
        check_prompts(str(if_folder), ["a smiling cat " * 30 + "HAT"])


def test_its_profile(if_folder, tmp_path):
    """D-SDS App. C.2; 21 is threestudio's 20, which counts from the conditional side."""
    for name in (str(if_folder), "DeepFloyd/IF-I-M-v1.0"):
        profile = choose_model(name, "cpu").profile
        assert (profile.guidance, profile.clip_start, profile.clip_end) == (21, 0.5, 2)
    own = shutil.copytree(if_folder, tmp_path / "own")
    (own / "profile.json").write_text(json.dumps({"resolution": 40}))
    profile = choose_model(str(own), "cpu").profile
    assert (profile.resolution, profile.guidance) == (40, 21)


def test_only_one_of_the_networks_is_held_at_a_time(own_folder):
    found = find_model(str(own_folder))
    sizes = found.weights()
    assert len(sizes) == 2
    assert found.at_a_time() == max(sizes.values()) < sum(sizes.values())
    (own_folder / T5).unlink()
    assert find_model(str(own_folder)).at_a_time() == sizes["unet/diffusion_pytorch_model.safetensors"]


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def second_stage(folder):
    change(folder / "unet/config.json", in_channels=6, class_embed_type="timestep")


def with_change(file, **fields):
    return lambda folder: change(folder / file, **fields)


def broken_off(file):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100])


def without_sentencepiece(folder):
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/spiece.model").write_bytes(b"pieces")


def another_tokenizer(folder):
    shutil.rmtree(folder / "tokenizer")
    T5Tokenizer().save_pretrained(folder / "tokenizer")
    change(folder / "text_encoder/config.json", vocab_size=32128)


UNET = "unet/diffusion_pytorch_model.safetensors"
REFUSED = {
    "the second stage": (
        with_change("model_index.json", _class_name="IFSuperResolutionPipeline"),
        "is DeepFloyd IF's second stage, which enlarges pictures",
    ),
    "a second stage's U-Net": (second_stage, "takes 6, gives 6 and is told a second noise level"),
    "other channels": (with_change("unet/config.json", in_channels=4), "takes 4, gives 6;"),
    "other outputs": (with_change("unet/config.json", out_channels=4), "takes 3, gives 4;"),
    "a model for changing pictures": (
        with_change("model_index.json", _class_name="IFImg2ImgPipeline"),
        "is DeepFloyd IF for changing pictures",
    ),
    "no U-Net": (
        remove(UNET),
        r"must hold text_encoder, unet, tokenizer, scheduler\. .* lacks unet/diffusion_pytorch_model",
    ),
    "no tokenizer": (remove("tokenizer/tokenizer.json"), "lacks tokenizer/spiece.model"),
    "no T5": (remove(T5), r"lacks text_encoder/model.safetensors.*prompts can be used that it has read"),
    "no scheduler": (remove("scheduler/scheduler_config.json"), "lacks scheduler/scheduler_config.json"),
    "a broken-off U-Net": (broken_off(UNET), r"must be whole. .*unet.* has \d+ of \d+ bytes"),
    "a broken-off T5": (broken_off(T5), r"must be whole. .*text_encoder.* has \d+ of \d+ bytes"),
    "a tokenizer in SentencePiece": (without_sentencepiece, "pip install sentencepiece protobuf"),
    "another tokenizer": (another_tokenizer, "must have the text encoder's tokens, 32128.* has 104"),
    "parts of two models": (with_change("unet/config.json", encoder_hid_dim=64), "parts of two models"),
    "another prediction": (
        with_change("scheduler/scheduler_config.json", prediction_type="sample"),
        "IF must predict epsilon or v.*'sample'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name, own_folder, command, capsys, monkeypatch):
    break_it, message = REFUSED[name]
    break_it(own_folder)
    monkeypatch.setattr(deepfloyd, "find_spec", lambda module: None)
    monkeypatch.setattr(deepfloyd, "_load", None)
    code, folders = command("--n_steps", "2", model=own_folder)
    assert code == 2
    assert not folders
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert re.search(message, said, re.DOTALL), said


def test_loras_are_refused(if_folder):
    with pytest.raises(ValueError, match="is DeepFloyd IF. Leave --lora out"):
        check_loras(str(if_folder), (Lora("toon.safetensors"),))


def test_a_prompt_becomes_an_object(own_folder, bert_folder, command, solid_scenes, capsys, readings):
    """The whole product: run, resume, pictures, mesh; the resumed run needs no weights of T5."""
    wanted = ("--debias", "--masked_lm", str(bert_folder))
    code, (folder,) = command(*wanted, "--n_steps", "3", model=own_folder)
    assert code == 0, capsys.readouterr().err
    run = RunReader(folder)
    assert readings == ["text_encoder", "unet"]
    options = run.options
    assert (options["clip_start"], options["clip_end"]) == (0.5, 2)
    assert run.tensors()["grid.color"].shape[1] == 3
    assert len([*run.stats()]) == 3
    assert len(run.previews) == 3
    assert run.turntable.stat().st_size > 0
    assert run.result["mesh"]["faces"] > 0
    (own_folder / T5).unlink()
    longer = (*wanted, "--n_steps", "5", "--schedule_steps", "3")
    code, folders = command(*longer, model=own_folder)
    assert (code, folders) == (0, [folder])
    said = capsys.readouterr()
    assert "resuming at step 3 of 5" in said.out + said.err
    assert RunReader(folder).result["resumed_at_step"] == 3
    assert readings == ["text_encoder", "unet", "unet"]
