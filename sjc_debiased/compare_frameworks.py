"""The frameworks beside SJC, baseline beside debiased: python -m sjc_debiased.compare_frameworks.

Makes the runs that are missing, measures them, and writes one table and the figures. Further options go to
the sweep of every framework; --limit 2 --seeds 0 --n_steps 300 makes it short.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from sjc_debiased.evaluation.comparison import COMPARED, Compared, collect_all, split, table, write_figures
from sjc_debiased.menagerie import EMBEDDED
from sjc_debiased.options.command import OptionError

_OURS = ("presets", "guidance_form", "weighting", "timesteps", "vsd_model", "plan", "shard", "engine")
"""The sweep's options that are set here, or would leave a part of the table out."""


@dataclass(frozen=True)
class CompareOptions:
    """Run every framework that the model can by itself, with score debiasing, and with D-SDS, and compare.

    Every other option of a sweep holds too, --seeds among them.
    """

    model: str = "menagerie"
    """As in run_sjc.py. A latent model runs all frameworks but dreamfusion-if, a pixel model that and SDS."""
    suite: str | None = None
    """Of prompts; menagerie for the menagerie, else dsds70."""
    limit: int = 4
    """Only the first so many prompts."""
    n_steps: int | None = None
    """Steps of every run; they have a folder of their own, MODEL-SUITE-Nsteps. The framework's without it."""
    only: tuple[str, ...] = ()
    """Names of frameworks; all without it."""
    device: str = "auto"
    """auto, cpu or cuda; auto measures on the CPU."""
    run_root: Path | None = None
    """Parent of the frameworks' run folders; runs/MODEL-SUITE/frameworks without it."""
    out: Path | None = None
    """Folder that gets table and figures; results/MODEL-SUITE/frameworks without it."""


def words_of(framework: Compared, o: CompareOptions, root: Path, rest: list[str]) -> list[str]:
    """Return the sweep's arguments for one framework."""
    words = ["--presets", ",".join(framework.presets), *framework.options]
    if framework.name == "vsd" and o.model == "menagerie":
        words += ["--vsd_model", "copy"]  # it attends too little for a LoRA on its attention
    words += ["--model", o.model, "--suite", _suite(o), "--alike", "--limit", str(o.limit)]
    words += ["--device", o.device, *(["--n_steps", str(o.n_steps)] if o.n_steps is not None else [])]
    return [*words, "--run_root", str(root / framework.name), *rest]


def compare(o: CompareOptions, rest: list[str], argv: list[str]) -> int:
    """Make, measure and compare; return 0: all is done, 1: some runs failed, 130: interrupted.

    Raises:
        OptionError: an option cannot be used. ValueError, RunError, BackboneError: runs cannot be measured or
            compared.
    """
    from sjc_debiased import sweep
    from sjc_debiased.evaluation import measure
    from sjc_debiased.evaluation.a_lpips import load_lpips
    from sjc_debiased.folder.runs import RunError
    from sjc_debiased.models.choose import choose_model
    from sjc_debiased.models.machine import choose_machine
    from sjc_debiased.models.pipelines import pipeline_of

    choice = choose_model(o.model, choose_machine(o.device).device)
    if choice.name in EMBEDDED or o.model == "auto":
        o = replace(o, model=choice.name)  # by whatever name or path it was asked for
    can, not_run = split(pipeline_of(choice.location).pixels)
    _check(o, rest)
    can = [f for f in can if not o.only or f.name in o.only]
    if not can:
        raise OptionError(
            f"--only must name a framework that the model can run. It is {' '.join(o.only)}. "
            f"{' '.join(f'{said}.' for said in not_run)} Choose another model or framework."
        )
    root, out = places_of(o)
    print("\n".join(not_run), file=sys.stderr, flush=True)
    sweeps = {f: words_of(f, o, root, rest) for f in can}
    for framework, words in sweeps.items():  # what can be refused is, before the first of them
        plan = sweep.make_plan(sweep.parse(words), words)
        if plan.all_refused:
            raise OptionError(
                f"every framework must have runs that can be made. {framework.name} has none: "
                f"{plan.refused[0][1]} Or choose others with --only."
            )
    load_lpips("vgg")
    worst = 0
    for framework, words in sweeps.items():
        print(f"== {framework.name}: {framework.title}", flush=True)
        code = sweep.main(sweep.parse(words), words)
        if code not in (0, 1):
            return code
        worst = max(worst, code)
    parts = {"a_lpips_vgg"} | ({"success"} if o.model in EMBEDDED else set())
    device = "cpu" if o.device == "auto" else o.device
    problems = []
    for framework in can:
        try:
            measure.main(
                root / framework.name, tuple(p for p in measure.PARTS if p not in parts), device=device
            )
        except RunError as error:
            print(f"{framework.name}: {error}", file=sys.stderr)
            problems.append(str(error))
            not_run.append(f"NOT WHOLE: {framework.name} ({framework.title}): some runs are not measured")
    if len(problems) == len(can):
        raise RunError("\n".join(problems))
    _write(root, out, not_run, argv)
    return 1 if problems else worst


def _write(root: Path, out: Path, not_run: list[str], argv: list[str]) -> None:
    from sjc_debiased.evaluation.results import made_by_words, shown

    found = collect_all(root)
    words = (shown(Path(word)) if Path(word).is_absolute() else word for word in argv)
    command = shlex.join(["python", "-m", "sjc_debiased.compare_frameworks", *words])
    made_by = made_by_words([run for runs in found.values() for run in runs], command)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    made = table(found, not_run)
    made.write(out, made_by)
    write_figures(found, out / "figures", made_by)
    print(made.markdown())
    print("\n".join(not_run), file=sys.stderr)
    print(f"{out / 'frameworks.md'}, {out / 'figures'}")


def _check(o: CompareOptions, rest: list[str]) -> None:
    """Refuse what would make another table.

    Raises:
        OptionError: an option is set here, or a framework is not known.
    """
    for word in rest:
        if word.partition("=")[0].lstrip("-").replace("-", "_") in _OURS and word.startswith("--"):
            raise OptionError(
                f"a comparison of frameworks sets --{', --'.join(_OURS)} itself. Received {word}. Leave it "
                "out, or make these runs with scripts/run_prompts.sh."
            )
    names = [f.name for f in COMPARED]
    if unknown := [name for name in o.only if name not in names]:
        raise OptionError(f"--only must be of {', '.join(names)}. It is {unknown[0]}. Check the spelling.")


def _suite(o: CompareOptions) -> str:
    return o.suite or ("menagerie" if o.model in EMBEDDED else "dsds70")


def places_of(o: CompareOptions) -> tuple[Path, Path]:
    """Return the parent of the frameworks' runs, and the folder of the table and figures."""
    steps = "" if o.n_steps is None else f"-{o.n_steps}steps"
    model = re.sub(r"[^\w.-]+", "-", o.model)
    name = f"{model}-{Path(_suite(o)).stem}{steps}"
    default = Path(name) / "frameworks"
    return o.run_root or "runs" / default, o.out or "results" / default


def main(argv: list[str]) -> int:
    """Run the command; return `compare`'s code, or 2 where something is refused."""
    import tyro

    from sjc_debiased.evaluation.a_lpips import BackboneError
    from sjc_debiased.folder.runs import RunError

    options, rest = tyro.cli(
        CompareOptions,
        args=argv,
        prog="python -m sjc_debiased.compare_frameworks",
        use_underscores=True,
        return_unknown_args=True,
    )
    try:
        return compare(options, rest, argv)
    except (OSError, ValueError, RunError, BackboneError) as problem:
        print(problem, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
