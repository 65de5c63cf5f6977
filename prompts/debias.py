"""Prompt debiasing (D-SDS Sec. 4.2, Eq. 14, App. C.3): leave out of a view's prompt what contradicts it.

For a word u of the prompt and a view v,

    pmi(v, u) = P(v | u) / [P(v | u) P(u) + P(v | not u) (1 - P(u))]

where P(v | u) is a masked language model's probability of v in the gap of "This image is depicting a
[gap] view of <prompt>", P(v | not u) the same for the prompt as it would be sent without u
(`without_strays`), and P(u) = 1/2, or 1 for a word that must stay (then pmi = 1). It is a ratio, not its
logarithm. u is removed from the prompt of v where pmi(v, u) < 1 and its value "normalized across all view
prompts" is below 0.95, which can be read in two ways:

    pmi            P is normalised over the views for both; the second test asks pmi(v, u) / mean of pmi(., u)
                   over the views
    probabilities  the first test asks pmi of P over the whole vocabulary, the second pmi of P normalised over
                   the views: P(v | u) < 0.475 / 0.525 P(v | not u) there

    python -m prompts.debias "a smiling cat" --masked_lm FOLDER

`prompts/compare_readings.py` shows what each removes from a suite of prompts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from prompts.masked_lm import DEFAULT_MASKED_LM, GAP, Bert, MaskedLM
from prompts.views import DSDS_VIEWS, VIEWS, ViewScheme
from prompts.words import BY_THEIR_PHRASE, kept_words, split_words, without_strays

SENTENCE = f"This image is depicting a {GAP} view of "
P_PRESENT = 0.5
PMI_BOUND = 1.0
NORMALIZED_PMI_THRESHOLD = 0.95
Normalized = Literal["pmi", "probabilities"]


@dataclass(frozen=True)
class ViewPrompts:
    """Say, for each view, what is sent to the text encoder and why.

    Attributes:
        prompt: what the user wrote.
        sent: the view prompt, by view.
        removed: the words left out for what they say, by view.
        pmi: by word and view, the ratio P(v|u) / P(v) of the first test; empty without prompt debiasing.
        normalized_pmi: what the second test compares with its threshold.
        kept: the words that were not judged, with the reason.
    """

    prompt: str
    sent: dict[str, str]
    removed: Mapping[str, tuple[str, ...]]
    pmi: Mapping[str, Mapping[str, float]]
    normalized_pmi: Mapping[str, Mapping[str, float]]
    kept: dict[str, str]

    def table(self) -> str:
        """Return the small table that is printed before a run."""
        lines = [f"{'view':<7}prompt sent"]
        for view, text in self.sent.items():
            gone = ", ".join(self.removed[view])
            lines.append(f"{view:<7}{text!r}" + (f"  (removed: {gone})" if gone else ""))
        if self.pmi:
            width = max(len(w) for w in self.pmi) + 2
            head = "".join(f"{v:>14}" for v in self.sent)
            lines += ["", f"{'PMI (normalised)':<{max(width, 18)}}{head}"]
            for word, row in self.pmi.items():
                cells = "".join(
                    f"{f'{row[v]:.2f} ({self.normalized_pmi[word][v]:.2f})':>13}"
                    + ("*" if word in self.removed[v] else " ")
                    for v in self.sent
                )
                lines.append(f"{word:<{max(width, 18)}}{cells}")
            lines.append(f"* removed: PMI < {PMI_BOUND:g} and normalised < {NORMALIZED_PMI_THRESHOLD:g}")
        if self.kept:
            lines.append("kept: " + ", ".join(f"{w} ({why})" for w, why in self.kept.items()))
        return "\n".join(lines)


def plain_prompts(prompt: str, scheme: ViewScheme) -> ViewPrompts:
    """Return the view prompts without prompt debiasing: every word goes to every view."""
    sent = {view: scheme.prompt(view, prompt) for view in VIEWS}
    return ViewPrompts(prompt, sent, dict.fromkeys(VIEWS, ()), {}, {}, {})


def pmi_tests(present: np.ndarray, absent: np.ndarray, normalized: Normalized) -> np.ndarray:
    """Return what the two tests compare with 1 and with 0.95, float64 [2, views].

    Args:
        present, absent: log P(v | u) and log P(v | not u) over the model's whole vocabulary, [views].
        normalized: what the second test normalises over the views (the module says how).
    """
    over_views = pmi_ratio(*(p - np.logaddexp.reduce(p) for p in (present, absent)))
    if normalized == "pmi":
        return np.stack([over_views, over_views / over_views.mean()])
    return np.stack([pmi_ratio(present, absent), over_views])


def pmi_ratio(present: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Return P(v | u) / P(v) of D-SDS Eq. 14 from log P(v | u) and log P(v | not u)."""
    return np.exp(present - np.logaddexp(np.log(P_PRESENT) + present, np.log(1 - P_PRESENT) + absent))


def debias_prompt(
    prompt: str,
    masked_lm: MaskedLM,
    scheme: ViewScheme = DSDS_VIEWS,
    keep: tuple[str, ...] = (),
    normalized: Normalized = "pmi",
) -> ViewPrompts:
    """Remove from each view's prompt the words that contradict the view (the module says how).

    A repeated word is one word: it fails, or not, everywhere. Words are judged one at a time against the
    whole prompt, as in the paper; those that fail are removed together, with what they leave stray
    (`without_strays`).

    Args:
        keep: words to protect beside those of `kept_words`.
        normalized: what the second test normalises over the views.

    Raises:
        ValueError: `normalized` is none of the two readings.
    """
    if normalized not in get_args(Normalized):
        raise ValueError(
            f"normalized must be {' or '.join(get_args(Normalized))}. It is {normalized!r}. Choose one."
        )
    kept = kept_words(prompt, keep)
    words = list(dict.fromkeys(w.text for w in split_words(prompt)))
    open_words = [w for w in words if w not in kept]
    needed = {word for word, reason in kept.items() if reason not in BY_THEIR_PHRASE}
    texts = [SENTENCE + prompt, *(SENTENCE + without_strays(prompt, {w}, needed) for w in open_words)]
    log_p = masked_lm.gap_log_probabilities(texts, VIEWS)
    tests = {w: np.ones((2, len(VIEWS))) for w in words}
    tests |= {w: pmi_tests(log_p[0], absent, normalized) for w, absent in zip(open_words, log_p[1:])}
    pmi, normalized_pmi = ({w: dict(zip(VIEWS, map(float, t[i]))) for w, t in tests.items()} for i in (0, 1))
    removed = {
        view: tuple(
            w
            for w in open_words
            if pmi[w][view] < PMI_BOUND and normalized_pmi[w][view] < NORMALIZED_PMI_THRESHOLD
        )
        for view in VIEWS
    }
    sent = {v: scheme.prompt(v, without_strays(prompt, set(removed[v]), needed)) for v in VIEWS}
    return ViewPrompts(prompt, sent, removed, pmi, normalized_pmi, kept)


def main(
    prompt: tyro.conf.Positional[str],
    masked_lm: str = DEFAULT_MASKED_LM,
    keep: tuple[str, ...] = (),
    pmi_normalized: Normalized = "pmi",
    local_files_only: bool = False,
) -> None:
    """Print what prompt debiasing makes of a prompt.

    Args:
        prompt: the user's prompt.
        masked_lm: hub name or folder of a BERT-format masked language model.
        keep: words to protect beside the subject, articles and what connects.
        pmi_normalized: what the second test normalises over the views (docs/deviations.md).
        local_files_only: never ask the hub.
    """
    if not split_words(prompt):
        raise ValueError("the prompt must have a word. It has none. Write what you want to see.")
    bert = Bert(masked_lm, local_files_only)
    print(debias_prompt(prompt, bert, keep=keep, normalized=pmi_normalized).table())


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main, prog="python -m prompts.debias", use_underscores=True)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
