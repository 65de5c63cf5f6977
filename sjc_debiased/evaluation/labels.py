"""Faces counted by eye: blinded sheets of finished objects, and how often the judge agrees with the labels.

    python -m sjc_debiased.evaluation.labels sheet runs/menagerie labels/     # sheet_00.png ..., key.json
    python -m sjc_debiased.evaluation.labels compare labels/                  # after writing labels.json

A sheet has one object in each row, in an order drawn from the seed, from eight azimuths (0, 45, ... degrees,
the front first). `labels.json` is a list with one text for each row: 1 where a face is seen, 0 where none is,
? where one cannot tell: `["11000001", "0000?000", ...]`. Which row is which run stands in `key.json` alone.
The same sheets give the success rate by eye of a model that has no judge.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prompts.suites import has_face
from sjc_debiased.evaluation.collect import Estimate, collect
from sjc_debiased.evaluation.intervals import bootstrap, wilson
from sjc_debiased.evaluation.success import count_faces
from sjc_debiased.foreign import read_json
from sjc_debiased.runs import write_json

N_VIEWS = 8
_ROWS = 10


class LabelError(ValueError):
    """Labels cannot be used; the message says the rule, what was found, and the way out."""


@dataclass(frozen=True)
class Labelled:
    """One object with what was seen of it.

    Attributes:
        run: the identity of its options; preset: what it was made with.
        label: by eye and by view, True where a face is seen, None where one cannot tell.
        judged: by the judge and by view; None where the run was not judged.
        judged_success: the judge's verdict from all azimuths, None where the run was not judged.
    """

    run: str
    preset: str
    label: list[bool | None]
    judged: list[bool] | None
    judged_success: bool | None

    @property
    def success(self) -> bool | None:
        """Return whether there is one face, in front, by eye; None where a view could not be told."""
        if None in self.label:
            return None
        return count_faces(np.array(self.label, float)).success


def sheet(
    run_root: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    n: int = 30,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Draw measured runs of prompts with a face at random and write their sheets and the key.

    Args:
        run_root: parent of measured runs.
        out: folder that gets the sheets; one that has a key already is refused.
        n: number of objects.
        seed: decides which runs, and their order.
        device: cpu or cuda.
    """
    from sjc_debiased.evaluation.orbit import face_pictures, load_scene
    from sjc_debiased.pictures import write_png
    from voxnerf.snapshot import to_u8

    if (out / "key.json").exists():
        raise LabelError(f"a folder holds one set of sheets. {out} has one. Choose another folder.")
    runs = [r for r in collect(run_root) if has_face(r.prompt)]
    if not runs:
        raise LabelError(f"labels need measured runs. {run_root} has none. Measure them first.")
    order = np.random.default_rng(seed).permutation(len(runs))[:n]
    out.mkdir(parents=True, exist_ok=True)
    rows, key = [], []
    for i in order:
        run = runs[i]
        _, grid, denoiser = load_scene(run.folder, device)
        images = face_pictures(grid, denoiser, N_VIEWS)
        rows.append(np.concatenate(to_u8(images), axis=1))
        face = run.metrics.get("face")
        judged = [p > 0.5 for p in face["seen"][:: len(face["seen"]) // N_VIEWS]] if face else None
        row = {"run": run.identity, "preset": run.preset, "judged": judged}
        key.append(row | {"judged_success": face["success"] if face else None})
    for first in range(0, len(rows), _ROWS):
        write_png(out / f"sheet_{first // _ROWS:02d}.png", np.concatenate(rows[first : first + _ROWS]))
    write_json(out / "key.json", {"seed": seed, "views": N_VIEWS, "rows": key})
    print(f"{len(rows)} objects from {N_VIEWS} sides: {out}. Write labels.json before you open key.json.")


def read_labels(folder: Path) -> list[Labelled]:
    """Return the labelled objects of a folder.

    Raises:
        LabelError: `labels.json` or `key.json` is not what it must be.
    """
    try:
        key = read_json(folder / "key.json")["rows"]
        labels = read_json(folder / "labels.json")
        if len(labels) != len(key):
            raise ValueError(f"{len(key)} rows have {len(labels)} labels")
        for text in labels:
            if len(text) != N_VIEWS or set(text) - set("01?"):
                raise ValueError(f"a label is {str(text)[:40]!r}")
        meaning = {"0": False, "1": True, "?": None}
        return [Labelled(**row, label=[meaning[c] for c in text]) for row, text in zip(key, labels)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LabelError(
            f"labels.json must be a list of one text of {N_VIEWS} characters, each 0, 1 or ?, for every row "
            f"of the sheets. In {folder} it is not ({error}). Correct it."
        ) from error


def agreement(objects: list[Labelled]) -> np.ndarray:
    """Return how often eye and judge agree on a view: counts [objects, 2, 2], by eye and by judge."""
    counts = np.zeros((len(objects), 2, 2), int)
    for i, o in enumerate(objects):
        for label, judged in zip(o.label, o.judged or []):
            if label is not None:
                counts[i, int(label), int(judged)] += 1
    return counts


def success_by_eye(objects: list[Labelled], preset: str) -> Estimate | None:
    """Return the share of a preset's labelled objects with one face, in front; Wilson interval."""
    answers = [o.success for o in objects if o.preset == preset and o.success is not None]
    if not answers:
        return None
    return Estimate(sum(answers) / len(answers), *wilson(sum(answers), len(answers)), len(answers))


def describe(objects: list[Labelled]) -> str:
    """Return the agreement in two sentences, or "" where no object was judged."""
    by_object = agreement(objects)
    table, n = by_object.sum(0), int(by_object.sum())
    if n == 0:
        return ""
    hits, misses = by_object.trace(axis1=1, axis2=2), by_object[:, 0, 1] + by_object[:, 1, 0]
    right = np.concatenate([np.repeat([1.0, 0.0], pair) for pair in zip(hits, misses)])
    low, high = bootstrap(right, np.repeat(np.arange(len(objects)), hits + misses).tolist())
    both = [(o.success, o.judged_success) for o in objects if None not in (o.success, o.judged_success)]
    same = sum(eye == judge for eye, judge in both)
    low_both, high_both = wilson(same, len(both))
    return (
        f"Of {n} views labelled by eye the judge agrees on {right.mean():.1%} [{low:.1%}, {high:.1%}]: it "
        f"finds {table[1, 1]} of {table[1].sum()} faces, and says {table[0, 1]} in {table[0].sum()} views "
        f"without. Of the verdicts on {len(both)} objects it agrees on {same / max(len(both), 1):.1%} "
        f"[{low_both:.1%}, {high_both:.1%}]; by eye {sum(eye for eye, _ in both)} of them have one face, in "
        f"front, by the judge {sum(judge for _, judge in both)}."
    )


def compare(folder: tyro.conf.Positional[Path]) -> None:
    """Print how often the judge agrees with the labels, and the success rate by eye.

    Args:
        folder: the sheets' folder, with `labels.json` in it.
    """
    objects = read_labels(folder)
    print(describe(objects))
    for preset in sorted({o.preset for o in objects}):
        rate = success_by_eye(objects, preset)
        if rate:
            share = f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}] of {rate.n}"
            print(f"{preset}: one face, in front, by eye: {share}")


if __name__ == "__main__":
    import tyro

    from sjc_debiased.runs import RunError

    try:
        tyro.extras.subcommand_cli_from_dict(
            {"sheet": sheet, "compare": compare},
            prog="python -m sjc_debiased.evaluation.labels",
            use_underscores=True,
        )
    except (OSError, ValueError, RunError) as problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
