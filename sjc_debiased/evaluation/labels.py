"""Faces counted by eye: blinded sheets of finished objects, and how often the judge agrees with the labels.

    python -m sjc_debiased.evaluation.labels sheet runs/menagerie labels/     # sheet_00.jpg ..., key.json
    python -m sjc_debiased.evaluation.labels compare labels/                  # after writing labels.json

A sheet has one object in each row, in an order drawn from the seed, from eight azimuths (0, 45, ... degrees,
the front first). `labels.json` is a list with one text for each row: 1 where a face is seen, 0 where none is,
? where one cannot tell: `["11000001", "0000?000", ...]`. An object with a "?" counts where no answer in its
place would change the verdict. Which row is which run stands in `key.json` alone.
The same sheets give the success rate by eye of a model that has no judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import attrgetter
from pathlib import Path

import numpy as np

from sjc_debiased.evaluation.agreement import Answer, sentence
from sjc_debiased.evaluation.collect import Measured, collect
from sjc_debiased.evaluation.intervals import Estimate, of_rate, percent
from sjc_debiased.evaluation.success import FaceCount, count_faces
from sjc_debiased.folder.checkpoints import state_digest
from sjc_debiased.folder.runs import write_json
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.refusals import refusals
from sjc_debiased.untrusted import read_json

N_VIEWS = 8
_ROWS = 10


class LabelError(ValueError):
    """Labels cannot be used; the message says the rule, what was found, and the way out."""


@dataclass(frozen=True)
class Labelled:
    """One object with what was seen of it.

    Attributes:
        run: the identity of its options; preset: what it was made with.
        state: of the object itself (`state_digest`); None in a key from before it was written down.
        label: by eye and by view, True where a face is seen, None where one cannot tell.
        judged: by the judge and by view; None where the run was not judged.
        judged_success: the judge's verdict from all azimuths, None where the run was not judged.
        prompt: what it was made from; None in a key from before prompts were written down.
    """

    run: str
    preset: str
    label: list[bool | None]
    judged: list[bool] | None
    judged_success: bool | None
    prompt: str | None = None
    state: str | None = None

    def is_of(self, run: Measured) -> bool:
        """Return whether it is the very object of a run with these options, as far as the key can tell."""
        state = state_digest(run.folder)
        if None not in (self.state, state):
            return self.state == state
        return self.judged is None or _judged(run) in (None, self.judged)

    @property
    def cluster(self) -> str:
        """Return what resembles it: the objects of its prompt, or itself where that is not known."""
        return self.run if self.prompt is None else self.prompt

    @property
    def success(self) -> bool | None:
        """Return whether there is one face, in front, by eye; None where that could not be told."""
        return self.verdict(attrgetter("success"))

    def verdict(self, holds: Callable[[FaceCount], bool]) -> bool | None:
        """Return whether something holds of the faces by eye.

        None where it depends on views that could not be told: some completions of them say yes, some no.
        """
        views = product(*((False, True) if seen is None else (seen,) for seen in self.label))
        verdicts = {holds(count_faces(np.array(seen, float))) for seen in views}
        return verdicts.pop() if len(verdicts) == 1 else None


def sheet(
    run_root: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    n: int = 30,
    seed: int = 0,
    without: tuple[Path, ...] = (),
    device: str = "cpu",
) -> None:
    """Draw measured runs of prompts with a face at random and write their sheets and the key.

    Args:
        run_root: parent of measured runs.
        out: folder that gets the sheets; one that has a key already is refused.
        n: number of objects.
        seed: decides which runs, and their order.
        without: folders of sheets whose objects are not drawn again.
        device: cpu, cuda or auto.
    """
    from sjc_debiased.evaluation.orbit import face_pictures
    from sjc_debiased.making.made import load_scene
    from sjc_debiased.making.pictures import labelled, write_jpeg
    from voxnerf.snapshot import to_u8

    if (out / "key.json").exists():
        raise LabelError(f"a folder holds one set of sheets. {out} has one. Choose another folder.")
    device = choose_machine(device).device
    known = {row["run"] for folder in without for row in _rows(folder)}
    runs = [r for r in collect(run_root) if r.face and r.identity not in known]
    if not runs:
        raise LabelError(f"labels need measured runs. {run_root} has none that is new. Measure them first.")
    order = np.random.default_rng(seed).permutation(len(runs))[:n]
    out.mkdir(parents=True, exist_ok=True)
    rows, key = [], []
    for i in order:
        run = runs[i]
        _, grid, denoiser = load_scene(run.folder, device)
        images = face_pictures(grid, denoiser, N_VIEWS)
        rows.append(labelled(np.concatenate(to_u8(images), axis=1), f"row {len(rows) + 1}"))
        row = {"run": run.identity, "state": state_digest(run.folder), "preset": run.preset}
        face = run.metrics.get("face")
        judged = {"judged": _judged(run), "judged_success": face["success"] if face else None}
        key.append(row | {"prompt": run.prompt} | judged)
    for first in range(0, len(rows), _ROWS):
        write_jpeg(out / f"sheet_{first // _ROWS:02d}.jpg", np.concatenate(rows[first : first + _ROWS]))
    write_json(out / "key.json", {"seed": seed, "views": N_VIEWS, "rows": key})
    print(f"{len(rows)} objects from {N_VIEWS} sides: {out}. Write labels.json before you open key.json.")


def read_labels(folder: Path) -> list[Labelled]:
    """Return the labelled objects of a folder.

    Raises:
        LabelError: `labels.json` or `key.json` is not what it must be.
    """
    try:
        key = _rows(folder)
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


def _rows(folder: Path) -> list[dict]:
    try:
        rows = read_json(folder / "key.json")["rows"]
        return [row for row in rows if row["run"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelError(
            f"a folder of sheets has the key.json that was written with them. That of {folder} cannot be "
            f"read ({error}). Name the folder of the sheets."
        ) from error


def of_runs(folders: Sequence[Path], runs: list[Measured]) -> list[Labelled]:
    """Return the labelled objects of folders with their prompts, which older keys lack.

    Raises:
        LabelError: an object is none of these runs', was made anew since it was labelled, or is there twice.
    """
    run_of = {run.identity: run for run in runs}
    found: dict[str, Labelled] = {}
    for folder in folders:
        objects = read_labels(folder)
        if strangers := {o.run for o in objects} - run_of.keys():
            raise LabelError(
                f"labels must be of the runs in the results. {folder} has {len(strangers)} objects that are "
                "not, or were made with other options. Name the labels of these runs."
            )
        if n := sum(not o.is_of(run_of[o.run]) for o in objects):
            raise LabelError(
                f"labels count for the very objects that were looked at. Of {folder} {n} of {len(objects)} "
                "were made anew since, with the same options, or the judge is another. Leave --labels out or "
                "label these: `python -m sjc_debiased.evaluation.labels sheet RUNS LABELS`."
            )
        if twice := found.keys() & {o.run for o in objects}:
            raise LabelError(
                f"an object counts once. {folder} has {len(twice)} that were labelled in a folder before it. "
                "Leave one of them out."
            )
        found |= {o.run: replace(o, prompt=run_of[o.run].prompt) for o in objects}
    return [*found.values()]


def rate_by_eye(objects: list[Labelled], preset: str, holds: Callable[[FaceCount], bool]) -> Estimate | None:
    """Return the share of a preset's objects of which something holds by eye, of those that could be told."""
    chosen = [(o.verdict(holds), o.cluster) for o in objects if o.preset == preset]
    told = [(answer, cluster) for answer, cluster in chosen if answer is not None]
    return of_rate([answer for answer, _ in told], [cluster for _, cluster in told])


def describe(objects: list[Labelled]) -> str:
    """Return how far the judge agrees, by view and by verdict, or "" where no object was judged."""
    views = [
        Answer(label, judged, o.cluster)
        for o in objects
        for label, judged in zip(o.label, o.judged or [])
        if label is not None
    ]
    verdicts = [
        Answer(o.success, o.judged_success, o.cluster)  # pyright: ignore[reportArgumentType]  # none is None
        for o in objects
        if None not in (o.success, o.judged_success)
    ]
    said = []
    if views:
        said.append(f"On {len(views)} views labelled by eye the judge agrees on {sentence(views)}.")
    if verdicts:
        said.append(
            f"On the verdict, one face, in front, of {len(verdicts)} of {len(objects)} objects (the others "
            f"could not be told) it agrees on {sentence(verdicts)}."
        )
    return " ".join(said)


def _judged(run: Measured) -> list[bool] | None:
    """Return what the judge saw from the sides of a sheet, or None where a run was not judged."""
    face = run.metrics.get("face")
    return [p > 0.5 for p in face["seen"][:: len(face["seen"]) // N_VIEWS]] if face else None


def compare(folder: tyro.conf.Positional[Path]) -> None:
    """Print how often the judge agrees with the labels, and the success rate by eye.

    Args:
        folder: the sheets' folder, with `labels.json` in it.
    """
    objects = read_labels(folder)
    print(describe(objects))
    for preset in sorted({o.preset for o in objects}):
        for what, verdict in (("anywhere", "one_face"), ("in front", "success")):
            if rate := rate_by_eye(objects, preset, attrgetter(verdict)):
                print(f"{preset}: one face, {what}, by eye: {percent(rate)} of {rate.n}")


def check(run_root: tyro.conf.Positional[Path], folder: tyro.conf.Positional[Path]) -> None:
    """End with 2 unless the labels of a folder are of the very objects of measured runs.

    Args:
        run_root: parent of the runs. folder: the sheets' folder, with `labels.json` in it.
    """
    of_runs([folder], collect(run_root))


if __name__ == "__main__":
    import tyro

    from sjc_debiased.folder.runs import RunError

    with refusals(ValueError, RunError):
        tyro.extras.subcommand_cli_from_dict(
            {"sheet": sheet, "compare": compare, "check": check},
            prog="python -m sjc_debiased.evaluation.labels",
            use_underscores=True,
        )
