"""A second diffusion model of the world, of pixels: T5 and a U-Net together, as a DeepFloyd IF folder.

Its inner levels may begin as the latent model's, which knows the world already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from sjc_debiased.menagerie import profile
from sjc_debiased.menagerie.captions import view_of
from sjc_debiased.menagerie.dataset import pictures_of
from sjc_debiased.menagerie.tokenizers import t5_tokenizer
from sjc_debiased.menagerie.train_diffusion import told, velocity_to, weights_of_v
from sjc_debiased.menagerie.training import SEED, autocast, device, fit, step_generator, write_pipeline
from sjc_debiased.menagerie.unfinished import Levels, Twins, balls_seen, unfinished
from sjc_debiased.models.deepfloyd import MAX_TOKENS, as_sent

_STD = 0.5  # of pixels in [-1, 1]
# Those of the latent model by their sigma; 64 x 64 pixels with half the spread bear the same one.
_LEVELS = Levels(blurred_from=204, begun=(134, 875))
_STAGE = 8  # of the training's random numbers


@dataclass(frozen=True)
class Size:
    """Say how large the model is.

    Attributes:
        pixels: of a picture's side; IF has 64.
        widths: channels of the U-Net's levels, multiples of 32. All but the outermost are those of the latent
            U-Net, whose pictures have half as many pixels.
        text_width: numbers a token. batch: pictures a step.
    """

    pixels: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 192)
    text_width: int = 128
    batch: int = 16


class TextToPixels(nn.Module):
    """The two networks that are trained together: token ids and noised pixels in, v out."""

    def __init__(self, vocab_size: int, size: Size):
        super().__init__()
        self.text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=-(-vocab_size // 128) * 128,  # padded, as T5's is
                d_model=size.text_width,
                d_kv=size.text_width // 4,
                d_ff=2 * size.text_width,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )
        plain = len(size.widths) - 1
        self.unet = UNet2DConditionModel(
            sample_size=size.pixels,
            in_channels=3,
            out_channels=3,
            block_out_channels=size.widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
            mid_block_type="UNetMidBlock2D",
            up_block_types=("UpBlock2D",) * len(size.widths),
            attention_head_dim=4,
            cross_attention_dim=size.text_width,
            time_embedding_dim=4 * size.widths[1],
        )

    def begin_with(self, latent_unet: nn.Module) -> None:
        """Take over what fits of a latent U-Net, one level further in; the outermost level is new.

        What only the latent one has, the attention on its way up, is left.
        """
        own = self.unet.state_dict()
        for its_name, tensor in latent_unet.state_dict().items():
            name = re.sub(r"^down_blocks\.(\d)", lambda level: f"down_blocks.{int(level[1]) + 1}", its_name)
            if name in own and own[name].shape == tensor.shape:
                own[name].copy_(tensor)

    def forward(self, noised, timesteps, ids, mask):
        """Return v of noised pixels [n, 3, h, w] under captions of ids [n, 77]; the mask is T5's alone."""
        text = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return self.unet(noised, timesteps, text).sample


def new_scheduler() -> DDPMScheduler:
    """Return IF's cosine table, with a fixed variance; the network gives v alone (arXiv:2202.00512).

    IF's own gives noise: at sigma 33 a picture's colors are lost in a small network's error of it.
    """
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        variance_type="fixed_small",
        clip_sample=False,
    )


def train(
    images: np.ndarray,
    twins: np.ndarray,
    truths: list[dict],
    work: Path,
    out: Path,
    n_steps: int,
    begin: Path | None = None,
    size: Size | None = None,
) -> None:
    """Train on the album, made smaller, and write the pipeline folder `out`.

    Args:
        images: uint8 [n, h, w, 3], of a multiple of the model's pixels.
        twins: photos without some details (`dataset.bare`), of the same size.
        begin: a Stable Diffusion folder of the world, from whose U-Net to start. None: from random weights.
    """
    size = size or Size()
    tokenizer, scheduler = t5_tokenizer(), new_scheduler()
    torch.manual_seed(0)
    model = TextToPixels(len(tokenizer), size)
    if begin is not None:
        model.begin_with(UNet2DConditionModel.from_pretrained(begin / "unet").float())
    model.to(device())
    model.unet.to(memory_format=torch.channels_last)
    model.unet.set_attn_processor(AttnProcessor())  # for 64 places faster on a CPU than a fused kernel
    weights = weights_of_v(scheduler.alphas_cumprod)
    views = [view_of(t["azimuth_deg"], t["elevation_deg"]) for t in truths]
    small, without = shrink(images, size.pixels), shrink(twins, size.pixels)
    begun, of_photos = balls_seen(truths, size.pixels, work), Twins(truths)

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, _STAGE)
        rng = np.random.default_rng([SEED, _STAGE, step])
        lot = torch.rand(size.batch, generator=g)
        picks = of_photos.picks(torch.randint(len(small), (size.batch,), generator=g), lot)
        texts = told([(truths[i]["creature"], views[i]) for i in picks.tolist()], rng)
        tokens = _tokenize(tokenizer, texts).to(device())
        pixels, twin = small[picks].float(), without[of_photos.rows(picks)].float()
        noise = torch.randn(pixels.shape, generator=g)
        timesteps = torch.randint(1000, (size.batch,), generator=g)
        shown, timesteps = unfinished(pixels / _STD, begun[picks], twin / _STD, lot, timesteps, _LEVELS, g)
        noised = scheduler.add_noise(_STD * shown, noise, timesteps)
        target = velocity_to(pixels, noised, scheduler.alphas_cumprod[timesteps]).to(device())
        with autocast(target.device):
            v = model(noised.to(device()), timesteps.to(device()), tokens.input_ids, tokens.attention_mask)
        errors = (v.float() - target).square().mean(dim=(1, 2, 3))
        return (weights[timesteps].to(errors.device) * errors).mean()

    fit("pixels", work, model, loss_at, n_steps, lr=8e-4)
    save_pipeline(model, tokenizer, out)


def shrink(images_u8: np.ndarray, pixels: int) -> torch.Tensor:
    """Return images in [-1, 1], float16 [n, 3, pixels, pixels]: the means of squares of pixels."""
    parts = []
    for i in range(0, len(images_u8), 256):
        rows = range(i, min(i + 256, len(images_u8)))
        images = pictures_of(images_u8, rows).float() / 127.5 - 1
        parts.append(F.avg_pool2d(images, images.shape[-1] // pixels).half())
    return torch.cat(parts)


def save_pipeline(model: TextToPixels, tokenizer: T5Tokenizer, out: Path) -> None:
    """Write the IF folder, in float16, and its profile."""
    pipeline = IFPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    write_pipeline(pipeline, out)
    profile.write(out, profile.PIXELS)


def _tokenize(tokenizer: T5Tokenizer, texts: list[str]):
    sent = [as_sent(text) for text in texts]
    return tokenizer(sent, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
