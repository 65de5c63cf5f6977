"""The paper's other frameworks, without and with debiasing: one table, and Figs. 9, 10, 11, 15."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from sjc_debiased.clipped import clipped_share, does_nothing, say_clipped
from sjc_debiased.evaluation.collect import Measured, collect, difference, mean_of, rate_of
from sjc_debiased.evaluation.examples import examples
from sjc_debiased.evaluation.figures import Figure, course, strip, write_captions
from sjc_debiased.evaluation.intervals import NONE, number, percent
from sjc_debiased.evaluation.tables import Table, faces, of_those, several
from sjc_debiased.making.pictures import write_jpeg
from sjc_debiased.options.frameworks import SDS_TIMESTEPS
from sjc_debiased.options.presets import PresetName

_LATENT = "a latent model (--model menagerie, sd15)"
_PIXEL = "a pixel model (--model menagerie-pixels, DeepFloyd/IF-I-XL-v1.0)"
_RANGE = ("--timesteps", *SDS_TIMESTEPS)


@dataclass(frozen=True)
class Compared:
    """One framework: what makes its baseline and, on the same prompts and seeds, its debiased runs.

    Attributes:
        name: of its runs' folder and of its figure.
        title: what it is, and where the paper shows it.
        presets: its baseline, score debiasing alone (App. A.4), and with prompt debiasing.
        options: of every run beside the preset.
        pixels: the family of models that it needs: False latents, True pixels, None either.
    """

    name: str
    title: str
    presets: tuple[PresetName, PresetName, PresetName]
    options: tuple[str, ...] = ()
    pixels: bool | None = None


_ON_SJC: tuple[PresetName, PresetName, PresetName] = ("sjc", "score-only", "dsds")
COMPARED = (
    Compared(
        *("sds", "SDS guidance on SJC's field", _ON_SJC),
        options=("--guidance_form", "sds", *_RANGE),
    ),
    Compared(
        *("vsd", "VSD guidance on SJC's field (Fig. 9 is ProlificDreamer's)", _ON_SJC),
        options=("--guidance_form", "vsd", *_RANGE),
        pixels=False,
    ),
    Compared(
        "dreamfusion-sd",
        "DreamFusion on latents",
        presets=("dreamfusion-sd", "dreamfusion-sd-score-only", "dreamfusion-sd-dsds"),
        pixels=False,
    ),
    Compared(
        "dreamfusion-if",
        "DreamFusion on pixels (Fig. 10)",
        presets=("dreamfusion-if", "dreamfusion-if-score-only", "dreamfusion-if-dsds"),
        pixels=True,
    ),
    Compared(
        "magic3d",
        "Magic3D, coarse stage (Fig. 11)",
        presets=("magic3d", "magic3d-score-only", "magic3d-dsds"),
        pixels=False,
    ),
)
_COURSE_OF = "magic3d"  # Fig. 15


def split(pixels: bool) -> tuple[list[Compared], list[str]]:
    """Return the frameworks that a family of models can run, and of the others why not, in sentences.

    Args:
        pixels: whether the model's pictures are RGB and not latents.
    """
    can = [f for f in COMPARED if f.pixels in (None, pixels)]
    needs = [(f, _PIXEL if f.pixels else _LATENT) for f in COMPARED if f not in can]
    return can, [f"NOT RUN: {f.name} ({f.title}) needs {what}" for f, what in needs]


def collect_all(root: Path) -> dict[str, list[Measured]]:
    """Return the measured runs of every framework that has some, from `root/NAME`.

    Raises:
        ValueError, RunError: as `collect`.
    """
    found = {f.name: collect(root / f.name) for f in COMPARED if (root / f.name).is_dir()}
    return {name: runs for name, runs in found.items() if runs}


def table(found: dict[str, list[Measured]], not_run: list[str]) -> Table:
    """Return success rate, A-LPIPS and clipped share, each framework's baseline beside its debiased runs.

    Args:
        found: of `collect_all`. not_run: of `split`, for the note.
    """
    rows, idle = [], []
    for f in (f for f in COMPARED if f.name in found):
        runs = found[f.name]
        rows += [(f.title, preset, *_figures(runs, preset)) for preset in f.presets]
        baseline, alone, _ = f.presets
        for preset in f.presets[1:]:
            rows.append((f.title, f"{preset} − {baseline}, paired", *_changes(runs, preset, baseline)))
        share = _share(runs, alone)
        idle += [f.name] if share is not None and does_nothing(share) else []
    head = ("framework", "preset", "objects", "prompts", "one face, in front", "one face, anywhere")
    head += ("A-LPIPS VGG", "coverage", "clipped share")
    note = (
        "Score debiasing alone, as in App. A.4, and with prompt debiasing; the same prompts and seeds. Means "
        "and rates with 95 % intervals over prompts. The faces are those of the menagerie's judge, of "
        f"prompts that have one. {several(rows, 1)}Lower A-LPIPS is more consistent, or emptier: "
        "coverage tells. Clipped share: mean over runs and steps. The paper gives no numbers for these."
    )
    if idle:
        names = ", ".join(idle)
        note = (
            f"**Finding: the bound does nothing with {names}: runs with it alone are the baseline's.** {note}"
        )
    note = " ".join([note, *(f"{said}." for said in not_run)])
    return Table("frameworks", "Other frameworks, without and with debiasing", note, head, rows)


def write_figures(found: dict[str, list[Measured]], folder: Path, made_by: str) -> list[Figure]:
    """Write each framework's views, the baseline above, and how an object of Magic3D comes to be."""
    made = []
    for f in (f for f in COMPARED if f.name in found):
        drawn = strip(found[f.name], f.presets)
        if drawn:
            write_jpeg(folder / f"{f.name}.jpg", drawn[0], made_by)
            made.append(Figure(f"{f.name}.jpg", f.title, f"Views over 360°. Prompts: {drawn[1]}."))
        chosen, rule = examples(found[f.name], f.presets, 1)
        if f.name == _COURSE_OF and chosen:
            one = {r.preset: r for r in found[f.name] if (r.prompt, r.seed) == chosen[0]}
            courses = np.concatenate([course(one[preset]) for preset in f.presets])
            write_jpeg(folder / "fig_15.jpg", courses, made_by)
            caption = f"{chosen[0][0]}, seed {chosen[0][1]} ({rule}): what training saw."
            made.append(Figure("fig_15.jpg", "How an object of Magic3D comes into being (Fig. 15)", caption))
    write_captions(made, folder, made_by)
    return made


def _share(runs: list[Measured], preset: str) -> float | None:
    """Return the mean over a preset's runs of what was clipped, or None where they do not clip."""
    shares = [clipped_share(r.files.stats()) for r in runs if r.preset == preset]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _figures(runs: list[Measured], preset: str) -> tuple[str, ...]:
    prompts = [r.prompt for r in runs if r.preset == preset]
    n, vgg = len(prompts), mean_of(runs, preset, lambda m: m.get("a_lpips_vgg"))
    share = _share(runs, preset)
    with_face = [r for r in runs if r.face]
    rates = [rate_of(with_face, preset, faces(attrgetter(name))) for name in ("success", "one_face")]
    return (
        *(str(n), str(len({*prompts}))),
        *(of_those(percent(rate), rate, n) for rate in rates),
        of_those(number(vgg), vgg, n),
        number(mean_of(runs, preset, lambda m: m["coverage"]), 3),
        NONE if share is None else say_clipped(share),
    )


def _changes(runs: list[Measured], preset: str, baseline: str) -> tuple[str, ...]:
    pair, with_face = (preset, baseline), [r for r in runs if r.face]
    covered = difference(runs, *pair, lambda m: m["coverage"])
    gains = [difference(with_face, *pair, faces(attrgetter(n)), most=1) for n in ("success", "one_face")]
    vgg = difference(runs, *pair, lambda m: m.get("a_lpips_vgg"))
    n, prompts = (covered.n, covered.clusters) if covered else (0, 0)
    return (
        *(str(n), str(prompts)),
        *(of_those(percent(gain, sign=True), gain, n) for gain in gains),
        of_those(number(vgg, sign=True), vgg, n),
        number(covered, 3, sign=True),
        NONE,
    )
