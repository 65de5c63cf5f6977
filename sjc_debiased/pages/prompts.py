"""What was sent for each view, and which words of the prompt are not in it, with their PMI."""

from __future__ import annotations

from dataclasses import dataclass

from prompts.debias import NORMALIZED_PMI_THRESHOLD, PMI_BOUND
from prompts.views import VIEWS
from prompts.words import split_words
from sjc_debiased.folder.reader import RunReader


@dataclass(frozen=True)
class Piece:
    """Some words of a prompt that stand together.

    Attributes:
        gone: "" where they were sent, "removed" for what they say, "stray" where they only went along.
        pmi, normalized: what the two tests compared, of a removed word.
    """

    text: str
    gone: str = ""
    pmi: float = 0.0
    normalized: float = 0.0


def prompt_rows(run: RunReader) -> dict | None:
    """Return what became of the prompt: by view the text sent and the pieces, and the table of PMI.

    Returns:
        None where it is not written down.

    Raises:
        RunError: the options cannot be read.
        KeyError, TypeError, AttributeError: what is written down is damaged.
    """
    found = run.view_prompts
    if found is None:
        return None
    views = [view for view in VIEWS if view in found["sent"]]
    rows = [{"view": v, "sent": str(found["sent"][v]), "pieces": _pieces(found, v)} for v in views]
    words = [
        {
            "word": word,
            "why": found["kept"].get(word, ""),
            "cells": [
                (float(pmi[v]), float(found["normalized_pmi"][word][v]), word in found["removed"][v])
                for v in views
            ],
        }
        for word, pmi in found["pmi"].items()
    ]
    bounds = PMI_BOUND, NORMALIZED_PMI_THRESHOLD
    return {"rows": rows, "views": views, "words": words, "bounds": bounds}


def _pieces(found: dict, view: str) -> list[Piece]:
    """Return the prompt in pieces: those that were sent for a view, and the words that were not."""
    prompt, removed = found["prompt"], found["removed"][view]
    left = [word.text for word in split_words(found["sent"][view])]
    pieces: list[Piece] = []
    for word in reversed(split_words(prompt)):  # the end of what was sent is what is left of the prompt
        text = prompt[word.start : word.end]
        if word.text in removed:
            pmi, normalized = (found[name][word.text][view] for name in ("pmi", "normalized_pmi"))
            pieces.append(Piece(text, "removed", float(pmi), float(normalized)))
        elif left and left[-1] == word.text:
            left.pop()
            if pieces and not pieces[-1].gone:
                text = f"{text} {pieces.pop().text}"
            pieces.append(Piece(text))
        else:
            pieces.append(Piece(text, "stray"))
    return pieces[::-1]
