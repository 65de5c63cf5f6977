"""`view.html` of a run folder: everything that the run has to show, rewritten while it is at work."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sjc_debiased.folder.reader import RunReader, short_commit
from sjc_debiased.folder.runs import (
    FIXED_AZIMUTHS,
    GALLERY,
    PREVIEW_PANELS,
    VIEW,
    VIEWER,
    RunError,
    atomic,
    run_folders,
    slug,
    steps_of,
)
from sjc_debiased.pages import MODEL_VIEWER, VENDOR, write_page
from sjc_debiased.pages.again import command_again
from sjc_debiased.pages.chosen import places_of
from sjc_debiased.pages.curves import HEIGHT, WIDTH, Chart, bins, charts
from sjc_debiased.pages.explain import option_groups
from sjc_debiased.pages.faces import faces_of
from sjc_debiased.pages.prompts import prompt_rows
from sjc_debiased.pages.state import FINISHED, RUNNING, SILENT_AFTER_S, State, state_of

_COPIED = (MODEL_VIEWER, "LICENSES.txt")
_BASELINE_AND_METHOD = ("sjc", "dsds")
_DAMAGED = (RunError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
_NEEDED = ("prompt", "preset", "model", "seed", "fingerprint")
_T = TypeVar("_T")


def write_view(folder: Path) -> None:
    """Write `view.html` of a run folder, and, where it has a mesh, what the page needs to turn it.

    A damaged folder gets a page too, which says what is wrong.

    Raises:
        OSError: it could not be written.
    """
    values = view_values(folder)
    if values["mesh"]["file"]:
        _write_viewer(folder, folder / values["mesh"]["file"])
    write_page(folder / VIEW, "view.html", values)


def view_values(folder: Path) -> dict:
    """Return what the template of a run's page shows."""
    run = RunReader(folder)
    problems: list[str] = []

    def part(what: str, make: Callable[[], _T], otherwise: _T) -> _T:
        """Return a part of the page, or `otherwise` where the folder is too damaged for it."""
        try:
            return make()
        except _DAMAGED as error:
            why = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            if not any(why in problem for problem in problems):
                problems.append(f"{what}: {why}")
            return otherwise

    options = part("Options", lambda: run.options, {})
    lacking = [name for name in _NEEDED if options and name not in options]
    if lacking:
        problems.append(f"Options: options.json lacks {', '.join(lacking)}.")
    state = state_of(run)
    rows: list[dict] = []
    part("Curves", lambda: rows.extend(run.stats()), None)  # those before a damaged line stay
    drawn: list[Chart] = part("Curves", lambda: charts(rows, state.n_steps), [])
    moments = part("Previews", lambda: _moments(run, rows), [])
    if state.step and not moments:
        problems.append("Previews: there is no preview in this folder, though steps were done.")
    turntable = run.turntable.name if run.turntable.exists() else None
    if state.name == FINISHED and not turntable:
        problems.append("Turntable: the run is finished, and turntable.mp4 is not there.")
    prompt = options.get("prompt")
    return {
        "folder": folder.name,
        "prompt": prompt if isinstance(prompt, str) else "(no prompt can be read)",
        "made": {name: str(options.get(name, "unknown")) for name in ("preset", "model", "seed")},
        "state": state,
        "last_sign": time.strftime("%Y-%m-%d %H:%M", time.localtime(state.last_sign)),
        "running": state.name == RUNNING,
        "best_of": part("Chosen", lambda: run.best_of, None) if options else None,
        "places": part("Chosen", lambda: places_of(run), []) if options else [],
        "turntable": turntable,
        "mesh": part("Mesh", lambda: _mesh(run), {"file": None, "files": [], "error": None}),
        "beside": part("Other runs", lambda: _beside(run), []),
        "moments": moments,
        "azimuths": FIXED_AZIMUTHS,
        "panels": PREVIEW_PANELS,
        "charts": drawn,
        "last_step": max(state.n_steps, len(rows)),
        "chart_size": (WIDTH, HEIGHT),
        "faces": part("Faces", lambda: faces_of(run), None),
        "sent": part("Prompts", lambda: prompt_rows(run), None),
        "groups": part("Options", lambda: option_groups(run), []),
        "command": part("Command", lambda: command_again(run), ""),
        "facts": part("Record", lambda: _facts(run), []),
        "gallery": GALLERY if (folder.parent / GALLERY).exists() else None,
        "problems": problems,
        "data": _data(state, moments, drawn, len(rows)),
    }


def _data(state: State, moments: list[dict], drawn: list[Chart], n_logged: int) -> dict:
    """Return what the page's script needs of a run."""
    return {
        "running": state.name == RUNNING,
        "last_sign": state.last_sign,
        "silent_after_s": SILENT_AFTER_S,
        "n_steps": state.n_steps,
        "moments": moments,
        "bins": [part.start for part in bins(max(state.n_steps, n_logged))],
        "width": WIDTH,
        "charts": [{"percent": c.percent, "lines": [line.values for line in c.lines]} for c in drawn],
    }


def partners(run: RunReader) -> list[Path]:
    """Return the other runs of a run's prompt, seed and model, by their numbers.

    Raises:
        RunError: the run's own options cannot be read.
    """
    options = run.options
    ending = f"-{slug(options['prompt'])}-seed{options['seed']}"
    found = []
    for folder in run_folders(run.folder.absolute().parent):
        if folder.name.endswith(ending) and folder.name != run.folder.name:
            try:
                others = RunReader(folder).options
            except RunError:
                continue
            if all(others.get(name) == options[name] for name in ("prompt", "seed", "model")):
                found.append(folder)
    return found


def _beside(run: RunReader) -> list[dict]:
    """Return the newest runs of SJC and D-SDS that this one can be compared with."""
    own, newest = run.options["preset"], {}
    for folder in partners(run):
        newest[RunReader(folder).options["preset"]] = folder
    return [
        {
            "preset": preset,
            "folder": newest[preset].name,
            "page": f"../{newest[preset].name}/{VIEW}" if (newest[preset] / VIEW).exists() else None,
            "turntable": other.turntable.exists() and f"../{newest[preset].name}/{other.turntable.name}",
            "state": state_of(other),
        }
        for preset in _BASELINE_AND_METHOD
        if preset != own and preset in newest and (other := RunReader(newest[preset]))
    ]


def _moments(run: RunReader, rows: list[dict]) -> list[dict]:
    """Return what is seen after the steps at which something was drawn, in their order."""
    previews = {steps_of(path): path for path in run.previews}
    fixed = {steps_of(path): path for path in run.fixed_views}
    moments, last = [], None
    for done in sorted(previews.keys() | fixed.keys()):
        last = fixed.get(done, last)
        row = rows[done - 1] if 0 < done <= len(rows) else {}
        camera = ""
        if row:
            camera = (
                f"{row['view']}, azimuth {row['azimuth_deg']:.0f}°, elevation {row['elevation_deg']:.0f}°"
            )
        if done in previews:
            moments.append(
                {
                    "step": done,
                    "preview": f"previews/{previews[done].name}",
                    "views": last and f"previews/{last.name}",
                    "views_step": steps_of(last) if last else None,
                    "camera": camera,
                }
            )
    return moments


def _mesh(run: RunReader) -> dict:
    """Return the newest mesh that a page can show, all files of meshes, and why there is none."""
    error = run.result.get("mesh", {}).get("error") if run.finished else None
    glbs = [path.name for path in run.meshes if path.suffix == ".glb"]
    return {"file": glbs[0] if glbs else None, "files": [path.name for path in run.meshes], "error": error}


def _facts(run: RunReader) -> list[tuple[str, str]]:
    """Return what else a run says about itself."""
    record = run.record
    facts = [("Folder", run.folder.name), ("Machine", str(record.get("device", "unknown")))]
    if run.finished:
        result = run.result
        for name, what in (
            ("optimization_time_s", "optimisation"),
            ("rendering_time_s", "turntable and mesh"),
        ):
            if name in result:
                facts.append((f"Seconds of {what}", f"{result[name]:,.0f}"))
        if "iou" in result.get("mesh", {}):
            mesh = result["mesh"]
            facts.append(("Mesh", f"{mesh['faces']:,} triangles; silhouettes overlap by {mesh['iou']:.2f}"))
    facts.append(("Commit", short_commit(record.get("git_commit"))))
    versions = record.get("versions", {})
    facts.append(
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown")
    )
    return facts


def _write_viewer(folder: Path, glb: Path) -> None:
    """Write what turns a mesh by hand: the viewer with its licences, and the mesh as a script.

    A page that is opened from the disk may not fetch a file, but may run a script that holds it.
    """
    place = folder / VIEWER
    place.mkdir(exist_ok=True)
    for name in _COPIED:
        if not (place / name).exists():
            with atomic(place / name) as partial:
                partial.write_bytes((VENDOR / name).read_bytes())
    script = place / "mesh.js"
    data = base64.b64encode(glb.read_bytes()).decode()
    text = f'"use strict";\nglobalThis.MESH = "data:model/gltf-binary;base64,{data}";\n'
    if not script.exists() or script.read_text(encoding="utf-8") != text:
        with atomic(script) as partial:
            partial.write_text(text, encoding="utf-8")
