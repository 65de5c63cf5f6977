"""The paper's figures from finished runs: strips of views, curves over azimuth, the course of a run."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sjc_debiased.evaluation.collect import Measured
from sjc_debiased.evaluation.examples import examples
from sjc_debiased.folder.runs import steps_of
from sjc_debiased.making.pictures import halved, labelled, read_picture, turn_of, write_jpeg, write_png

STRIPS = {
    "fig_6": ("SJC and D-SDS from the same prompts and seeds (Figs. 6, 12)", ("sjc", "dsds")),
    "fig_7": (
        "What each of the two debiasings does alone (Figs. 7, 13)",
        ("sjc", "score-only", "prompt-only", "dsds"),
    ),
    "fig_8": (
        "The kinds of clipping, from none to dynamic (Figs. 8, 14)",
        ("prompt-only", "static-high", "static-low", "dsds"),
    ),
}
"""The strips: what each is there to show, and its presets."""

MAGNITUDE_ROWS = ("render", "magnitude of its score", "the same after clipping")
"""The rows of `save_score_magnitude`."""

CURVES = ("sjc", "dsds-preserved", "dsds")

STRIP_PROMPTS = 4
"""How many prompts are shown, in strips and turntables."""

_GAP = 6
_COURSE_STEPS = 8


@dataclass(frozen=True)
class Figure:
    """One figure: its file, what it is there to show, and what must be known to read it."""

    name: str
    title: str
    caption: str


def strip(runs: list[Measured], presets: tuple[str, ...]) -> tuple[np.ndarray, str] | None:
    """Return labelled rows of views, prompt by prompt and the presets within; and the rule of their choice.

    None where no prompt and seed has every preset.
    """
    of = {(r.prompt, r.seed, r.preset): r for r in runs}
    shown, rule = examples(runs, presets, STRIP_PROMPTS)
    rows = []
    for prompt, seed in shown:
        for preset in presets:
            turn = turn_of(read_picture(of[prompt, seed, preset].files.contact_sheet))
            rows.append(labelled(halved(turn), f"{preset}, seed {seed}: {prompt}"))
        rows.append(np.full((_GAP, rows[-1].shape[1], 3), 255, np.uint8))
    return (np.concatenate(rows[:-1]), rule) if rule else None


def magnitudes(run: Measured) -> np.ndarray:
    """Return a run's picture of its score (Fig. 3), its rows labelled."""
    rows = np.split(read_picture(run.files.score_magnitude), len(MAGNITUDE_ROWS))
    return np.concatenate([labelled(row, text) for row, text in zip(rows, MAGNITUDE_ROWS)])


def course(run: Measured) -> np.ndarray:
    """Return eight moments of a run, from start to end, as training saw them (Fig. 15), labelled."""
    previews = run.files.previews
    picks = np.linspace(0, len(previews) - 1, _COURSE_STEPS).round().astype(int)
    images = [read_picture(previews[i]) for i in picks]
    moments = np.concatenate([image[:, : image.shape[0]] for image in images], axis=1)
    steps = f"steps {steps_of(previews[0])} to {steps_of(previews[-1])}"
    return labelled(moments, f"{run.preset}, seed {run.seed}, {steps}: {run.prompt}")


def similarity_curves(runs: list[Measured], presets: tuple[str, ...], path: Path, made_by: str) -> None:
    """Draw Fig. 5: the mean CLIP similarity to each view prompt over azimuth, one panel for each preset."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [p for p in presets if any(r.preset == p and "clip" in r.metrics for r in runs)]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3), sharey=True, squeeze=False)
    for axis, preset in zip(axes[0], shown):
        found = [r.metrics["clip"]["similarity"] for r in runs if r.preset == preset and "clip" in r.metrics]
        for view in found[0]:
            mean = np.mean([s[view] for s in found], axis=0)
            azimuth = 360.0 * np.arange(len(mean)) / len(mean)
            axis.plot(azimuth, mean, label=f"{view} view")
        axis.set(
            title=f"{preset} ({len(found)} objects)", xlabel="azimuth, degrees", xticks=range(0, 361, 90)
        )
    axes[0][0].set_ylabel("CLIP similarity")
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None, "Description": made_by})
    plt.close(figure)


def write_figures(runs: list[Measured], folder: Path, made_by: str) -> list[Figure]:
    """Write what the runs allow, each figure for one message; return them.

    What made them stands in the metadata of each, and with the captions in `README.md`.
    """
    made = []
    for name, (title, presets) in STRIPS.items():
        drawn = strip(runs, presets)
        if drawn:
            write_jpeg(folder / f"{name}.jpg", drawn[0], made_by)
            caption = f"Views over 360°, the front first. Prompts: {drawn[1]}."
            made.append(Figure(f"{name}.jpg", title, caption))
    if any("clip" in r.metrics and r.preset in CURVES for r in runs):
        similarity_curves(runs, CURVES, folder / "fig_5.png", made_by)
        caption = "Mean CLIP similarity to the prompt of each view, by azimuth."
        made.append(Figure("fig_5.png", "Which side looks like which view (Fig. 5)", caption))
    chosen, rule = examples(runs, ("dsds",), 1)
    for one in (r for r in runs if (r.prompt, r.seed) in chosen and r.preset == "dsds"):
        of = f"{one.prompt}, dsds, seed {one.seed} ({rule})"
        write_png(folder / "fig_3.png", magnitudes(one), made_by)
        title = "What clipping takes from the score over a run (Fig. 3)"
        made.append(Figure("fig_3.png", title, f"{of}, from the first step on the left to the last."))
        write_jpeg(folder / "fig_15.jpg", course(one), made_by)
        title = "How an object comes into being (Fig. 15)"
        made.append(Figure("fig_15.jpg", title, f"{of}: what training saw."))
    write_captions(made, folder, made_by)
    return made


def write_captions(made: list[Figure], folder: Path, made_by: str) -> None:
    """Write `README.md`, which shows the figures of a folder with their captions and what made them."""
    shown = [f"## {f.title}\n\n![{f.name}]({f.name})\n\n{html.escape(f.caption)}\n" for f in made]
    (folder / "README.md").write_text("\n".join([*shown, f"{made_by}\n"]), encoding="utf-8")
