"""What tells the weights of models apart, without reading all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from prompts.hub import MissingError, cached, listing
from sjc_debiased.models.files import Pipeline

OUT_OF_REACH = "out of reach"
_MIB = 2**20
_USED = (".safetensors", ".json", ".model")


def fingerprint_of(
    location: str, pipeline: Pipeline, local_files_only: bool = False, beside: tuple[str, ...] = ()
) -> str:
    """Return what tells a model's weights apart, without reading all of them.

    A folder's is a hash over the names, sizes, first and last MiB of the files that a run uses, a single
    file's over its size, first and last MiB; a hub model's is the revision in the local cache or, of a model
    that is not there yet, the one that loading will fetch. "out of reach" where there is neither: loading
    says why. The weights of a text encoder that reads ahead do not count: a run goes on without them.

    Args:
        beside: what counts in a folder beside the pipeline's parts, where it is there.
    """
    place = Path(location)
    if place.is_file():
        return digest_of({"": place})
    if not place.is_dir():
        folder = cached(location)
        if folder or local_files_only:
            return folder.name if folder else OUT_OF_REACH
        try:
            return listing(location).revision
        except MissingError:
            return OUT_OF_REACH
    parts = (*pipeline.parts, *beside)
    used = sorted({p for part in parts for p in (place / part).rglob("*") if p.suffix in _USED})
    files = {path.relative_to(place).as_posix(): path for path in used if path.is_relative_to(place)}
    if pipeline.reads_ahead:
        kept = "text_encoder/config.json"
        files = {n: path for n, path in files.items() if n == kept or not n.startswith("text_encoder/")}
    return digest_of(files)


def digest_of(files: Mapping[str, Path]) -> str:
    """Return a hash over the names, sizes, first and last MiB of files, in their order."""
    digest = hashlib.sha256()
    for name, path in files.items():
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MIB))
            file.seek(max(0, size - _MIB))
            digest.update(file.read())
    return digest.hexdigest()
