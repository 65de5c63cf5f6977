"""Files on the model hub: what the local cache has, and one question to the hub about the rest.

The hub is asked with a short time limit. Where it does not answer, this process asks it nothing more: what
comes after is in the cache, or it is missing, and the message says what and where it was looked for.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

SECONDS = 4.0
"""How long the hub has to answer; `HF_HUB_ETAG_TIMEOUT` in the environment says otherwise."""

_silent: dict[str, str] = {}
"""Why a hub, by its address, is not asked any more."""

_answers: dict[tuple[str, str, str | None], Listing] = {}
"""What a hub has said, by its address, the repository and the revision."""


class MissingError(OSError):
    """Files of a model are not within reach; the message says which, where it was looked, and the way out."""


@dataclass(frozen=True)
class Listing:
    """Hold what the hub says of a repository: its revision, and its files with their sizes in bytes."""

    revision: str
    sizes: Mapping[str, int]


def cache_of(name: str) -> Path:
    """Return where the local cache has a repository, if it has it."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=name, repo_type="model")


def cached(name: str) -> Path | None:
    """Return the cached snapshot of a repository's main branch, whole or not, or None; asks nobody."""
    repository = cache_of(name)
    try:
        folder = repository / "snapshots" / (repository / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return folder if folder.is_dir() else None


def files_in(folder: Path | None) -> dict[str, int]:
    """Return the files of a folder by their relative names, with their sizes; a dangling link is none."""
    if folder is None:
        return {}
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def listing(name: str, revision: str | None = None) -> Listing:
    """Ask the hub what a repository holds, once and with a time limit.

    Args:
        revision: a commit; None for the main branch.

    Raises:
        MissingError: why the hub cannot say it. After no answer, this process never asks again.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if constants.is_offline_mode():
        raise MissingError("the hub was not asked, because HF_HUB_OFFLINE is set")
    hub = constants.ENDPOINT
    if hub in _silent:
        raise MissingError(_silent[hub])
    if (hub, name, revision) in _answers:
        return _answers[hub, name, revision]
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or SECONDS)
    api = HfApi(endpoint=hub)
    try:
        info = _within(
            seconds, lambda: api.model_info(name, revision=revision, timeout=2 * seconds, files_metadata=True)
        )
        answer = Listing(info.sha, {file.rfilename: file.size or 0 for file in info.siblings})
        _answers[hub, name, revision] = _answers[hub, name, answer.revision] = answer
        return answer
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise MissingError(
            f"the hub {hub} has no such model for you (a misspelt name, or one that asks for `hf auth login`)"
        ) from error
    except Exception as error:  # a proxy, a login page, a broken line: each fails in its own way
        why = f"{error}".strip().splitlines()[0] if f"{error}".strip() else type(error).__name__
        _silent[hub] = f"the hub {hub} did not answer ({why})"
        raise MissingError(_silent[hub]) from error


def _within(seconds: float, ask: Callable):
    """Return what `ask` returns, or give it up: time limits of sockets do not count names and trickles."""
    answers: queue.Queue = queue.Queue()

    def work():
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error:
        raise error
    return answer


def fetch(name: str, files: Iterable[str], revision: str | None = None) -> Path:
    """Download files of a repository that has answered, each unless it is cached; return their snapshot.

    Args:
        revision: a commit; None for the main branch, whose commit at the first file is that of all.

    Raises:
        MissingError: the hub does not give them.
    """
    from huggingface_hub import hf_hub_download

    folder = None
    for file in files:
        try:
            path = Path(hf_hub_download(name, file, revision=revision))
        except Exception as error:  # again each in its own way; a gated model's says what to accept where
            raise MissingError(
                f"a model's files must come whole. {file} of {name} did not ({error}). Run the command again."
            ) from error
        folder = path.parents[file.count("/")]
        revision = folder.name
    assert folder, "at least one file"
    return folder


def gather(
    name: str,
    lacking: Callable[[Collection[str]], list[str]],
    chosen: Callable[[Collection[str]], list[str]],
    remedy: str,
    local_files_only: bool = False,
) -> Path:
    """Return a folder with the files that are needed of a model: a folder, or from the cache or the hub.

    Args:
        name: a folder or a hub name.
        lacking: which needed files are not among these; chosen: which of a repository's to download.
        remedy: the last sentences of the message.

    Raises:
        MissingError: lists what is missing, and where it was looked for.
    """
    if Path(name).is_dir():
        folder = Path(name)
        missing = lacking(files_in(folder))
        if missing:
            raise MissingError(message(name, missing, [str(folder)], remedy))
        return folder
    folder = cached(name)
    missing = lacking(files_in(folder))
    if folder and not missing:
        return folder
    places = [f"the cache ({cache_of(name)})"]
    if local_files_only:
        raise MissingError(message(name, missing, [*places, "nowhere else: --local_files_only"], remedy))
    try:
        there = listing(name, folder.name if folder else None)
    except MissingError as error:
        raise MissingError(message(name, missing, [*places, str(error)], remedy)) from error
    missing = lacking(there.sizes)
    if missing:
        raise MissingError(message(name, missing, ["its repository on the hub"], remedy))
    return fetch(name, chosen(there.sizes), folder.name if folder else None)


def message(name: str, missing: list[str], places: list[str], remedy: str) -> str:
    """Return the message of a model that is not within reach."""
    return (
        f"the model's weights must be within reach. {name!r} lacks {', '.join(missing)}; looked for in "
        f"{', '.join(places)}. {remedy}"
    )


def download_command(name: str, patterns: Iterable[str]) -> str:
    """Return the command that downloads no more than these files of a repository."""
    return f"hf download {name} " + " ".join(f'--include "{pattern}"' for pattern in patterns)


def megabytes(size: int) -> str:
    """Return a size for people: 4.3 GB, 335 MB, 1 kB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} bytes"
