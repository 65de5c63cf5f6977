"""Make safetensors of pickled weights without running what is in them: python -m sjc_debiased.convert FILE.

PyTorch reads the file by an unpickler that builds tensors and nothing else. The new file lies beside the old
one, under its name with .safetensors; nothing is overwritten.
"""

from __future__ import annotations

from pathlib import Path

from sjc_debiased.folder.runs import atomic
from sjc_debiased.models.pipelines import pipeline_of
from sjc_debiased.models.tensor_files import PICKLES, ModelError
from sjc_debiased.refusals import refusals

_OTHER_STEMS = {"text_encoder": "pytorch_model"}


def convert(source: Path, target: Path) -> int:
    """Write the tensors of a pickled checkpoint as safetensors; return how many.

    Raises:
        ModelError: the target is there already, or the source holds something else than tensors.
    """
    import torch
    from safetensors.torch import save_file

    if target.exists():
        raise ModelError(
            f"a conversion overwrites nothing. {target} is there already. Move it away, or use it."
        )
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True, mmap=False)
        while isinstance(loaded.get("state_dict"), dict):
            loaded = loaded["state_dict"]
        tensors = {k: v.contiguous().clone() for k, v in loaded.items() if isinstance(v, torch.Tensor)}
        if not tensors:
            raise ValueError("no tensor in it")
    except Exception as error:  # what a pickle can hold, it can fail by
        raise ModelError(
            f"a checkpoint must hold tensors and plain numbers alone. {source} cannot be read as such "
            f"({error}). Get the safetensors file of this model instead."
        ) from error
    with atomic(target) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    return len(tensors)


def pairs(place: Path) -> list[tuple[Path, Path]]:
    """Return what is to be converted into what: a file, or the pickled parts of a diffusers folder.

    Raises:
        ModelError: there is nothing to convert.
    """
    if place.is_file() and place.suffix.lower() in PICKLES:
        return [(place, place.with_suffix(".safetensors"))]
    found, stems = [], pipeline_of(str(place)).stems if place.is_dir() else {}
    for part, stem in stems.items():
        source = place / part / f"{_OTHER_STEMS.get(part, stem)}.bin"
        target = place / part / f"{stem}.safetensors"
        if source.is_file() and not target.exists():
            found.append((source, target))
    if not found:
        raise ModelError(
            f"there must be pickled weights ({', '.join(PICKLES)}), or a diffusers folder with such. "
            f"{place} has none that lack their safetensors. Check the path."
        )
    return found


def main(place: tyro.conf.Positional[Path]) -> None:
    """Make safetensors of a .ckpt, .pt or .bin file, or of the pickled parts of a diffusers folder.

    Args:
        place: the file or the folder.
    """
    for source, target in pairs(place):
        print(f"{source} -> {target}: {convert(source, target)} tensors")


if __name__ == "__main__":
    import tyro

    with refusals(ModelError):
        tyro.cli(main, prog="python -m sjc_debiased.convert")
