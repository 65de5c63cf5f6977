"""Prompt suites: lists of prompts with their sources, as JSON files beside this one or of one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_LIMIT_BYTES = 4 * 2**20


class SuiteError(ValueError):
    """A suite cannot be used; the message says the rule, what was found, and the way out."""


@dataclass(frozen=True)
class SuitePrompt:
    """One prompt of a suite.

    Attributes:
        face: whether the object has a face to count, for who labels (D-SDS Table 3 counts only those).
        source: where the prompt comes from.
        settings: options of `run_sjc.py` that this prompt asks for, by name.
    """

    prompt: str
    face: bool
    source: str = ""
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A named list of prompts, no two of them the same."""

    name: str
    about: str
    prompts: tuple[SuitePrompt, ...]


def suite_names() -> list[str]:
    """Return the names of the suites that come with the code."""
    return sorted(p.stem for p in _HERE.glob("*.json"))


def load_suite(name: str) -> Suite:
    """Return a suite by its name, or from a JSON file of the same form.

    Raises:
        SuiteError: there is none of that name, or the file is no suite.
    """
    path = _HERE / f"{name}.json" if name in suite_names() else Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise SuiteError(
            f"--suite must be {', '.join(suite_names())}, or a JSON file. Received {name!r}, which is "
            "neither. Check the spelling."
        )
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError(f"it is larger than {_LIMIT_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        prompts = tuple(_prompt(entry) for entry in content["prompts"])
        texts = [p.prompt for p in prompts]
        if not texts:
            raise ValueError("it has no prompt")
        if twice := sorted({t for t in texts if texts.count(t) > 1}):
            raise ValueError(f"{twice[0]!r} is in it twice")
        return Suite(path.stem, str(content.get("about", "")), prompts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SuiteError(
            'a suite must be {"about": text, "prompts": [{"prompt": text, "face": true or false, ...}]}. '
            f"{path} is not ({error}). Compare it with {_HERE.name}/menagerie.json."
        ) from error


def has_face(prompt: str) -> bool:
    """Return whether a prompt's object has a face: no suite that comes with the code says otherwise."""
    return prompt not in _faceless()


@cache
def _faceless() -> frozenset[str]:
    return frozenset(p.prompt for name in suite_names() for p in load_suite(name).prompts if not p.face)


def _prompt(entry: dict) -> SuitePrompt:
    """Return one entry of the file, or raise ValueError, TypeError or KeyError."""
    unknown = set(entry) - {"prompt", "face", "source", "settings"}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    prompt = entry["prompt"].strip() if isinstance(entry["prompt"], str) else entry["prompt"]
    made = SuitePrompt(prompt, entry["face"], entry.get("source", ""), entry.get("settings", {}))
    kinds = {"prompt": str, "face": bool, "source": str, "settings": dict}
    for name, kind in kinds.items():
        if not isinstance(getattr(made, name), kind):
            raise TypeError(f"{name} is {getattr(made, name)!r}")
    return made
