"""The training of a pixel model of the world: a few steps at a tiny size."""

import json

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from sjc_debiased.denoiser import guided
from sjc_debiased.menagerie import WEIGHTS, train_pixels
from sjc_debiased.menagerie.captions import draw_pose, known_words
from sjc_debiased.menagerie.creatures import random_creature
from sjc_debiased.menagerie.dataset import draw_lens
from sjc_debiased.menagerie.profile import PIXELS
from sjc_debiased.menagerie.tokenizers import t5_tokenizer
from sjc_debiased.menagerie.train_pixels import Size, TextToPixels, new_scheduler, shrink
from sjc_debiased.models.choose import check_words, choose_model
from sjc_debiased.models.loading import load_model

TINY = Size(pixels=8, widths=(32, 32), text_width=32, batch=8)


def truth_of(rng):
    """What is true of a photo."""
    azimuth_deg, elevation_deg = draw_pose(rng)
    fov_deg, aside = draw_lens(rng)
    pose = {"azimuth_deg": azimuth_deg, "elevation_deg": elevation_deg, "fov_deg": fov_deg, "aside": aside}
    return {"creature": random_creature(rng)} | pose


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a pixel model has learned for 100 steps, and where its checkpoint is."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("pixels")
    truths = []
    for row in range(6):
        truths.append(truth_of(rng) | {"twin": 0 if row == 3 else None})
    images, twins = np.full((6, 16, 16, 3), 200, np.uint8), np.full((1, 16, 16, 3), 180, np.uint8)
    (root / "work").mkdir()
    train_pixels.train(images, twins, truths, root / "work", root / "pixel", 100, size=TINY)
    return root


@pytest.fixture(autouse=True)
def texts(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_it_learns(trained):
    rows = [json.loads(line) for line in (trained / "work" / "pixels.jsonl").read_text().splitlines()]
    assert rows[1]["loss"] < 0.9 * rows[0]["loss"]


def test_what_was_trained_is_what_is_loaded(trained):
    """The places of a prompt and its mask are those of training."""
    model = load_model(str(trained / "pixel"), torch.device("cpu"), torch.float32, local_files_only=True)
    assert (model.channels, model.size) == (3, 8)
    tokenizer = t5_tokenizer()
    own = TextToPixels(len(tokenizer), TINY).eval()
    state = torch.load(trained / "work" / "pixels.pt", weights_only=True)
    with torch.no_grad():
        for param, mean in zip(own.parameters(), state["ema"]):
            param.copy_(mean.half())
    scaled, sigma = torch.randn(1, 3, 8, 8), model.sigmas[400:401]
    with torch.no_grad():
        tokens = train_pixels._tokenize(tokenizer, ["", "a smiling cat"])
        v = own(scaled.repeat(2, 1, 1, 1), torch.tensor([400, 400]), tokens.input_ids, tokens.attention_mask)
    noised = scaled * (1 + sigma**2).sqrt()
    expected = noised / (1 + sigma**2) - sigma / (1 + sigma**2).sqrt() * guided(*v.chunk(2), 3.0)
    found = model.denoise(noised, sigma, model.condition(["a smiling cat"]), torch.tensor([3.0]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_its_table_is_ifs():
    sigmas = ((1 - new_scheduler().alphas_cumprod) / new_scheduler().alphas_cumprod).sqrt()
    assert float(sigmas[500]) == pytest.approx(1.0155, rel=1e-3)
    assert float(sigmas[980]) == pytest.approx(33.76, rel=1e-3)


def test_its_profile_is_its_own(trained):
    choice = choose_model(str(trained / "pixel"), "cpu")
    assert choice.profile.known_words == tuple(known_words())
    assert choice.profile == PIXELS
    assert not choice.profile.clip_published
    with pytest.raises(ValueError, match="It does not know unicorn"):
        check_words("a smiling unicorn", choice)


def test_its_inner_levels_begin_as_the_latent_models():
    """So begin 95 % of its numbers; the outermost level is new."""
    latent = UNet2DConditionModel.from_pretrained(WEIGHTS / "unet").float()
    torch.manual_seed(0)
    model = TextToPixels(len(t5_tokenizer()), Size())
    new = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    model.begin_with(latent)
    own, its = model.unet.state_dict(), latent.state_dict()
    for name in ("mid_block.resnets.0.conv1.weight", "up_blocks.0.resnets.1.conv2.weight"):
        assert torch.equal(own[name], its[name])
    attended = "down_blocks.{}.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(own[attended.format(3)], its[attended.format(2)])
    same = sum(tensor.numel() for name, tensor in own.items() if torch.equal(tensor, new[name]))
    assert same < 0.05 * sum(tensor.numel() for tensor in own.values())
    assert torch.equal(own["conv_in.weight"], new["conv_in.weight"])


def test_pictures_are_made_smaller_by_their_means():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    images[0, :2, :2] = 255
    images[0, 2, 2] = 255
    assert shrink(images, 2)[0, 0].tolist() == [[1, -1], [-1, -0.5]]


def test_a_known_word_is_one_token():
    tokenizer = t5_tokenizer()
    for word in known_words():
        assert len(tokenizer(word).input_ids) == 2, word
    assert len({tuple(tokenizer(word).input_ids) for word in known_words()}) == len(known_words())
