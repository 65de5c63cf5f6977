"""Measure finished runs: python -m sjc_debiased.evaluation.measure RUN_ROOT. Writes `metrics.json` in each.

What was measured is kept and not measured again, so the same command goes on after an interruption, and one
with fewer parts to skip adds those.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from tqdm import tqdm

from prompts.views import DSDS_VIEWS, VIEW_AZIMUTHS_DEG
from sjc_debiased.evaluation.a_lpips import Net, a_lpips, find_backbone, load_lpips
from sjc_debiased.evaluation.clip_similarity import CLIP, WEIGHTS_FILE, azimuth_curves, find_clip
from sjc_debiased.evaluation.orbit import face_pictures, metric_orbit, pictures, spiral_order
from sjc_debiased.evaluation.success import count_faces
from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import METRICS, RunError, run_folders, sha256, write_json
from sjc_debiased.making.made import load_scene
from sjc_debiased.making.provenance import git_commit
from sjc_debiased.menagerie import EMBEDDED, WEIGHTS
from sjc_debiased.models.machine import choose_machine
from sjc_debiased.pages.write import refresh_view
from sjc_debiased.refusals import refusals

VERSION = 4  # of what is measured and how; older files are measured again
Part = Literal["a_lpips_alex", "a_lpips_vgg", "a_lpips_published", "clip", "success"]
PARTS: tuple[Part, ...] = ("a_lpips_alex", "a_lpips_vgg", "a_lpips_published", "clip", "success")
_NETS: dict[Part, Net] = {"a_lpips_alex": "alex", "a_lpips_vgg": "vgg", "a_lpips_published": "vgg"}


def measure(folder: Path, parts: Collection[Part], clip: str, device: str = "cpu") -> dict:
    """Return these parts of a finished run's measurements, as they are written to `metrics.json`.

    Beside the paper's metrics there are three guards against a cheap win, because an empty or blurred object
    has a low A-LPIPS: `coverage`, `sharpness`, and the CLIP similarity to the plain prompt.

    Raises:
        RunError: the run is not finished, or of a model that the menagerie's judge and CLIP do not know.
        BackboneError: LPIPS's backbone is out of reach.
        MissingError: the CLIP is out of reach.
    """
    options, grid, denoiser = load_scene(folder, device)
    _check_known(folder, options["model"], parts, clip)
    nets = _nets(parts)
    clip_folder = reach(parts, clip)  # refused before the pictures
    cameras = metric_orbit(denoiser.size)
    images, opacity = pictures(grid, denoiser, cameras)
    found: dict[str, object] = {
        "version": VERSION,
        "parts": [p for p in PARTS if p in parts],
        "commits": {p: git_commit() for p in PARTS if p in parts},
        "coverage": float((opacity > 0.5).float().mean()),
        "sharpness": sharpness(images),
    }
    for part, net in nets.items():
        found[f"lpips_{net}"] = _backbone_digest(net)
        if part == "a_lpips_published":
            found["a_lpips_vgg_published"] = a_lpips(images[spiral_order()], net, "published", device)
        else:
            found[part] = a_lpips(images, net, device=device)
    if clip_folder:
        azimuth = np.array([c.azimuth_deg for c in cameras])
        prompt = options["prompt"]
        texts = {view: DSDS_VIEWS.prompt(view, prompt) for view in VIEW_AZIMUTHS_DEG}
        curves = azimuth_curves(images, azimuth, texts, prompt, clip, device)
        found["clip_model"] = _name(clip)
        found["clip_weights"] = _digest(clip_folder / WEIGHTS_FILE)
        found["clip"] = {
            "plain": float(curves.plain.mean()),
            "similarity": {v: [round(float(x), 5) for x in curves.similarity[v]] for v in VIEW_AZIMUTHS_DEG},
            "peak_off_deg": {v: curves.peak_deg(v) for v in VIEW_AZIMUTHS_DEG},
            "margin": {v: curves.margin(v) for v in VIEW_AZIMUTHS_DEG},
        }
    if "success" in parts:
        from sjc_debiased.menagerie.judge import Judge

        face = Judge()(face_pictures(grid, denoiser)).face.numpy()
        count = count_faces(face)
        found["judge"] = _digest(WEIGHTS / "judge" / WEIGHTS_FILE)
        found["face"] = {
            **vars(count),
            "one_face": count.one_face,
            "success": count.success,
            "seen": [round(float(p), 4) for p in face],
        }
    return found


def reach(parts: Collection[Part], clip: str) -> Path | None:
    """Return the folder of the CLIP, None where it does not measure; refuse what is out of reach.

    Raises:
        BackboneError: LPIPS's backbone is. MissingError: the CLIP is.
    """
    for net in _nets(parts).values():
        load_lpips(net)
    return find_clip(clip) if "clip" in parts else None


def _nets(parts: Collection[Part]) -> dict[Part, Net]:
    return {part: net for part, net in _NETS.items() if part in parts}


def sharpness(images: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels, in units of the image range [-1, 1]."""
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return float((across + down) / 2)


def saved_metrics(folder: Path) -> dict | None:
    """Return a run's measurements of this version, or None."""
    found = RunReader(folder).metrics
    return found if found and found.get("version") == VERSION else None


def main(
    run_root: tyro.conf.Positional[Path],
    skip: tuple[Part, ...] = (),
    clip: str = "menagerie",
    device: str = "cpu",
    check: bool = False,
) -> None:
    """Measure of every finished run of a folder what was not measured yet.

    Args:
        run_root: parent of the run folders.
        skip: what to leave out. The judge knows only the menagerie: skip success for other models. On a
            CPU the two parts of A-LPIPS with VGG take far longer than all the rest.
        clip: folder or hub name of the CLIP that compares images with prompts; menagerie: its own.
        device: cpu, cuda or auto, for the pictures, LPIPS and CLIP.
        check: only ask whether LPIPS's backbones and the CLIP are within reach, before runs are made.
    """
    device = choose_machine(device).device
    clip = str(WEIGHTS / "clip") if clip == "menagerie" else clip
    if check:
        reach([part for part in PARTS if part not in skip], clip)
        return
    finished = [f for f in run_folders(run_root) if RunReader(f).finished]
    if not finished:
        raise RunError(
            f"measure needs a folder with finished runs. {run_root} "
            f"{'has none' if run_root.is_dir() else 'does not exist'}. Name the parent of run folders "
            "(--run_root of run_sjc.py), or finish a run first."
        )
    missing = {f: _missing(f, clip) - {*skip} for f in finished}
    failed = []
    for folder in tqdm([f for f in finished if missing[f]], unit="run"):
        try:
            found = measure(folder, missing[folder], clip, device)
        except RunError as error:
            failed.append(str(error))
            continue
        known = saved_metrics(folder) or {"parts": []}
        parts = {*known["parts"], *found["parts"]}
        commits = known.get("commits", {}) | found["commits"]
        both = {"parts": [p for p in PARTS if p in parts], "commits": commits}
        write_json(folder / METRICS, known | found | both)
        refresh_view(folder)
    if failed:
        raise RunError("not measured:\n" + "\n".join(failed))


def _check_known(folder: Path, model: str, parts: Collection[Part], clip: str) -> None:
    """Refuse another model's objects what was trained on the menagerie."""
    remedy = ["--skip success"] if "success" in parts else []
    if "clip" in parts and _is_ours(clip):
        remedy.append(f"--clip {CLIP}")
    if model not in EMBEDDED and remedy:
        raise RunError(
            f"the menagerie's judge and CLIP know the menagerie alone. {folder} is of {model}. Add "
            f"{' '.join(remedy)}."
        )


def _missing(folder: Path, clip: str) -> set[Part]:
    """Return the parts that a run has not, or has by another CLIP or another judge."""
    found = saved_metrics(folder) or {"parts": []}
    missing: set[Any] = {*PARTS} - {*found["parts"]}
    if found.get("clip_model") != _name(clip):
        missing.add("clip")
    if found.get("judge") != _digest(WEIGHTS / "judge" / WEIGHTS_FILE):
        missing.add("success")
    return missing


def _name(clip: str) -> str:
    """Return how a CLIP is called in the results: without the path of a machine."""
    weights = Path(clip) / WEIGHTS_FILE
    name = "menagerie" if _is_ours(clip) else Path(clip).name
    return f"{name} {_digest(weights)}" if weights.is_file() else clip


def _is_ours(clip: str) -> bool:
    return Path(clip).resolve() == (WEIGHTS / "clip").resolve()


@cache
def _digest(file: Path) -> str:
    """Return what tells a file of weights from others."""
    return sha256(file)[:12]


def _backbone_digest(net: Net) -> str | None:
    """Return what tells the file of a backbone's weights from others (the same may come in two formats)."""
    file = find_backbone(net)
    return _digest(file) if file else None


if __name__ == "__main__":
    import tyro

    from sjc_debiased.evaluation.a_lpips import BackboneError

    with refusals(ValueError, RunError, BackboneError):
        tyro.cli(main, prog="python -m sjc_debiased.evaluation.measure", use_underscores=True)
