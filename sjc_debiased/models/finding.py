"""Where a model is: its files in a folder, a single file, the cache or on the hub, before any is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prompts.hub import (
    MissingError,
    cache_of,
    cached,
    download_command,
    fetch,
    files_in,
    listing,
    megabytes,
    message,
)
from sjc_debiased.models import files as model_files
from sjc_debiased.models.files import INDEX, Pipeline
from sjc_debiased.models.pipelines import STABLE_DIFFUSION, check_folder, check_index, pipeline_of
from sjc_debiased.models.tensor_files import ModelError, check_checkpoint

WAYS_OUT = (
    "Or name a folder or a .safetensors file: --model FOLDER; or use the embedded model: --model menagerie."
)


@dataclass(frozen=True)
class Found:
    """Say where a model is, and what is still to be fetched of it.

    Attributes:
        location: how it was named.
        place: its folder (of a hub name: in the cache), or its single file.
        pipeline: what it is.
        family: "Stable Diffusion 1.x" or "... 2.x" of a single file; None of a folder.
        to_fetch: weights that the hub will be asked for, with their sizes in bytes.
    """

    location: str
    place: Path
    pipeline: Pipeline
    family: str | None = None
    to_fetch: dict[str, int] = field(default_factory=dict)

    def weights(self) -> dict[str, int]:
        """Return the files of weights that are there, with their sizes in bytes."""
        if self.family:
            return {str(self.place): self.place.stat().st_size}
        sizes = files_in(self.place)
        return {name: sizes[name] for name in model_files.weights(sizes, self.pipeline)}

    def at_a_time(self) -> int:
        """Return the most bytes of weights that are held at a time."""
        sizes = self.weights()
        text = sum(size for name, size in sizes.items() if name.startswith("text_encoder/"))
        rest = sum(sizes.values()) - text
        return max(text, rest) if self.pipeline.reads_ahead else text + rest

    def __str__(self) -> str:
        if self.family:
            return f"weights: {self.place} ({megabytes(self.place.stat().st_size)}), {self.family}"
        there = [f"{n} ({megabytes(size)})" for n, size in self.weights().items()]
        lines = [f"weights in {self.place}: {', '.join(there) or 'none'}"]
        if self.to_fetch:
            missing = [f"{n} ({megabytes(size)})" for n, size in self.to_fetch.items()]
            lines.append(f"weights that will be fetched from the hub: {', '.join(missing)}")
        return "\n".join(lines)


def find_model(location: str, local_files_only: bool = False) -> Found:
    """Find a model's files and decide whether they can be used, before anything large is fetched or read.

    Of a hub name the small files are fetched where they are not in the cache; the hub is asked at most once.

    Raises:
        ModelError: it is none that is supported, or damaged.
        MissingError: it is not within reach; lists what is missing and where it was looked for.
    """
    place = Path(location)
    if place.is_file():
        return Found(location, place, STABLE_DIFFUSION, check_checkpoint(place))
    if place.is_dir():
        return Found(location, place, check_folder(place, location))
    folder, pipeline = cached(location), pipeline_of(location)
    names = files_in(folder)
    if folder and INDEX in names:
        check_index(folder / INDEX, location)
    if folder and not model_files.lacking(names, pipeline):
        return Found(location, folder, check_folder(folder, location))
    return _find_on_hub(location, pipeline, folder, names, local_files_only)


def _find_on_hub(
    name: str, pipeline: Pipeline, folder: Path | None, names: dict[str, int], local_files_only: bool
) -> Found:
    missing, places = model_files.lacking(names, pipeline), [f"the cache ({cache_of(name)})"]
    command = download_command(name, pipeline.patterns)
    remedy = f"Download them where there is a network ({command}), or copy the cache. {WAYS_OUT}"
    if pipeline.terms:
        remedy = f"{pipeline.terms} {remedy}"
    if local_files_only:
        raise MissingError(message(name, missing, [*places, "nowhere else: --local_files_only"], remedy))
    revision = folder.name if folder else None
    try:
        there = listing(name, revision)
    except MissingError as error:
        raise MissingError(message(name, missing, [*places, str(error)], remedy)) from error
    if INDEX not in there.sizes:
        files = [n for n in there.sizes if "/" not in n and n.endswith(".safetensors")]
        raise ModelError(
            f"--model NAME must be a diffusers pipeline on the hub. {name} has no {INDEX}"
            + (
                f"; it has {', '.join(files)}. Download one of them and name it: --model FILE."
                if files
                else ". "
            )
            + ("" if files else "Check the name.")
        )
    if folder is None or INDEX not in names:
        folder = fetch_files(name, [INDEX], revision, pipeline)
    if check_index(folder / INDEX, name) is not pipeline:
        raise ModelError(
            f"a model's own settings are chosen by its {INDEX}. That of {name} was not here when they were. "
            "Now it is: run the command again."
        )
    still = model_files.lacking(there.sizes, pipeline)
    if still:
        raise ModelError(model_files.what_is_missing(still, there.sizes, name, pipeline))
    folder = fetch_files(name, model_files.small_files(there.sizes, pipeline), folder.name, pipeline)
    pipeline.check_configs(model_files.read_configs(folder, name, pipeline), name)
    to_fetch = {n: there.sizes[n] for n in model_files.weights(there.sizes, pipeline) if n not in names}
    return Found(name, folder, pipeline, to_fetch=to_fetch)


def fetch_files(name: str, files: Iterable[str], revision: str | None, pipeline: Pipeline) -> Path:
    """Download files of a model, as `prompts.hub.fetch`; where it fails, say on which terms they are given.

    Raises:
        MissingError: the hub does not give them.
    """
    try:
        return fetch(name, files, revision)
    except MissingError as error:
        raise MissingError(f"{error} {pipeline.terms}".strip()) from error
