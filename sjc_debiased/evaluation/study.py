"""The user study (D-SDS Table 2, App. A.3): a page that asks, and the count of what was answered.

    python -m sjc_debiased.evaluation.study make runs/menagerie study/     # study.html and its key
    python -m sjc_debiased.evaluation.study count study/key.json answers/*.json

`study.html` is one self-contained file that works offline: pairs of turntables, the paper's three questions,
and a button that saves the answers so far as a JSON file. The order of the pairs, and which of two is above,
are drawn for each person, half of the pairs each way, and saved with the answers. Which of the two is whose
stands in `key.json` alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sjc_debiased.evaluation.collect import check_alike, check_counted
from sjc_debiased.evaluation.intervals import Estimate, of_mean_two_ways, percent
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import RunError, atomic, run_folders, write_json
from sjc_debiased.pages import render
from sjc_debiased.refusals import refusals
from sjc_debiased.untrusted import read_json

QUESTIONS = {
    "form": "Which one has a more realistic 3D form?",
    "prompt": "Which one is more consistent with the prompt?",
    "quality": "Which one has better overall quality?",
}
"""The questions of App. A.3, by the name they have in the answers."""

COMPARED = ("dsds", "sjc")
"""The presets that are compared: ours, and the baseline."""

_PLACES = ("above", "below")


class StudyError(ValueError):
    """A study cannot be made or counted; the message says the rule, what was found, and the way out."""


@dataclass(frozen=True)
class Pair:
    """Two runs of the same prompt and seed, to be compared."""

    prompt: str
    ours: Path
    baseline: Path


@dataclass(frozen=True)
class Vote:
    """One answer: who gave it, to which pair, whether for ours, and whether for the one above."""

    person: str
    pair: int
    ours: bool
    above: bool


@dataclass(frozen=True)
class Tally:
    """Hold the answers by question, and which preset was preferred to which."""

    votes: dict[str, list[Vote]]
    people: int
    presets: tuple[str, str] = COMPARED

    @property
    def pairs(self) -> int:
        """Return the number of pairs with an answer."""
        return len({v.pair for votes in self.votes.values() for v in votes})

    def share(self, question: str) -> Estimate | None:
        """Return the share that preferred ours, its interval by people and pairs; None without answers."""
        return _share(self.votes[question], [v.ours for v in self.votes[question]])

    def above(self) -> Estimate | None:
        """Return the share of all answers that chose the one above, with its interval by people and pairs."""
        votes = [v for of_question in self.votes.values() for v in of_question]
        return _share(votes, [v.above for v in votes])


def _share(votes: list[Vote], values: list[bool]) -> Estimate | None:
    return of_mean_two_ways(values, [v.person for v in votes], [v.pair for v in votes], 0, 1)


def find_pairs(run_root: Path, ours: str = COMPARED[0], baseline: str = COMPARED[1]) -> list[Pair]:
    """Return the pairs of finished runs of two presets that share prompt and seed.

    Raises:
        ValueError: one was made to be chosen among several, or two are not of one experiment.
        RunError: the options of one cannot be read, or it was changed by hand.
    """
    found: dict[tuple, Path] = {}
    seen: dict[tuple[str, str], tuple[Path, object]] = {}
    for folder in run_folders(run_root):
        run = RunReader(folder)
        if run.turntable.exists() and (r := run.options)["preset"] in (ours, baseline):
            check_counted(run)
            check_alike(folder, r, {}, seen)
            found[r["preset"], r["prompt"], r["seed"]] = folder
    return [
        Pair(prompt, folder, found[baseline, prompt, seed])
        for (preset, prompt, seed), folder in found.items()
        if preset == ours and (baseline, prompt, seed) in found
    ]


def make_study(pairs: list[Pair], seed: int, presets: tuple[str, str] = COMPARED) -> tuple[str, dict]:
    """Return the page and its key.

    The page draws for each person which of two is above. Which comes first in the page is drawn from the
    seed, so that the page does not tell them apart.

    Args:
        presets: that of the pairs' `ours`, and their baseline's.

    Raises:
        StudyError: there is no pair.
    """
    if not pairs:
        raise StudyError(
            "a study compares finished runs of two presets with the same prompt and seed. There are none in "
            "that folder. Make them with scripts/run_prompts.sh --presets sjc,dsds."
        )
    rng = np.random.default_rng(seed)
    shown, place_of_ours = [], []
    for i in rng.permutation(len(pairs)):
        pair, place = pairs[i], int(rng.integers(2))
        videos = [_video(pair.ours), _video(pair.baseline)]
        shown.append({"prompt": pair.prompt, "videos": videos[::-1] if place else videos})
        place_of_ours.append(place)
    digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    content = {"study": digest, "pairs": shown, "questions": QUESTIONS}
    key = {"study": digest, "seed": seed, "presets": presets, "ours": place_of_ours}
    return render("study.html", {"content": content}), key


def count(key: dict, answers: list[dict]) -> Tally:
    """Return what was answered, told by the key.

    Args:
        key: as `make_study` returned it. answers: one exported file of each person.

    Raises:
        StudyError: an answer is of another study, of a pair that it has not, or there twice.
    """
    votes: dict[str, list[Vote]] = {question: [] for question in QUESTIONS}
    people = set()
    for answer in answers:
        if answer["study"] != key["study"]:
            raise StudyError(
                f"answers must be of the study {key['study']}. One is of {answer['study']}. Leave it out."
            )
        if answer["person"] in people:
            raise StudyError(
                f"a person's answers count once. Two files are of {answer['person']}. Keep the later one."
            )
        people.add(answer["person"])
        for choice in answer["choices"]:
            if choice["pair"] >= len(key["ours"]):
                raise StudyError(
                    f"answers must be of the study's {len(key['ours'])} pairs. One is of pair "
                    f"{choice['pair']}. Leave that file out."
                )
            above = choice["choice"] == "above"
            ours = above == (choice["above"] == key["ours"][choice["pair"]])
            votes[choice["question"]].append(Vote(answer["person"], choice["pair"], ours, above))
    return Tally(votes, len(people), tuple(key.get("presets", COMPARED)))


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
            if not valid or c["choice"] not in _PLACES or c["above"] not in (0, 1) or key in seen:
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
    return base64.b64encode(RunReader(folder).turntable.read_bytes()).decode()


def make(
    run_root: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    ours: str = COMPARED[0],
    baseline: str = COMPARED[1],
    seed: int = 0,
) -> None:
    """Write `study.html`, to be given away, and `key.json`, to be kept.

    Args:
        run_root: parent of the run folders.
        out: folder that gets the two files; one that has a key already is refused.
        ours: preset that is compared.
        baseline: preset it is compared with.
        seed: decides the order of the pairs, and of the two in each, within the page.
    """
    if (out / "key.json").exists():
        raise StudyError(
            f"a study's key is never written over, for answers are told by it alone. {out} has one. Choose "
            "another folder."
        )
    page, key = make_study(find_pairs(run_root, ours, baseline), seed, (ours, baseline))
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "study.html") as partial:
        partial.write_text(page, encoding="utf-8")
    write_json(out / "key.json", key)
    print(f"{len(key['ours'])} pairs: {out / 'study.html'} (to give away), {out / 'key.json'} (to keep)")


def tally(key: tyro.conf.Positional[Path], answers: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Print the share of answers that preferred ours.

    Args:
        key: `key.json` of the study. answers: the files that the page saved.
    """
    counted = count(json.loads(key.read_text(encoding="utf-8")), [read_answers(a) for a in answers])
    print(f"{counted.people} people, {counted.pairs} pairs")
    for name, question in QUESTIONS.items():
        if share := counted.share(name):
            print(f"{question} {counted.presets[0]} {percent(share)} of {share.n} answers")
    if above := counted.above():
        print(f"Whatever was asked, the one above: {percent(above)}")


if __name__ == "__main__":
    import tyro

    with refusals(ValueError, KeyError, IndexError, RunError):
        tyro.extras.subcommand_cli_from_dict(
            {"make": make, "count": tally},
            prog="python -m sjc_debiased.evaluation.study",
            use_underscores=True,
        )
