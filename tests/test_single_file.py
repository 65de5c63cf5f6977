"""Single-file checkpoints: the configuration and the tokenizer that ship, and noise told from v."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sjc_debiased.convert import convert, pairs
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.models import single_file
from sjc_debiased.models.finding import find_model
from sjc_debiased.models.single_file import clip_tokenizer, config_folder, noise_share
from sjc_debiased.models.tensor_files import SD1, SD2, ModelError, check_checkpoint, describe
from tests.model_makers import (
    TEXT,
    UNET,
    header_only,
    original,
    original_text,
    original_unet,
    original_vae,
    write_folder,
)
from tests.small_models import load_pipeline

ABAR = torch.tensor(0.0047)


def test_the_tokenizer_is_clips():
    """The numbers of its published tokenizer."""
    tokenizer = clip_tokenizer(SD1)
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    text = "Astronaut riding a horse, 4k! café 你好"
    ids = [18376, 6765, 320, 4558, 267, 275, 330, 256, 15304, 47466, 254, 29290, 377]
    assert tokenizer(text).input_ids[1:-1] == ids
    padded = {f: clip_tokenizer(f)("cat", padding="max_length").input_ids[3:5] for f in (SD1, SD2)}
    assert padded == {SD1: [49407, 49407], SD2: [0, 0]}


def on_meta(family):
    """Build the parts of a family at their full size, without numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    def config(part):
        return json.loads((config_folder(family) / part / "config.json").read_text())

    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig.from_dict(config("text_encoder")))
        parts = (
            UNet2DConditionModel.from_config(config("unet")),
            AutoencoderKL.from_config(config("vae")),
            text,
        )
    return [dict(part.named_parameters()) for part in parts]


@pytest.mark.parametrize(
    ("family", "sizes"),
    [(SD1, (859_520_964, 83_653_863, 123_060_480)), (SD2, (865_910_724, 83_653_863, 340_387_840))],
)
def test_the_configurations_are_of_the_published_sizes(family, sizes):
    assert tuple(sum(p.numel() for p in part.values()) for part in on_meta(family)) == sizes


@pytest.mark.parametrize("family", [SD1, SD2])
def test_a_checkpoint_at_full_size_is_known_by_its_header(family, tmp_path):
    unet, vae, text = on_meta(family)
    tensors = {**original_unet(unet, 2), **original_vae(vae, 4), **original_text(text, family == SD2)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["model.diffusion_model.output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
    context = shapes["model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"]
    assert context == (320, 768 if family == SD1 else 1024)
    path = header_only(tmp_path / "v1-5.safetensors", shapes)
    assert path.stat().st_size > 2e9
    assert check_checkpoint(path) == family
    assert family in str(find_model(str(path)))


def test_a_model_of_v_gives_back_little_noise():
    pipeline = load_pipeline(str(WEIGHTS))
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert abs(noise_share(pipeline.unet, pipeline.scheduler.alphas_cumprod[-1])) < 0.25


class Exact:
    """The exact network of white data of variance 1, of noise or of v."""

    class config:  # noqa: N801
        sample_size, cross_attention_dim, in_channels = 32, 8, 4

    def __init__(self, of_v):
        self.of_v = of_v

    def __call__(self, noised, timestep, text, return_dict):
        x0, noise = ABAR.sqrt() * noised, (1 - ABAR).sqrt() * noised  # means given abar x0 + (1 - abar) n
        return (ABAR.sqrt() * noise - (1 - ABAR).sqrt() * x0 if self.of_v else noise,)


def test_exact_networks_of_noise_and_of_v_are_told_apart():
    assert noise_share(Exact(of_v=False), ABAR) == pytest.approx(1, abs=0.01)
    assert noise_share(Exact(of_v=True), ABAR) == pytest.approx(0, abs=0.01)


@pytest.fixture(scope="module")
def of_noise(tmp_path_factory):
    """A small 1.x folder whose U-Net has learned to give back the noise at the highest level."""
    from diffusers import UNet2DConditionModel

    folder = write_folder(tmp_path_factory.mktemp("noise") / "folder")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    optimizer = torch.optim.Adam(unet.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(150):
        noise = torch.randn(16, 4, 8, 8)
        output = unet(noise, 999, torch.zeros(16, 77, 32)).sample
        optimizer.zero_grad()
        (output - noise).square().mean().backward()
        optimizer.step()
    unet.save_pretrained(folder / "unet")
    return folder


def small_configs(monkeypatch, folder, target):
    for name in ("sd1", "sd2"):
        shutil.copytree(folder, target / name, ignore=shutil.ignore_patterns("*.safetensors", "tokenizer"))
    monkeypatch.setattr(single_file, "CONFIGS", target)


@pytest.mark.parametrize("sd2", [False, True])
def test_a_file_of_noise_is_taken_for_one(of_noise, tmp_path, monkeypatch, capsys, sd2):
    small_configs(monkeypatch, of_noise, tmp_path / "configs")
    save_file(original(of_noise, sd2), tmp_path / "toon.safetensors")
    pipeline = load_pipeline(str(tmp_path / "toon.safetensors"))
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.unet.config.sample_size == 8
    assert "that predicts noise" in capsys.readouterr().out


def test_a_file_of_v_is_taken_for_one_and_2_x_is_then_of_768_pixels(of_noise, tmp_path, monkeypatch, capsys):
    small_configs(monkeypatch, of_noise, tmp_path / "configs")
    for sd2, size in ((False, 8), (True, 96)):
        tensors = original(of_noise, sd2)
        tensors["model.diffusion_model.out.2.weight"].zero_()
        save_file(tensors, tmp_path / "toon.safetensors")
        pipeline = load_pipeline(str(tmp_path / "toon.safetensors"))
        assert pipeline.scheduler.config.prediction_type == "v_prediction"
        assert pipeline.unet.config.sample_size == size
        assert "that predicts v" in capsys.readouterr().out


def test_a_file_of_neither_is_refused(of_noise, tmp_path, monkeypatch):
    small_configs(monkeypatch, of_noise, tmp_path / "configs")
    tensors = original(of_noise)
    for leaf in ("weight", "bias"):
        tensors[f"model.diffusion_model.out.2.{leaf}"].mul_(0.5)
    save_file(tensors, tmp_path / "toon.safetensors")
    with pytest.raises(ModelError, match=r"must predict noise or v.*predicts \d+% of the noise"):
        load_pipeline(str(tmp_path / "toon.safetensors"))


def test_zero_terminal_noise_is_refused():
    shapes = {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3), "ztsnr": ()}
    assert "zero terminal SNR" in describe(shapes)


def test_a_pickled_checkpoint_is_converted_without_running_it(of_noise, tmp_path, monkeypatch):
    small_configs(monkeypatch, of_noise, tmp_path / "configs")
    torch.save({"state_dict": original(of_noise), "global_step": 875_000}, tmp_path / "toon.ckpt")
    ((source, target),) = pairs(tmp_path / "toon.ckpt")
    assert convert(source, target) == len(original(of_noise))
    loaded = load_pipeline(str(target)).unet.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in load_file(of_noise / UNET).items())
    with pytest.raises(ModelError, match="overwrites nothing"):
        convert(source, target)


def test_a_folder_of_pickles_is_converted(of_noise, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(of_noise, folder)
    for file, pickle in ((UNET, "diffusion_pytorch_model.bin"), (TEXT, "pytorch_model.bin")):
        torch.save(load_file(folder / file), (folder / file).with_name(pickle))
        (folder / file).unlink()
    for source, target in pairs(folder):
        convert(source, target)
    for file in (UNET, TEXT):
        converted, tensors = load_file(folder / file), load_file(of_noise / file)
        assert converted.keys() == tensors.keys()
        assert all(torch.equal(converted[name], tensor) for name, tensor in tensors.items())
    assert load_pipeline(str(folder))
    with pytest.raises(ModelError, match="none that lack their safetensors"):
        pairs(folder)


def test_where_there_is_nothing_to_convert_it_is_said(tmp_path):
    for place in (tmp_path, tmp_path / "no such file.ckpt", tmp_path / "no such folder"):
        with pytest.raises(ModelError, match="there must be pickled weights"):
            pairs(place)


class Bad:
    def __reduce__(self):
        return (print, ("code in a pickle has run",))


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.ones(1)}, "more": Bad()}, tmp_path / "bad.ckpt")
    with pytest.raises(ModelError, match="must hold tensors and plain numbers alone"):
        convert(tmp_path / "bad.ckpt", tmp_path / "bad.safetensors")
    assert "has run" not in capsys.readouterr().out
    assert not (tmp_path / "bad.safetensors").exists()
