"""Changes of a run by hand: written down first, then made, and made again when the run goes on."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sjc_debiased.folder.reader import BY_HAND, RunReader
from sjc_debiased.folder.runs import OPTIONS, write_json
from sjc_debiased.guidance import Guidance
from sjc_debiased.optimize import Scene
from sjc_debiased.schedules import ClipSchedule

Name = Literal["clip", "guidance"]
Value = float | list[float]


def clip_of(scene: Scene) -> tuple[float, float] | None:
    """Return the bounds of clipping at the first and the last step, or None where a scene does not clip."""
    bound = scene.settings.clip
    return None if bound.start is None or bound.end is None else (bound.start, bound.end)


def guidance_of(scene: Scene) -> float | None:
    """Return the scale of guidance, or None where a scene's guidance has none of its own to change."""
    own = is_dataclass(scene.guidance) and any(field.name == "scale" for field in fields(scene.guidance))
    return getattr(scene.guidance, "scale") if own else None  # noqa: B009  # the contract does not have it


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
            return replace(scene.guidance, scale=float(value))  # pyright: ignore[reportArgumentType]  # one with a scale
        raise ValueError(f"guidance must be finite and not negative. It is {value!r}. Choose another.")
    if name == "clip" and clip_of(scene) is not None:
        start, end = value
        if 0 < start <= end < math.inf:
            return ClipSchedule(float(start), float(end))
        raise ValueError(f"bounds of clipping must be positive and not fall. They are {value!r}. Swap them.")
    raise ValueError(
        f"a run can be changed in its clip and its guidance. This one has no {name!r} to change."
    )


def _take(scene: Scene, changed: Guidance | ClipSchedule) -> None:
    if isinstance(changed, ClipSchedule):
        scene.settings = replace(scene.settings, clip=changed)
    else:
        scene.guidance = changed
