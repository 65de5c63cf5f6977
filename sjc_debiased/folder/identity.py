"""Which run folder holds which run: a run is known by its options, and found again by them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from sjc_debiased.folder.reader import RunReader, as_json, write_options
from sjc_debiased.folder.runs import FINISHED, LOCK, OPTIONS, STATS, VIEW, RunError, run_folders, slug
from sjc_debiased.options.config import Resolved

_DRAFT = ".new-"


def find_run(run_root: Path, resolved: Resolved, precision: str | None = None) -> Path | None:
    """Return the folder that `RunIndex.find` finds."""
    return RunIndex(run_root).find(resolved, precision)


class RunIndex:
    """The run folders of a parent, by what was made in them."""

    def __init__(self, run_root: Path):
        self._folders: dict[str, list[tuple[Path, int, str | None]]] = {}
        self._schedules: dict[str, list[tuple[Path, int]]] = {}
        for folder in run_folders(run_root):
            if options := saved_options(folder):
                made = folder, options["n_steps"], RunReader(folder).precision
                self._folders.setdefault(_key(options), []).append(made)
                alike = self._schedules.setdefault(_key(options, "schedule_steps"), [])
                alike.append((folder, options["schedule_steps"]))

    def find(self, run: Resolved, precision: str | None = None) -> Path | None:
        """Return the folder of a run, or None: of several the one with most steps, and then the newest.

        It has the run's options and no more steps: one with fewer can be given more. On which machine it was
        begun does not matter.

        Args:
            precision: only a folder of this one; None for any.
        """
        found = [
            (n_steps, folder)
            for folder, n_steps, its in self._folders.get(_key(as_json(run)), ())
            if n_steps <= run.n_steps and precision in (None, its)
        ]
        return max(found)[1] if found else None

    def other_schedules(self, run: Resolved) -> list[tuple[Path, int]]:
        """Return (folder, schedule_steps) of the runs that differ in the length of their schedules alone."""
        alike = self._schedules.get(_key(as_json(run), "schedule_steps"), ())
        return [(folder, steps) for folder, steps in alike if steps != run.settings.schedule_steps]


def is_finished(folder: Path, run: Resolved) -> bool:
    """Return whether all steps of a run are done in its folder, and its results written."""
    options = saved_options(folder)
    return RunReader(folder).finished and options is not None and options["n_steps"] == run.n_steps


def find_or_create_run(
    run_root: Path, resolved: Resolved, record: dict, precision: str | None = None
) -> Path:
    """Return the folder of a run; create the next numbered one, with its `options.json`, where it has none.

    One process at a time does this in a run root, so that no run gets two folders. A folder appears with its
    options in it or not at all.

    Args:
        record: what `options.json` says beside the resolved options.
        precision: as in `RunIndex.find`.
    """
    with FileLock(run_root / LOCK):
        found = find_run(run_root, resolved, precision)
        if found:
            return found
        for abandoned in run_root.glob(f"{_DRAFT}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=run_root))
        draft.chmod(0o755)
        write_options(draft, resolved, record)
        numbered = run_folders(run_root)
        number = int(numbered[-1].name[:5]) + 1 if numbered else 0
        name = f"{number:05d}-{resolved.preset}-{slug(resolved.prompt)}-seed{resolved.seed}"
        return draft.rename(run_root / name)


def extend_run(folder: Path, run: Resolved) -> None:
    """Give a run more steps: its results so far move into a folder of their own, and nothing is lost.

    The folder must be locked.
    """
    reader = RunReader(folder)
    before, record = reader.options["n_steps"], reader.record
    if reader.finished:
        aside = folder / f"after_{before}_steps"
        aside.mkdir(exist_ok=True)
        results = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
        kept = {OPTIONS, STATS, VIEW}
        # The one that says "finished" goes last, so that this can be interrupted and repeated.
        for result in sorted((p for p in results if p.name not in kept), key=lambda p: p.name == FINISHED):
            result.replace(aside / result.name)
    extended = [*record.get("extended", ()), {"from": before, "to": run.n_steps}]
    machine = {"precision": reader.precision}  # an older version has it in the options that go
    write_options(folder, run, {"machine": machine} | record | {"extended": extended})


def check_same_options(folder: Path, resolved: Resolved) -> None:
    """Refuse to go on with a run of other options; more steps are allowed.

    Raises:
        RunError: lists the fields that differ.
    """
    saved = saved_options(folder)
    if saved is None:
        raise RunError(
            f"--resume needs a run folder with a readable options.json. {folder} has none. Name a folder "
            "that run_sjc.py made."
        )
    wanted = as_json(resolved)
    differing = [
        f"  {name}: {saved.get(name)!r} in the folder, {wanted.get(name)!r} now"
        for name in sorted(wanted.keys() | saved.keys())
        if saved.get(name) != wanted.get(name) and not (name == "n_steps" and saved[name] < wanted[name])
    ]
    if differing:
        raise RunError(
            f"--resume goes on with the same options. {folder} was made with others:\n"
            + "\n".join(differing)
            + "\nRepeat its options, or leave --resume out to start a new run."
        )


def check_same_prompts(folder: Path, sent: dict[str, str]) -> None:
    """Refuse to go on with other view prompts, which another version may make of the same prompt.

    Args:
        sent: what each view's prompt is now.

    Raises:
        RunError: names the first view that differs and the version that began the run.
    """
    reader = RunReader(folder)
    began = (reader.view_prompts or {}).get("sent", sent)
    if began != sent:
        view = next((v for v in sent if began.get(v) != sent[v]), "front")
        raise RunError(
            f"a run goes on with the view prompts that it was begun with. {folder} has {began.get(view)!r} "
            f"for the {view}, and now it is {sent[view]!r}. Go on with the version that began it (commit "
            f"{reader.record.get('git_commit')}), or move the folder away to begin anew."
        )


def check_unchanged(folder: Path) -> None:
    """Refuse a run that is not what its options say, because it was changed by hand while it went on.

    Raises:
        RunError: names the changes; or the folder has no readable options.
    """
    if changes := RunReader(folder).changed_by_hand:
        said = ", ".join(f"{c['name']} {c['value']} from step {c['step']} on" for c in changes[:4])
        more = f", and {len(changes) - 4} more" if len(changes) > 4 else ""
        raise RunError(
            f"what is compared must be as its options say. {folder} was changed by hand ({said}{more}). Take "
            "it out of the folder of runs, and make it again untouched."
        )


def saved_options(folder: Path) -> dict | None:
    """Return the resolved options that a run folder was made with, or None where there are none."""
    try:
        return RunReader(folder).options
    except RunError:
        return None


def _key(options: dict, *besides: str) -> str:
    """Return what tells a run from all others: its options as text, but for the number of its steps."""
    left_out = {"n_steps", *besides}
    return json.dumps({k: v for k, v in options.items() if k not in left_out}, sort_keys=True)
