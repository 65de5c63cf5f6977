"""The best of several seeds (`run_sjc.py --best_of N`): which it is, who says so, and its folder.

Choosing is for those who want an object. It says nothing of how often a method succeeds, so the runs say in
`options.json` among how many they were made to be chosen, and `evaluation` counts none of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from sjc_debiased.folder.identity import RunIndex, is_finished
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import LOCK, MESH, RANKING, RANKING_SHEET, slug, write_json
from sjc_debiased.menagerie import EMBEDDED
from sjc_debiased.options.command import OptionError
from sjc_debiased.pages.write import refresh_ranked
from sjc_debiased.untrusted import read_json

if TYPE_CHECKING:
    from sjc_debiased.models.machine import Machine
    from sjc_debiased.options.config import Resolved

_DRAFT = ".best-"
_RULES = {
    "judge": (
        "one face, in front, before one face elsewhere, before the rest; among equals, the higher mean "
        "probability of a face within 30 degrees of the front less that within 45 degrees of the back"
    ),
    "CLIP": (
        "where 'front view' fits best from one arc, in front, before the rest; among equals, the higher mean "
        "margin of the three view prompts. A guess: CLIP counts no faces"
    ),
}
"""Who ranks, and by what."""


@dataclass(frozen=True)
class Ranked:
    """One run with what was found of it.

    Attributes:
        verdict: what was found, in a few words.
        order: what it is ranked by, the highest first.
        network: what tells the weights that looked at it from others.
    """

    folder: Path
    seed: int
    verdict: str
    order: tuple[bool | float, ...]
    network: str


def ranked_by(model: str) -> str:
    """Return who ranks the objects of a model, a name in the rules: the judge, or CLIP."""
    return "judge" if model in EMBEDDED else "CLIP"


def find_ranker(model: str, local_files_only: bool) -> str:
    """Return the CLIP that ranks a model's objects, a local folder, or "" where the judge does.

    Raises:
        OptionError: it is not within reach.
    """
    if ranked_by(model) == "judge":
        return ""
    from sjc_debiased.evaluation.clip_similarity import CLIP, find_clip

    try:
        return str(find_clip(CLIP, local_files_only))
    except OSError as error:
        raise OptionError(
            f"--best_of ranks by the judge on the menagerie, and by CLIP elsewhere. There is no CLIP: "
            f"{error} Or make the runs with --seeds and look at them."
        ) from error


def rank(wanted: Sequence[Resolved], run_root: Path, machine: Machine, local_files_only: bool) -> None:
    """Rank the finished runs of each prompt, say the order, and set the best aside in a folder of its own.

    Args:
        wanted: the runs of `--best_of`, of one model.

    Raises:
        OptionError: CLIP is not within reach.
    """
    clip, index = find_ranker(wanted[0].model, local_files_only), RunIndex(run_root)
    for prompt in dict.fromkeys(run.prompt for run in wanted):
        runs = [run for run in wanted if run.prompt == prompt]
        folders = {run: index.find(run, machine.wanted_precision) for run in runs}
        finished = {run: place for run, place in folders.items() if place and is_finished(place, run)}
        if len(finished) < 2:
            print(f"nothing to rank: of {len(runs)} runs of {prompt!r}, {len(finished)} are finished.")
            continue
        print(f"ranking {len(finished)} of {len(runs)} runs of {prompt!r} ...", flush=True)
        found = [look_at(place, run, clip, machine.device) for run, place in finished.items()]
        _set_aside(run_root, runs, sorted(found, key=lambda one: one.order, reverse=True))
        refresh_ranked([*finished.values()])


def look_at(folder: Path, run: Resolved, clip: str, device: str) -> Ranked:
    """Return what the judge or a CLIP finds of a finished run, measured as `evaluation.measure` does it.

    Args:
        clip: a folder; "" for the judge.

    Raises:
        OptionError: it is no whole CLIP.
        RunError: the run cannot be measured: its last checkpoint is gone, say.
    """
    from sjc_debiased.evaluation.measure import measure
    from sjc_debiased.evaluation.tables import guess

    try:
        found: Any = measure(folder, ("clip" if clip else "success",), clip, device)
    except ValueError as error:
        raise OptionError(str(error)) from error
    if clip:
        success, margins = guess(found), found["clip"]["margin"].values()
        verdict = f"CLIP guesses {'one face, in front' if success else 'no single face in front'}"
        order = bool(success), float(np.mean([*margins]))
        return Ranked(folder, run.seed, verdict, order, found["clip_weights"])
    face = found["face"]
    order = face["success"], face["one_face"], _front_less_back(np.array(face["seen"]))
    return Ranked(folder, run.seed, _verdict(face), order, found["judge"])


def _front_less_back(seen: np.ndarray) -> float:
    """Return the mean probability of a face over the front less that over the back.

    Args:
        seen: [n], evenly spaced azimuths from the front on.
    """
    from sjc_debiased.evaluation.success import BACK_DEG, FRONT_DEG

    azimuth = 360.0 * np.arange(len(seen)) / len(seen)
    turned = np.minimum(azimuth, 360.0 - azimuth)
    return float(seen[turned <= FRONT_DEG].mean() - seen[turned >= 180.0 - BACK_DEG].mean())


def _verdict(face: dict) -> str:
    if face["success"]:
        return "one face, in front"
    if face["one_face"]:
        return "one face, but not in front alone"
    if face["arcs"] == 1:
        return f"a face over {360 * face['share']:.0f} degrees"
    return f"{face['arcs'] or 'no'} face{'s' if face['arcs'] else ''}"


def _set_aside(run_root: Path, runs: Sequence[Resolved], order: Sequence[Ranked]) -> None:
    """Write the folder of a ranking, or say that it is there already; nothing is overwritten."""
    by, first = ranked_by(runs[0].model), runs[0]
    about = _about(by, runs, order)
    print(_table(by, runs, order))
    name = f"best-{first.preset}-{slug(first.prompt)}-seeds{first.seed}-{runs[-1].seed}"
    with FileLock(run_root / LOCK):
        for abandoned in run_root.glob(f"{_DRAFT}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        for number in count(1):
            place = run_root / (name if number == 1 else f"{name}-{number}")
            if not place.exists():
                break
            if _saved(place) == about:
                print(f"ranked already: {place}")
                return
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=run_root))
        draft.chmod(0o755)
        best = RunReader(order[0].folder)
        for file in (best.turntable, best.contact_sheet, *sorted(best.folder.glob(f"{MESH}[._]*"))):
            shutil.copy2(file, draft)
        _write_sheet(draft / RANKING_SHEET, about, order)
        write_json(draft / RANKING, about)
        draft.rename(place)
    print(f"the best, its mesh, and all of them on one sheet: {place}")


def _about(by: str, runs: Sequence[Resolved], order: Sequence[Ranked]) -> dict:
    """Return what `ranking.json` says."""
    ranked = {one.seed for one in order}
    return {
        "prompt": runs[0].prompt,
        "preset": runs[0].preset,
        "model": runs[0].model,
        "best_of": len(runs),
        "ranked_by": by,
        "a_guess": by == "CLIP",
        "weights": order[0].network,
        "rule": _RULES[by],
        "note": "Chosen among several: it says nothing of how often the method succeeds. No table counts it.",
        "not_finished": [run.seed for run in runs if run.seed not in ranked],
        "runs": [
            {
                "rank": i,
                "run": r.folder.name,
                "seed": r.seed,
                "verdict": r.verdict,
                "margin": round(r.order[-1], 4),
            }
            for i, r in enumerate(order, 1)
        ],
    }


def _table(by: str, runs: Sequence[Resolved], order: Sequence[Ranked]) -> str:
    who = "by the judge" if by == "judge" else "by CLIP, which is a guess"
    lines = [f"the order, {who}: {_RULES[by]}."]
    lines += [
        f"  {i}. seed {one.seed}: {one.verdict} ({one.order[-1]:+.3f})  {one.folder.name}"
        for i, one in enumerate(order, 1)
    ]
    if len(order) < len(runs):
        lines.append(f"  not finished, so not ranked: {len(runs) - len(order)} of {len(runs)}")
    return "\n".join(lines)


def _write_sheet(path: Path, about: dict, order: Sequence[Ranked]) -> None:
    """Write one picture of all: a row for each, in their order, the front first, labelled in the picture."""
    from sjc_debiased.making.pictures import labelled, read_picture, turn_of, write_png

    rows = []
    for one, said in zip(order, about["runs"]):
        turn = turn_of(read_picture(RunReader(one.folder).contact_sheet))
        rows.append(labelled(turn, f"{said['rank']}. seed {one.seed}: {one.verdict}"))
    who = "the judge" if about["ranked_by"] == "judge" else "CLIP (a guess)"
    title = f"{about['preset']}, {len(rows)} seeds ranked by {who}: {about['prompt']}"
    write_png(path, labelled(np.concatenate(rows), title), about["note"])


def _saved(place: Path) -> dict | None:
    try:
        return read_json(place / RANKING)
    except (OSError, ValueError):
        return None
