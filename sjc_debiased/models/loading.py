"""From a name to a loaded model: find its files, fetch what is missing, and let its family load it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prompts.hub import megabytes
from sjc_debiased.models.finding import Found, fetch_files, find_model
from sjc_debiased.models.lora import Lora
from sjc_debiased.models.pipelines import check_folder

if TYPE_CHECKING:
    import torch

    from sjc_debiased.denoiser import Denoiser


def check_prompts(location: str, prompts: list[str], local_files_only: bool = False) -> None:
    """Refuse prompts that the model's text encoder would cut; loads the tokenizer, not the model.

    Raises:
        ValueError: a prompt is too long; says what would be cut. Or the tokenizer is not the text encoder's.
        MissingError, ModelError: as `find_model`.
    """
    found = find_model(location, local_files_only)
    found.pipeline.check_prompts(found, prompts)


def check_loras(location: str, loras: tuple[Lora, ...], local_files_only: bool = False) -> None:
    """Refuse LoRAs that cannot be read or are for another model, before the model is loaded.

    Raises:
        ModelError, MissingError: says what is wrong.
    """
    if loras:
        found = find_model(location, local_files_only)
        found.pipeline.check_loras(found, loras, local_files_only)


def load_model(
    location: str,
    device: torch.device,
    dtype: torch.dtype,
    local_files_only: bool = False,
    loras: tuple[Lora, ...] = (),
    compiled: bool = False,
    prompts: Iterable[str] = (),
) -> Denoiser:
    """Load a 2D model onto a device.

    Args:
        dtype: of its networks, but the autoencoder's.
        loras: low-rank changes of the weights, added to them.
        compiled: compile its network at the first call; it goes on without where that fails.
        prompts: what it will be asked. A text encoder that reads ahead reads them first, and goes; others do
            not look at them.

    Raises:
        ModelError: it is none that is supported, or damaged.
        MissingError: it is not within reach.
    """
    found = find_whole(location, local_files_only)
    denoiser = found.pipeline.load(found, device, dtype, loras, local_files_only, list(prompts))
    if compiled:
        denoiser.compile()
    return denoiser


def find_whole(location: str, local_files_only: bool) -> Found:
    """Return where a model is, with all of its files there; what is not in the cache is fetched.

    Raises:
        ModelError, MissingError: as `find_model`.
    """
    found = find_model(location, local_files_only)
    if found.to_fetch:
        print(f"fetching {megabytes(sum(found.to_fetch.values()))} of {location} from the hub")
        fetch_files(location, found.to_fetch, found.place.name, found.pipeline)
        check_folder(found.place, location)
    return found
