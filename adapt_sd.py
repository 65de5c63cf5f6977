"""A diffusers Stable Diffusion pipeline (eps or v prediction) as a Karras denoiser D(x; sigma)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sjc_debiased.denoiser import (
    TIMESTEPS,
    Conditioning,
    ask_guided,
    denoised_by,
    drawn_sigma,
    nearest_timestep,
    sigma_table,
)
from sjc_debiased.models.compiled import Compiled
from sjc_debiased.models.tokens import check_length, check_vocabulary


class StableDiffusion:
    """Wrap the U-Net, text encoder and autoencoder of a Stable Diffusion 1.x or 2.x pipeline.

    With sigma^2 = (1 - abar) / abar the network sees x / sqrt(1 + sigma^2), and

        eps prediction:  eps = network
        v prediction:    eps = (v + sigma * x / sqrt(1 + sigma^2)) / sqrt(1 + sigma^2)
        D(x; sigma) = x - sigma * eps

    (EDM, arXiv:2206.00364, Sec. 5, and SJC's adapter: c_skip 1, c_out -sigma, c_noise the timestep).
    A sigma is first snapped to the nearest one of the model's schedule.

    Attributes:
        sigmas: float32 [n_timesteps], ascending; `sigmas[timestep]` is the noise level of a timestep.
    """

    def __init__(self, pipeline, device: torch.device, dtype: torch.dtype):
        """Take over the parts of a loaded `StableDiffusionPipeline`.

        Args:
            dtype: of the U-Net and the text encoder. The autoencoder and all results are float32, but with
                bfloat16 it decodes in that, too.
        """
        scheduler = pipeline.scheduler.config
        prediction = getattr(scheduler, "prediction_type", None)
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(
                "the model must predict epsilon or v. Its scheduler says "
                f"{prediction!r}. Choose a Stable Diffusion 1.x or 2.x model."
            )
        if not hasattr(pipeline.scheduler, "alphas_cumprod"):
            raise ValueError(
                "the model must have a table of noise levels. Its scheduler, "
                f"{type(pipeline.scheduler).__name__}, has none. Choose a Stable Diffusion 1.x or 2.x model."
            )
        channels = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
        if channels[0] != channels[1]:
            raise ValueError(
                f"the U-Net must take the autoencoder's {channels[1]} latent channels. It takes "
                f"{channels[0]}, as inpainting models do. Choose a text-to-image model."
            )
        check_vocabulary(pipeline.tokenizer, pipeline.text_encoder.config.vocab_size)
        self.device, self.dtype = device, dtype
        self.v_prediction = scheduler.prediction_type == "v_prediction"
        self.unet = _frozen(pipeline.unet, device, dtype)
        self.text_encoder = _frozen(pipeline.text_encoder, device, dtype)
        self.vae = _frozen(pipeline.vae, device, torch.float32)
        self.tokenizer = pipeline.tokenizer
        self.sigmas = sigma_table(pipeline.scheduler.alphas_cumprod).to(device)
        self.channels = self.unet.config.in_channels
        self.size = self.unet.config.sample_size
        for convolutional in (self.unet, self.vae):
            convolutional.to(memory_format=torch.channels_last)
        self._run = self.unet
        (self._unconditional,) = self.condition([""]).parts

    @torch.no_grad()
    def condition(self, prompts: list[str]) -> Conditioning:
        """Return the text embeddings of prompts, [n, tokens, width], in the U-Net's dtype.

        Raises:
            ValueError: a prompt is longer than the tokenizer's context; says what would be cut.
        """
        for prompt in prompts:
            check_length(self.tokenizer, prompt)
        ids = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return Conditioning((self.text_encoder(ids.to(self.device)).last_hidden_state,))

    def draw_sigma(self, rng: np.random.Generator, timesteps: tuple[int, int] = TIMESTEPS) -> Tensor:
        """Draw the noise level of a timestep (`drawn_sigma`); by default as SJC does."""
        return drawn_sigma(self.sigmas, rng, timesteps)

    @torch.no_grad()
    def denoise(self, noised: Tensor, sigma: Tensor, cond: Conditioning, scale: Tensor) -> Tensor:
        """Return D(noised; sigma) in float32, guided by the prompts against the empty one.

        Args:
            noised: float32 [n, channels, height, width]. sigma: float32 [n]. cond: of n pictures.
            scale: of `guided`, float32 [n], on the CPU; SJC uses 100 for 3D.
        """
        (text,) = cond.parts
        timestep = nearest_timestep(self.sigmas, sigma)
        sigma = self.sigmas[timestep][:, None, None, None]
        scaled = noised / (1 + sigma**2).sqrt()
        output = ask_guided(self._network, scaled, timestep, text, self._unconditional, scale)
        return denoised_by(output, noised, sigma, self.v_prediction)

    def encode(self, image: Tensor) -> Tensor:
        """Return the scaled latents of RGB images in [-1, 1], float32 [n, channels, size, size].

        Of the autoencoder's Gaussian it is the mean; threestudio's guidance takes a sample.

        Args:
            image: [n, 3, height, width], square. It is first resized (bilinear) to the autoencoder's pixels a
                latent, 512 x 512 for Stable Diffusion 1.5. A gradient flows back to it.
        """
        pixels = self.size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        image = F.interpolate(image.float(), (pixels, pixels), mode="bilinear", align_corners=False)
        encoded = self.vae.encode(image)
        latent = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        return latent * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, picture: Tensor) -> Tensor:
        """Return the RGB image of latents, float32 [n, 3, 8 height, 8 width] in [-1, 1].

        Bfloat16 changes the menagerie's pictures by 0.3 of 255 levels in the mean, 3 at most, and takes half
        of the time. Where the memory does not hold it, from then on one picture at a time and in tiles that
        are blended.
        """
        scaled = picture.float() / self.vae.config.scaling_factor
        try:
            return self._decoded(scaled)
        except RuntimeError as error:
            if self.vae.use_tiling or not _is_out_of_memory(error):
                raise
        # Here, and not in the except clause, where the traceback still holds what filled the memory.
        print("the memory does not hold a whole decoded picture: decoding in tiles from here on")
        self.vae.enable_slicing()
        self.vae.enable_tiling()
        return self._decoded(scaled)

    def _decoded(self, scaled: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return self.vae.decode(scaled).sample.float().clamp(-1, 1)

    def compile(self) -> None:
        """Compile the U-Net at its first call; where that fails or changes its answer, go on without."""
        self._run = Compiled(self.unet, self.device)

    def _network(self, scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self._run(scaled.to(self.dtype), timestep, text, return_dict=False)[0].float()


def _frozen(module: Any, device: torch.device, dtype: torch.dtype) -> Any:  # of diffusers or transformers
    """Return a part as it is used; diffusers' own `to` warns of parts in float32 where there are none."""
    return torch.nn.Module.to(module, device, dtype).eval().requires_grad_(False)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
