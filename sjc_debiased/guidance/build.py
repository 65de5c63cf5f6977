"""The guidance that a run's options ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.guidance import Guidance
from sjc_debiased.guidance.own_unet import OwnUNet, UNetDenoiser
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS
from sjc_debiased.guidance.vsd import VSD
from sjc_debiased.options.config import Resolved
from sjc_debiased.schedules import TimestepRange
from voxnerf.cameras import Camera
from voxnerf.rays import to_device


def build_guidance(run: Resolved, denoiser: Denoiser, cameras: Sequence[Camera]) -> Guidance:
    """Return the guidance of a run.

    Args:
        denoiser: that will be asked; VSD's second model is made of its U-Net.
        cameras: of every step.

    Raises:
        ValueError: the denoiser has no U-Net for VSD.
    """
    asked = run.guidance
    timesteps = None if asked.timesteps is None else TimestepRange.parse(*asked.timesteps)
    paas = PAAS(asked.scale, asked.n_noise, asked.var_red, timesteps)
    if asked.guidance_form == "paas":
        return paas
    if asked.weighting is None:
        raise ValueError(f"--guidance_form {asked.guidance_form} has a --weighting. It is None. Name one.")
    if asked.guidance_form == "sds":
        return SDS(paas, asked.weighting)
    if asked.vsd_model is None or asked.vsd_lr is None:
        raise ValueError("--guidance_form vsd has a --vsd_model and a --vsd_lr. One is None. Name both.")
    if not isinstance(denoiser, UNetDenoiser):
        raise ValueError(
            "VSD makes its second model of the denoiser's U-Net. "
            f"{type(denoiser).__name__} has none. Choose --guidance_form sds."
        )
    poses = np.stack([camera.c2w.ravel() for camera in cameras]).astype(np.float32)
    own = OwnUNet(denoiser, asked.vsd_model, run.seed)
    told = denoiser.condition([run.prompt])  # without view words
    return VSD(own, told, to_device(poses, denoiser.device), paas, asked.weighting, asked.vsd_lr)
