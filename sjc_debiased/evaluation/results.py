"""Tables, figures and report from measured runs: python -m sjc_debiased.evaluation.results RUN_ROOT OUT.

The same runs give the same files, byte for byte.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable
from pathlib import Path

from sjc_debiased.evaluation.collect import Measured, collect
from sjc_debiased.evaluation.examples import examples
from sjc_debiased.evaluation.figures import STRIP_PROMPTS, Figure, write_figures
from sjc_debiased.evaluation.labels import of_runs
from sjc_debiased.evaluation.objects import OBJECTS, objects_csv
from sjc_debiased.evaluation.study import count, read_answers
from sjc_debiased.evaluation.tables import Table, table_1, table_2, table_3, table_3_limits, table_5
from sjc_debiased.folder.reader import short_commit
from sjc_debiased.folder.runs import RunError
from sjc_debiased.making.provenance import git_commit
from sjc_debiased.pages import write_page
from sjc_debiased.refusals import refusals

_COMPARED = ("sjc", "dsds")


def main(
    run_root: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path] = Path("results"),
    study_key: Path | None = None,
    answers: tuple[Path, ...] = (),
    labels: tuple[Path, ...] = (),
) -> None:
    """Write `tables/` (of presets, and of every object), `figures/` and `report.html`.

    Args:
        run_root: parent of measured run folders.
        out: folder that gets the results.
        study_key: `key.json` of a user study. answers: its files of answers.
        labels: folders of labelled sheets (`python -m sjc_debiased.evaluation.labels`).
    """
    runs = collect(run_root)
    if not runs:
        raise ValueError(
            f"results need measured runs. {run_root} has none. Run `python -m "
            f"sjc_debiased.evaluation.measure {run_root}` first."
        )
    if bool(study_key) != bool(answers):
        raise ValueError(
            "a user study's answers are read with its key. Only one of --study_key and --answers was given. "
            "Give both, or neither."
        )
    tally = None
    if study_key:
        tally = count(json.loads(study_key.read_text(encoding="utf-8")), [read_answers(a) for a in answers])
    labelled = of_runs(labels, runs)
    for part in ("tables", "figures"):
        (out / part).mkdir(parents=True, exist_ok=True)
    made_by = made_by_words(runs, _command(run_root, out, study_key, answers, labels))
    by_faces = [table(runs, labelled) for table in (table_3, table_3_limits)]
    tables = [table_1(runs), table_2(tally), *by_faces, table_5(runs)]
    for table in tables:
        table.write(out / "tables", made_by)
    (out / "tables" / OBJECTS).write_text(objects_csv(runs), encoding="utf-8")
    figures = write_figures(runs, out / "figures", made_by)
    write_page(out / "report.html", "report.html", _report(runs, tables, figures, out / "figures", made_by))
    print(f"{len(runs)} runs: {out / 'report.html'}, {out / 'tables'}, {out / 'figures'}")


def shown(path: Path) -> str:
    """Return a path as commands that are written down have it: without the places of a machine."""
    path, here = path.resolve(), Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def _command(
    run_root: Path, out: Path, study_key: Path | None, answers: tuple[Path, ...], labels: tuple[Path, ...]
) -> str:
    """Return the command that makes the files, without the places of a machine."""
    words = ["python", "-m", "sjc_debiased.evaluation.results", shown(run_root), shown(out)]
    words += ["--study_key", shown(study_key), "--answers", *map(shown, answers)] if study_key else []
    words += ["--labels", *map(shown, labels)] if labels else []
    return shlex.join(words)


def made_by_words(runs: list[Measured], command: str) -> str:
    """Return what made the files: the command, and commits and weights of runs, measurements and this."""

    def of_all(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(v) for v in values})) or "unknown"

    presets = {p: sum(r.preset == p for r in runs) for p in sorted({r.preset for r in runs})}
    counts = ", ".join(f"{n} {p}" for p, n in presets.items())
    measured = of_all(short_commit(c) for r in runs for c in r.metrics.get("commits", {}).values())
    weights = [
        f"{what} {of_all(r.metrics[name] for r in runs if r.metrics.get(name))}"
        for what, (name, *parts) in _WEIGHTS.items()
        if any(part in r.metrics.get("parts", ()) for r in runs for part in parts)
    ]
    return (
        f"Made by `{command}` at commit {short_commit(git_commit())} from {len(runs)} runs ({counts}) of "
        f"{of_all(r.model for r in runs)}, commit {of_all(r.commit for r in runs)}; measured at commit "
        f"{measured} with {', '.join(weights)} (SHA-256, first 12 digits)."
    )


_WEIGHTS = {
    "judge": ("judge", "success"),
    "CLIP": ("clip_weights", "clip"),
    "LPIPS VGG": ("lpips_vgg", "a_lpips_vgg", "a_lpips_published"),
    "LPIPS AlexNet": ("lpips_alex", "a_lpips_alex"),
}
"""How the weights that measured are called, their name in `metrics.json`, and the parts that they measure."""


def _report(
    runs: list[Measured], tables: list[Table], figures: list[Figure], folder: Path, made_by: str
) -> dict:
    """Return what the report shows, one self-contained page: turntables side by side, tables, figures."""
    turntables, rule = _turntables(runs)
    return {
        "made_by": made_by,
        "turntables": turntables,
        "rule": rule,
        "tables": tables,
        "figures": [(figure, _base64(folder / figure.name)) for figure in figures],
    }


def _turntables(runs: list[Measured]) -> tuple[list[tuple[str, list[tuple[str, str]]]], str | None]:
    """Return the turntables of a few prompts, (preset, video) of baseline and method, and their rule."""
    of = {(r.prompt, r.seed, r.preset): r for r in runs}
    shown, rule = examples(runs, _COMPARED, STRIP_PROMPTS)
    pairs = [
        (f"{p}, seed {s}", [(preset, _base64(of[p, s, preset].files.turntable)) for preset in _COMPARED])
        for p, s in shown
    ]
    return pairs, rule


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


if __name__ == "__main__":
    import tyro

    with refusals(ValueError, KeyError, IndexError, RunError):
        tyro.cli(main, prog="python -m sjc_debiased.evaluation.results", use_underscores=True)
