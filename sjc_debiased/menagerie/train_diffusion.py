"""Stage 2: the latent diffusion model, text encoder and U-Net together, as a Stable Diffusion folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sjc_debiased.menagerie.captions import caption, view_of
from sjc_debiased.menagerie.creatures import Creature
from sjc_debiased.menagerie.dataset import pictures_of
from sjc_debiased.menagerie.tokenizers import CONTEXT, clip_tokenizer
from sjc_debiased.menagerie.train_autoencoder import encode
from sjc_debiased.menagerie.training import SEED, autocast, device, fit, save, step_generator, write_pipeline
from sjc_debiased.menagerie.unfinished import Levels, Twins, balls_seen, unfinished

_TEXT_WIDTH = 128
_P_NO_CAPTION = 0.1
_BATCH = 32
_LATENT_SIZE = 32
_LEVELS = Levels(blurred_from=100, begun=(50, 800))
_MAX_SNR = 5.0  # steps go to shapes rather than to the last bit of noise


class TextToImage(nn.Module):
    """The two networks that are trained together: token ids and noised latents in, v out."""

    def __init__(self, vocab_size: int, eos: int):
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocab_size,
                hidden_size=_TEXT_WIDTH,
                intermediate_size=4 * _TEXT_WIDTH,
                projection_dim=_TEXT_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT,
                bos_token_id=eos - 1,
                eos_token_id=eos,
                pad_token_id=eos,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=_LATENT_SIZE,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 128, 192),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            cross_attention_dim=_TEXT_WIDTH,
        )

    def forward(self, latent, timesteps, ids):
        """Return v [n, 4, 32, 32] of noised latents under captions of ids [n, CONTEXT]."""
        return self.unet(latent, timesteps, self.text_encoder(ids).last_hidden_state).sample


def new_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's own noise schedule; the network predicts v (arXiv:2202.00512)."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train(
    images: np.ndarray,
    twins: np.ndarray,
    truths: list[dict],
    work: Path,
    out: Path,
    n_steps: int,
    begin: Path | None = None,
) -> None:
    """Train on the album in the latents of `out/vae` and complete the pipeline folder `out`.

    Args:
        twins: photos without some details (`dataset.bare`).
        begin: a pipeline folder of this shape, from whose weights to start. None: from random ones.
    """
    vae = AutoencoderTiny.from_pretrained(out / "vae")
    latents, without = _latents(images, vae, work, "photos"), _latents(twins, vae, work, "bare")
    tokenizer = CLIPTokenizer.from_pretrained(begin / "tokenizer") if begin else clip_tokenizer()
    scheduler = new_scheduler()
    torch.manual_seed(0)
    model = TextToImage(len(tokenizer), tokenizer.eos_token_id)
    if begin is not None:
        model.text_encoder = CLIPTextModel.from_pretrained(begin / "text_encoder").float()
        model.unet = UNet2DConditionModel.from_pretrained(begin / "unet").float()
    model.to(device())
    weights = weights_of_v(scheduler.alphas_cumprod)
    model.unet.to(memory_format=torch.channels_last)
    model.unet.set_attn_processor(AttnProcessor())  # for 64 tokens faster on a CPU than a fused kernel
    views = [view_of(t["azimuth_deg"], t["elevation_deg"]) for t in truths]
    begun, of_photos = balls_seen(truths, _LATENT_SIZE, work), Twins(truths)

    def loss_at(step: int) -> torch.Tensor:
        g = step_generator(step, stage=2)
        rng = np.random.default_rng([SEED, 2, step])
        lot = torch.rand(_BATCH, generator=g)
        picks = of_photos.picks(torch.randint(len(latents), (_BATCH,), generator=g), lot)
        texts = told([(truths[i]["creature"], views[i]) for i in picks.tolist()], rng)
        ids = _tokenize(tokenizer, texts).to(device())
        latent = latents[picks].float()
        noise = torch.randn(latent.shape, generator=g)
        timesteps = torch.randint(1000, (_BATCH,), generator=g)
        twin = without[of_photos.rows(picks)].float()
        shown, timesteps = unfinished(latent, begun[picks], twin, lot, timesteps, _LEVELS, g)
        noised = scheduler.add_noise(shown, noise, timesteps).to(device())
        target = velocity_to(latent, noised.cpu(), scheduler.alphas_cumprod[timesteps]).to(device())
        with autocast(noised.device):
            v = model(noised, timesteps.to(device()), ids)
        errors = (v.float() - target).square().mean(dim=(1, 2, 3))
        return (weights[timesteps].to(errors.device) * errors).mean()

    fit("diffusion", work, model, loss_at, n_steps, lr=8e-4)
    save_pipeline(model, tokenizer, out)


def told(photos: list[tuple[Creature, str]], rng: np.random.Generator) -> list[str]:
    """Return what a training step says of photos, by their creature and true view; of one in ten nothing."""
    return ["" if rng.random() < _P_NO_CAPTION else caption(*photo, rng) for photo in photos]


def weights_of_v(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return the weight of a squared error of v at each timestep, [timesteps] (min-SNR, arXiv:2303.09556)."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=_MAX_SNR) / (snr + 1)


def velocity_to(latent: torch.Tensor, noised: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return the v (arXiv:2202.00512) with which D(noised) is `latent` [n, c, h, w]; one level a picture."""
    alphas_cumprod = alphas_cumprod[:, None, None, None]
    return (alphas_cumprod.sqrt() * noised - latent) / (1 - alphas_cumprod).sqrt()


def save_pipeline(model: TextToImage, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Write the Stable Diffusion folder: float16 safetensors, `model_index.json`."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(out / "vae"),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    write_pipeline(pipeline, out)


def _tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    ).input_ids


def _latents(images: np.ndarray, vae: AutoencoderTiny, work: Path, of: str) -> torch.Tensor:
    """Return the photos' latents, float16, cached by their number and the autoencoder's scaling factor."""
    cache = work / f"latents_{of}_{len(images)}_{vae.config.scaling_factor:.9f}.pt"
    if not cache.exists():
        vae.to(device()).eval()
        batches = [
            encode(vae, pictures_of(images, range(i, min(i + 512, len(images))))).half()
            for i in range(0, len(images), 512)
        ]
        save(torch.cat(batches), cache)
    return torch.load(cache, weights_only=True)
