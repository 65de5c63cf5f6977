"""The paper's figures from finished runs: strips of views, curves over azimuth, the course of a run."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from sjc_debiased.evaluation.collect import Measured
from sjc_debiased.pictures import read_picture, write_png

STRIPS = {
    "fig_6": ("sjc", "dsds"),
    "fig_7": ("sjc", "score-only", "prompt-only", "dsds"),
    "fig_8": ("prompt-only", "static-high", "static-low", "dsds"),
}
"""Rows of the strips: 360 degrees of baseline and method (Figs. 6, 12), the ablation of the two debiasings
(Figs. 7, 13), and the kinds of clipping from none to dynamic (Figs. 8, 14)."""

CURVES = ("sjc", "dsds-preserved", "dsds")

_GAP = 6
_STRIP_PROMPTS = 4
_COURSE_STEPS = 8


def strip(runs: list[Measured], presets: tuple[str, ...]) -> tuple[np.ndarray, list[str]] | None:
    """Return rows of views, the prompts from top to bottom and the presets within, and what each row is.

    Only prompts and seeds that every preset has; the first seed of the first four prompts. None without any.
    """
    of = {(r.prompt, r.seed, r.preset): r for r in runs}
    shared = sorted({(p, s) for p, s, _ in of if all((p, s, name) in of for name in presets)})
    prompts = list(dict.fromkeys(p for p, _ in shared))[:_STRIP_PROMPTS]
    rows, labels = [], []
    for prompt in prompts:
        seed = min(s for p, s in shared if p == prompt)
        for preset in presets:
            sheet = read_picture(of[prompt, seed, preset].files.contact_sheet)
            rows.append(_half(sheet[: sheet.shape[0] // 2]))
            labels.append(f"{prompt}, {preset}, seed {seed}")
        rows.append(np.full((_GAP, rows[-1].shape[1], 3), 255, np.uint8))
    return (np.concatenate(rows[:-1]), labels) if rows else None


def course(run: Measured) -> np.ndarray:
    """Return eight moments of a run, from start to end, as training saw them (Fig. 15)."""
    previews = run.files.previews
    picks = np.linspace(0, len(previews) - 1, _COURSE_STEPS).round().astype(int)
    images = [read_picture(previews[i]) for i in picks]
    return np.concatenate([image[:, : image.shape[0]] for image in images], axis=1)


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


def write_figures(runs: list[Measured], folder: Path, made_by: str) -> list[tuple[str, str]]:
    """Write what the runs allow; return (file name, caption) of each figure.

    What made them stands in the metadata of each, and with the captions in `README.md`.
    """
    made = []
    for name, presets in STRIPS.items():
        drawn = strip(runs, presets)
        if drawn:
            write_png(folder / f"{name}.png", drawn[0], made_by)
            made.append((f"{name}.png", f"Views over 360°, the front first. Rows: {'; '.join(drawn[1])}."))
    if any("clip" in r.metrics and r.preset in CURVES for r in runs):
        similarity_curves(runs, CURVES, folder / "fig_5.png", made_by)
        made.append(("fig_5.png", "Mean CLIP similarity to the prompt of each view, by azimuth (Fig. 5)."))
    first = next((r for r in runs if r.preset == "dsds"), None)
    if first:
        magnitude = read_picture(first.files.score_magnitude)
        write_png(folder / "fig_3.png", magnitude, made_by)
        text = f"{first.prompt}, dsds, seed {first.seed}: render, magnitude of the score, and after clipping"
        made.append(("fig_3.png", f"{text}, over the run (Fig. 3)."))
        write_png(folder / "fig_15.png", course(first), made_by)
        made.append(("fig_15.png", f"{first.prompt}, dsds, seed {first.seed}: what training saw (Fig. 15)."))
    shown = [f"![{name}]({name})\n\n{html.escape(caption)}\n" for name, caption in made]
    (folder / "README.md").write_text("\n".join([*shown, f"{made_by}\n"]), encoding="utf-8")
    return made


def _half(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    small = image[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return small.mean((1, 3)).round().astype(np.uint8)
