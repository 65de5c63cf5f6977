"""Changes of a run by hand: written down first, then made, and made again when the run goes on."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sjc_debiased.folder.reader import BY_HAND, RunReader
from sjc_debiased.folder.runs import OPTIONS, write_json
from sjc_debiased.guidance import Guidance
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS
from sjc_debiased.guidance.vsd import VSD
from sjc_debiased.optimize import Scene
from sjc_debiased.schedules import ClipSchedule

Name = Literal["clip", "guidance"]
Value = float | list[float]


def clip_of(scene: Scene) -> tuple[float, float] | None:
    """Return the bounds of clipping at the first and the last step, or None where a scene does not clip."""
    bound = scene.settings.clip
    return None if bound.start is None or bound.end is None else (bound.start, bound.end)


def guidance_of(scene: Scene) -> float | None:
    """Return the scale of guidance, or None where a scene's guidance is none of PAAS, SDS and VSD."""
    guidance = scene.guidance
    if isinstance(guidance, PAAS):
        return guidance.scale
    return guidance.paas.scale if isinstance(guidance, (SDS, VSD)) else None


def change(scene: Scene, folder: Path, name: Name, value: Value) -> None:
    """Change a scene from its next step on, after writing that down in `options.json`.

    Args:
        folder: the run folder, which the caller has locked.
        name, value: "clip" and its bounds at the first and the last step, or "guidance" and its scale.

    Raises:
        ValueError: a value is out of range, or the scene has none to change. Nothing is written then.
        OSError: it could not be written. Nothing is changed then.
    """
    changed = _changed(scene, name, value)
    entry = {"step": scene.done, "name": name, "value": value}
    _write(folder, [*RunReader(folder).changed_by_hand, entry])
    _take(scene, changed)


def repeat_changes(scene: Scene, folder: Path) -> int:
    """Make the changes of a run that goes on from a checkpoint again; return how many there are.

    Those of steps after the checkpoint go from `options.json`, as the steps themselves go from the log.

    Args:
        folder: the run folder, which the caller has locked.

    Raises:
        ValueError: `options.json` holds a change that is none.
    """
    written = RunReader(folder).changed_by_hand
    kept = [entry for entry in written if entry["step"] <= scene.done and scene.done]
    for entry in kept:
        _take(scene, _changed(scene, entry["name"], entry["value"]))
    if kept != written:
        _write(folder, kept)
    return len(kept)


def _write(folder: Path, changes: list[dict]) -> None:
    rest = {key: value for key, value in RunReader(folder).everything.items() if key != BY_HAND}
    write_json(folder / OPTIONS, rest | ({BY_HAND: changes} if changes else {}))


def _changed(scene: Scene, name: str, value: Any) -> Guidance | ClipSchedule:
    if name == "guidance" and guidance_of(scene) is not None:
        if isinstance(value, (int, float)) and math.isfinite(value) and value >= 0:
            return _with_scale(scene.guidance, float(value))
        raise ValueError(f"guidance must be finite and not negative. It is {value!r}. Choose another.")
    if name == "clip" and clip_of(scene) is not None:
        start, end = value
        if 0 < start <= end < math.inf:
            return ClipSchedule(float(start), float(end))
        raise ValueError(f"bounds of clipping must be positive and not fall. They are {value!r}. Swap them.")
    raise ValueError(
        f"a run can be changed in its clip and its guidance. This one has no {name!r} to change."
    )


def _with_scale(guidance: Guidance, scale: float) -> Guidance:
    """Return a guidance of `guidance_of` with another scale."""
    if isinstance(guidance, SDS):
        return replace(guidance, paas=replace(guidance.paas, scale=scale))
    if isinstance(guidance, VSD):
        changed = copy.copy(guidance)  # its second model and that one's optimiser stay the same
        changed.paas = replace(guidance.paas, scale=scale)
        return changed
    assert isinstance(guidance, PAAS)
    return replace(guidance, scale=scale)


def _take(scene: Scene, changed: Guidance | ClipSchedule) -> None:
    if isinstance(changed, ClipSchedule):
        scene.settings = replace(scene.settings, clip=changed)
    else:
        scene.guidance = changed
