"""What the two readings of the paper's second PMI test (`prompts/debias.py`) remove from a suite of prompts.

For the paper's prompts and language model:

    python -m prompts.compare_readings --suite dsds70 --masked_lm google-bert/bert-base-uncased
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import get_args

from prompts.debias import DEFAULT_MASKED_LM, Normalized, debias_prompt
from prompts.masked_lm import Bert, MaskedLM
from prompts.suites import load_suite
from prompts.views import VIEWS
from prompts.words import split_words

READINGS = get_args(Normalized)


@dataclass(frozen=True)
class Decision:
    """Say of one word of a prompt and one view which readings remove it.

    Attributes:
        removed: by reading.
    """

    prompt: str
    word: str
    view: str
    removed: dict[Normalized, bool]


def decisions(prompt: str, masked_lm: MaskedLM) -> list[Decision]:
    """Return the decision for every judged word of a prompt, in their order, and every view."""
    plans = {reading: debias_prompt(prompt, masked_lm, normalized=reading) for reading in READINGS}
    first = plans[READINGS[0]]
    return [
        Decision(prompt, word, view, {reading: word in plan.removed[view] for reading, plan in plans.items()})
        for word in first.pmi
        if word not in first.kept
        for view in VIEWS
    ]


def table(made: list[Decision]) -> str:
    """Return a Markdown table of what either reading removes, and below it how often they agree."""
    head = ("prompt", "word", "view", *READINGS)
    cells = [
        (d.prompt, d.word, d.view, *("removed" if d.removed[r] else "kept" for r in READINGS))
        for d in made
        if any(d.removed.values())
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells)]
    lines = ["| " + " | ".join(t.ljust(w) for t, w in zip(row, widths)) + " |" for row in (head, *cells)]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    count = Counter(tuple(d.removed[r] for r in READINGS) for d in made)
    agree = count[True, True] + count[False, False]
    share = f" ({100 * agree / len(made):.1f} %)" if made else ""
    total = (
        f"{len(made)} decisions, of which the readings agree on {agree}{share}: removed by both "
        f"{count[True, True]}, by {READINGS[0]} alone {count[True, False]}, by {READINGS[1]} alone "
        f"{count[False, True]}."
    )
    return "\n".join([*lines, "", total])


def main(suite: str = "dsds70", masked_lm: str = DEFAULT_MASKED_LM, local_files_only: bool = False) -> None:
    """Print which words each reading of the paper's second PMI test removes from a suite's prompts.

    Prompts with words that the language model can spell only letter by letter are left out.

    Args:
        suite: a suite's name (a wrong one lists them), or a JSON file of the same form.
        masked_lm: hub name or folder of a BERT-format masked language model.
        local_files_only: never ask the hub.
    """
    prompts = [entry.prompt for entry in load_suite(suite).prompts]
    bert = Bert(masked_lm, local_files_only)
    known = [p for p in prompts if all(bert.knows(w.text) for w in split_words(p))]
    print(table([d for p in known for d in decisions(p, bert)]))
    others = "; the language model does not know the others' words" if len(known) < len(prompts) else ""
    print(f"{len(known)} of {len(prompts)} prompts{others}.")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m prompts.compare_readings", use_underscores=True)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
