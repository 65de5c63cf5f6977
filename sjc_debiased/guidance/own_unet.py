"""VSD's second model: a denoiser's own U-Net, told the camera, with a LoRA or as a whole copy."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sjc_debiased.denoiser import Conditioning, denoised_by, nearest_timestep
from sjc_debiased.settings import VSDModel

LORA_RANK = 4
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # of every self- and cross-attention


@runtime_checkable
class UNetDenoiser(Protocol):
    """What of a denoiser is needed beside its contract; `StableDiffusion` has it.

    Attributes:
        unet: of diffusers, frozen. sigmas: of its timesteps. v_prediction: whether it answers v and not eps.
    """

    unet: Any
    sigmas: Float[Tensor, "timesteps"]
    v_prediction: bool


class OwnUNet(nn.Module):
    """Denoise a scene's own renders with the U-Net of a denoiser, which itself stays as it is.

    lora: the U-Net's own weights, shared and frozen, with a LoRA of rank 4 on its attention (float32). copy:
    float32 copies of all weights, for a U-Net that attends too little. A camera embedding (linear, SiLU,
    linear) is added to that of the timestep; its last layer and the LoRA's begin at zero, so that at the
    first step this is the 2D model.

    Args:
        seed: decides the first weights.

    Raises:
        ValueError: the U-Net has an embedding of classes already.
    """

    def __init__(self, denoiser: UNetDenoiser, kind: VSDModel, seed: int):
        super().__init__()
        base = denoiser.unet
        if base.class_embedding is not None:
            raise ValueError(
                "VSD tells the U-Net the camera where others have an embedding of classes. This U-Net has "
                "one. Choose another model, or --guidance_form sds."
            )
        self.v_prediction, self.sigmas = denoiser.v_prediction, denoiser.sigmas
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.unet = _with_lora(base) if kind == "lora" else _copied(base)
            width = base.time_embedding.linear_2.out_features
            first, last = nn.Linear(16, width), nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.unet.class_embedding = nn.Sequential(first, nn.SiLU(), last).to(denoiser.sigmas.device)
        self._dtype = self.unet.conv_in.weight.dtype

    def forward(
        self,
        noised: Float[Tensor, "n c h w"],
        sigma: Float[Tensor, "n"],
        cond: Conditioning,
        pose: Float[Tensor, "n 16"],
    ) -> Float[Tensor, "n c h w"]:
        """Return D_q(noised; sigma), as `vsd.OwnModel` has it; sigma is snapped to the nearest timestep."""
        (text,) = cond.parts
        timestep = nearest_timestep(self.sigmas, sigma)
        sigma = self.sigmas[timestep][:, None, None, None]
        scaled = (noised / (1 + sigma**2).sqrt()).to(self._dtype)
        output = self.unet(scaled, timestep, text.to(self._dtype), class_labels=pose, return_dict=False)[0]
        return denoised_by(output.float(), noised, sigma, self.v_prediction)

    def draw_sigma(self, rng: np.random.Generator) -> Float[Tensor, ""]:
        """Draw the noise level of any timestep, all alike."""
        return self.sigmas[int(rng.integers(len(self.sigmas)))]

    def loss_weight(self, sigma: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return 1 / sigma^2, which makes an error of D one of eps; times 1 + sigma^2, one of v."""
        return ((1 + sigma**2) if self.v_prediction else 1) / sigma**2


def _with_lora(base: Any) -> Any:
    """Return a U-Net that shares the weights of another, with a LoRA on its attention."""
    from peft import LoraConfig, inject_adapter_in_model

    shared = {id(tensor): tensor for tensor in chain(base.parameters(), base.buffers())}
    unet = copy.deepcopy(base, shared)
    config = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_RANK, init_lora_weights="gaussian", target_modules=_ATTENTION
    )
    inject_adapter_in_model(config, unet)
    for param in unet.parameters():
        if param.requires_grad:
            param.data = param.data.float()
    return unet


def _copied(base: Any) -> Any:
    return nn.Module.float(copy.deepcopy(base)).requires_grad_(True)
