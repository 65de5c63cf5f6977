"""The user study (D-SDS Table 2, App. A.3): a page that asks, and the count of what was answered.

    python -m sjc_debiased.evaluation.study make runs/menagerie study/     # study.html and its key
    python -m sjc_debiased.evaluation.study count study/key.json answers/*.json

`study.html` is one self-contained file that works offline: pairs of turntables, above and below in an order
drawn from the seed, the paper's three questions, and a button that saves the answers as a JSON file. Which of
the two is which stands in `key.json` alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sjc_debiased.evaluation.intervals import wilson
from sjc_debiased.foreign import read_json
from sjc_debiased.runs import atomic, run_folders, write_json

QUESTIONS = {
    "form": "Which one has a more realistic 3D form?",
    "prompt": "Which one is more consistent with the prompt?",
    "quality": "Which one has better overall quality?",
}
"""The questions of App. A.3, by the name they have in the answers."""

_PLACES = ("above", "below")
_TEMPLATE = Path(__file__).with_name("study.html")


class StudyError(ValueError):
    """A study cannot be made or counted; the message says the rule, what was found, and the way out."""


@dataclass(frozen=True)
class Pair:
    """Two runs of the same prompt and seed, to be compared."""

    prompt: str
    ours: Path
    baseline: Path


@dataclass(frozen=True)
class Tally:
    """Hold how often ours was preferred, by question."""

    preferred: dict[str, int]
    n: dict[str, int]
    people: int

    def interval(self, question: str) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the share that preferred ours."""
        return wilson(self.preferred[question], self.n[question])


def find_pairs(run_root: Path, ours: str = "dsds", baseline: str = "sjc") -> list[Pair]:
    """Return the pairs of finished runs of two presets that share prompt and seed."""
    found: dict[tuple, Path] = {}
    for folder in run_folders(run_root):
        if (folder / "turntable.mp4").exists():
            r = json.loads((folder / "options.json").read_text(encoding="utf-8"))["resolved"]
            found[r["preset"], r["prompt"], r["seed"]] = folder
    return [
        Pair(prompt, folder, found[baseline, prompt, seed])
        for (preset, prompt, seed), folder in found.items()
        if preset == ours and (baseline, prompt, seed) in found
    ]


def make_study(pairs: list[Pair], seed: int) -> tuple[str, dict]:
    """Return the page and its key.

    The order of the pairs, and which of two is above, are drawn from the seed.

    Raises:
        StudyError: there is no pair.
    """
    if not pairs:
        raise StudyError(
            "a study compares finished runs of two presets with the same prompt and seed. There are none in "
            "that folder. Make them with scripts/run_prompts.sh --presets sjc,dsds."
        )
    rng = np.random.default_rng(seed)
    shown, above = [], []
    for i in rng.permutation(len(pairs)):
        pair, ours_above = pairs[i], bool(rng.integers(2))
        videos = [_video(pair.ours), _video(pair.baseline)]
        shown.append({"prompt": pair.prompt, "videos": videos if ours_above else videos[::-1]})
        above.append("ours" if ours_above else "baseline")
    digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    content = {"study": digest, "pairs": shown, "questions": QUESTIONS}
    # "<" must not end the script element, whatever a prompt holds
    embedded = json.dumps(content, ensure_ascii=True).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8").replace("@CONTENT@", embedded)
    return page, {"study": digest, "seed": seed, "above": above}


def count(key: dict, answers: list[dict]) -> Tally:
    """Return how often ours was preferred.

    Args:
        key: as `make_study` returned it. answers: one exported file of each person.

    Raises:
        StudyError: an answer is of another study, of a pair that it has not, or there twice.
    """
    preferred, n, people = Counter(), Counter(), set()
    for answer in answers:
        if answer["study"] != key["study"]:
            raise StudyError(
                f"answers must be of the study {key['study']}. One is of {answer['study']}. Leave it out."
            )
        if answer["person"] in people:
            raise StudyError(
                f"a person's answers count once. Two files are of {answer['person']}. Leave one out."
            )
        people.add(answer["person"])
        for choice in answer["choices"]:
            if choice["pair"] >= len(key["above"]):
                raise StudyError(
                    f"answers must be of the study's {len(key['above'])} pairs. One is of pair "
                    f"{choice['pair']}. Leave that file out."
                )
            ours_above = key["above"][choice["pair"]] == "ours"
            n[choice["question"]] += 1
            preferred[choice["question"]] += ours_above == (choice["choice"] == "above")
    return Tally(dict(preferred), {q: n[q] for q in QUESTIONS}, len(people))


def read_answers(path: Path) -> dict:
    """Return a file of answers, checked.

    Raises:
        StudyError: the file is not one.
    """
    try:
        answer = read_json(path)
        seen = set()
        for c in answer["choices"]:
            key = c["pair"], c["question"]
            valid = isinstance(c["pair"], int) and c["pair"] >= 0 and c["question"] in QUESTIONS
            if not valid or c["choice"] not in _PLACES or key in seen:
                raise ValueError(f"a choice is {str(c)[:80]}")
            seen.add(key)
        who = {name: str(answer[name]) for name in ("study", "person")}
        return who | {"choices": answer["choices"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudyError(
            f"a file of answers must be what the page saved. {path} is not ({error}). Ask for it again, or "
            "leave it out."
        ) from error


def _video(folder: Path) -> str:
    return base64.b64encode((folder / "turntable.mp4").read_bytes()).decode()


def make(
    run_root: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    ours: str = "dsds",
    baseline: str = "sjc",
    seed: int = 0,
) -> None:
    """Write `study.html`, to be given away, and `key.json`, to be kept.

    Args:
        run_root: parent of the run folders.
        out: folder that gets the two files.
        ours: preset that is compared.
        baseline: preset it is compared with.
        seed: decides the order of the pairs, and which is above.
    """
    page, key = make_study(find_pairs(run_root, ours, baseline), seed)
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "study.html") as partial:
        partial.write_text(page, encoding="utf-8")
    write_json(out / "key.json", key)
    print(f"{len(key['above'])} pairs: {out / 'study.html'} (to give away), {out / 'key.json'} (to keep)")


def tally(key: tyro.conf.Positional[Path], answers: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Print the share of answers that preferred ours.

    Args:
        key: `key.json` of the study. answers: the files that the page saved.
    """
    counted = count(json.loads(key.read_text(encoding="utf-8")), [read_answers(a) for a in answers])
    print(f"{counted.people} people")
    for name, question in QUESTIONS.items():
        if n := counted.n[name]:
            low, high = counted.interval(name)
            share = counted.preferred[name] / n
            print(f"{question} ours {share:.0%} [{low:.0%}, {high:.0%}] of {n} answers")


if __name__ == "__main__":
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(
            {"make": make, "count": tally},
            prog="python -m sjc_debiased.evaluation.study",
            use_underscores=True,
        )
    except (OSError, ValueError, KeyError, IndexError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
