"""Stage 6: how good the embedded models are, by number and for the eye.

Writes `docs/images/menagerie_world.png` (true creatures), `docs/images/menagerie_samples.png` (samples
of the model), and `docs/menagerie_quality.md` (judge and view accuracy, and the bias); of the pixel model
`menagerie_pixels.png` and `menagerie_pixels.md` (judge and view accuracy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import imageio.v3 as iio
import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional as F

from sjc_debiased.denoiser import Denoiser
from sjc_debiased.evaluation.intervals import wilson
from sjc_debiased.folder.runs import sha256
from sjc_debiased.making.pictures import halved
from sjc_debiased.menagerie import WEIGHTS
from sjc_debiased.menagerie.captions import P_MENTION, P_VIEW, P_VIEW_WORD, VIEWS
from sjc_debiased.menagerie.creatures import FACES, KINDS, OWN_COLOR, Creature
from sjc_debiased.menagerie.judge import AZIMUTH_BINS, FACE_VISIBLE_SHARE, Judge
from sjc_debiased.menagerie.train_judge import spoiled_by_field
from sjc_debiased.menagerie.world import portrait
from sjc_debiased.models.loading import load_model
from sjc_debiased.models.machine import choose_machine
from voxnerf.snapshot import to_u8

SAMPLE_GUIDANCE = 4.0
SAMPLE_STEPS = 25
_PER_CELL = 16
_PER_JUDGE_ROW = 200


class Embedded(Denoiser, Protocol):
    """An embedded model, of which a sampler knows more than the method does."""

    sigmas: Tensor


def load_denoiser(weights: Path = WEIGHTS) -> Embedded:
    """Return an embedded model on this machine, in its precision."""
    machine = choose_machine()
    place, dtype = torch.device(machine.device), getattr(torch, machine.precision)
    return load_model(str(weights), place, dtype)  # pyright: ignore[reportReturnType]  # both adapters have sigmas


@torch.no_grad()
def sample(denoiser: Embedded, prompts: list[str], seed: int, n_steps: int = SAMPLE_STEPS) -> Tensor:
    """Return one sample per prompt as RGB images in [-1, 1], float32 [n, 3, h, w].

    Deterministic sampling of the probability-flow ODE with Euler steps (EDM, arXiv:2206.00364, without
    the second-order correction), evenly spaced in timesteps: the same as DDIM.
    """
    shape = len(prompts), denoiser.channels, denoiser.size, denoiser.size
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(denoiser.device)
    ticks = torch.linspace(len(denoiser.sigmas) - 1, 0, n_steps + 1).round().long()
    cond, latent = denoiser.condition(prompts), noise * denoiser.sigmas[-1]
    scale = torch.full((len(prompts),), SAMPLE_GUIDANCE)
    for here, there in zip(ticks, ticks[1:]):
        sigma = denoiser.sigmas[here].expand(len(prompts))
        denoised = denoiser.denoise(latent, sigma, cond, scale)
        latent = denoised + (latent - denoised) * (denoiser.sigmas[there] / denoiser.sigmas[here])
    return denoiser.decode(latent)


def write(weights: Path, docs: Path) -> None:
    """Write the two pictures and the table of figures of the weights in a folder."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    iio.imwrite(images / "menagerie_world.png", halved(_world_sheet()))
    denoiser, judge = load_denoiser(weights), Judge(weights / "judge")
    iio.imwrite(images / "menagerie_samples.png", halved(_sample_sheet(denoiser)))
    vae = AutoencoderTiny.from_pretrained(weights / "vae")
    parts = [
        "# The menagerie in numbers\n",
        "Written by `python -m sjc_debiased.menagerie.train --stages report`; do not edit.\n",
        _judged(judge, vae),
        _view_table(denoiser, judge),
        _bias_table(denoiser, judge),
        _habit_tables(),
        _hashes(weights),
    ]
    (docs / "menagerie_quality.md").write_text("\n".join(parts))


def write_pixels(weights: Path, docs: Path) -> None:
    """Write the picture and the tables of the pixel model in a folder of weights."""
    denoiser, judge = load_denoiser(weights / "pixel"), Judge(weights / "judge")
    (docs / "images").mkdir(parents=True, exist_ok=True)
    iio.imwrite(docs / "images" / "menagerie_pixels.png", _sample_sheet(denoiser))
    parts = [
        "# The pixel model in numbers\n",
        "Written by `python -m sjc_debiased.menagerie.train --stages report`; do not edit.\n",
        _judge_table(judge, [("as the model sees them, of 64 pixels", {}, _of_64_pixels)]),
        _view_table(denoiser, judge),
    ]
    (docs / "menagerie_pixels.md").write_text("\n".join(parts))


def _rate(hits: Tensor) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{int(hits.sum())}/{len(hits)} = {hits.float().mean():.0%} [{low:.0%}, {high:.0%}]"


def _world_sheet() -> np.ndarray:
    rows = []
    for kind in KINDS:
        creature = Creature(kind, OWN_COLOR[kind], "smiling", shape_seed=3)
        views = [(0, 12), (45, 12), (90, 12), (135, 12), (180, 12), (270, 12), (30, 60)]
        rows.append(np.concatenate([portrait(creature, a, e, 1).image_u8 for a, e in views], axis=1))
    return np.concatenate(rows)


def _sample_sheet(denoiser: Embedded) -> np.ndarray:
    rows = []
    for kind in KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        prompts = [f"{view} view of {article} {kind}" for view in VIEWS]
        prompts += [f"a smiling {kind}", f"a winking {kind}", f"a blue {kind} wearing a hat"]
        prompts += [f"back view of a smiling {kind}"]
        rows.append(np.concatenate(to_u8(sample(denoiser, prompts, seed=1)), axis=1))
    return np.concatenate(rows)


def _judged(judge: Judge, vae: AutoencoderTiny) -> str:
    """Measure the judge on true creatures of all oddities."""

    def spoiled(images_u8: Tensor) -> Tensor:
        return spoiled_by_field(vae, images_u8, torch.Generator().manual_seed(4242)).cpu()

    cases = (
        ("as they are", {}, _as_it_is),
        ("spoiled as voxel fields do", {}, spoiled),
        ("with a second face at the back", {"extra_face": True}, _as_it_is),
        ("with blots", {"n_blots": 4}, _as_it_is),
        ("faceless", {"faceless": True}, _as_it_is),
        ("faceless, with blots", {"faceless": True, "n_blots": 4}, _as_it_is),
    )
    return _judge_table(judge, cases)


def _as_it_is(images_u8: Tensor) -> Tensor:
    return images_u8 / 127.5 - 1


def _of_64_pixels(images_u8: Tensor) -> Tensor:
    return F.avg_pool2d(_as_it_is(images_u8), images_u8.shape[-1] // 64)


def _judge_table(judge: Judge, cases: Iterable[tuple[str, dict, Callable[[Tensor], Tensor]]]) -> str:
    """Measure the judge on true creatures that it was not trained on, from everywhere.

    Args:
        cases: a name, what is odd about the creatures, and what makes pictures in [-1, 1] of photos.
    """
    rows = []
    for name, oddity, picture in cases:
        rng = np.random.default_rng(4242)
        pictures, seen, azimuths = [], [], []
        for i in range(_PER_JUDGE_ROW):
            kind, face = KINDS[i % len(KINDS)], FACES[i % len(FACES)]
            creature = Creature(kind, OWN_COLOR[kind], face, shape_seed=9000 + i, **oddity)  # pyright: ignore[reportArgumentType]  # of many types
            azimuths.append(rng.uniform(0, 360))
            photo = portrait(creature, azimuths[-1], rng.uniform(0, 30), i)
            pictures.append(photo.image_u8)
            seen.append(photo.face_share > FACE_VISIBLE_SHARE * photo.coverage)
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        verdict, truth = judge(picture(images)), torch.tensor(seen)
        said = verdict.face > 0.5
        bins = (torch.tensor(azimuths) * AZIMUTH_BINS / 360).round().long() % AZIMUTH_BINS
        off = (verdict.azimuth.argmax(1) - bins) % AZIMUTH_BINS
        near = torch.minimum(off, AZIMUTH_BINS - off) <= 1
        found = _rate(said[truth]) if truth.any() else "–"
        azimuth = "–" if oddity.get("extra_face") else _rate(near)
        rows.append(f"| {name} | {_rate(said == truth)} | {found} | {_rate(said[~truth])} | {azimuth} |")
    title = "## The judge on true creatures it has not seen"
    what = (
        f"{_PER_JUDGE_ROW} creatures a row, from random azimuths, 0 to 30 degrees up. A face is seen where "
        f"eyes, nose and mouth are over {FACE_VISIBLE_SHARE:.0%} of the creature.\n"
    )
    head = "| creatures | right about the face | faces found | faces said where none is seen | "
    head += "azimuth within 67.5° |"
    return "\n".join([title, "", what, head, "|---|---|---|---|---|", *rows, ""])


def _view_table(denoiser: Embedded, judge: Judge) -> str:
    """Judge samples of every kind under every view prompt."""
    rows = []
    for kind in KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        cells = []
        for view in ("front", "side", "back"):
            prompts = [f"{view} view of {article} {kind}"] * _PER_CELL
            verdict = judge(sample(denoiser, prompts, seed=7))
            azimuth = verdict.azimuth.argmax(1)
            turned = torch.minimum(azimuth, AZIMUTH_BINS - azimuth)  # 0 front ... 4 back
            right = {"front": turned <= 1, "side": (turned >= 1) & (turned <= 3), "back": turned >= 3}
            cells.append(_rate(right[view]))
            if view == "back":
                cells.append(_rate(verdict.face <= 0.5))
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    title = "## Samples obey the view prompt, as the judge sees it"
    setting = f"Guidance {SAMPLE_GUIDANCE:g}, {SAMPLE_STEPS} steps, {_PER_CELL} samples a cell, seed 7. "
    setting += (
        "Right is an azimuth bin within 67.5 degrees of the front, 67.5 of a flank, 67.5 of the back. A back "
        "without a tail is a front without a face to the judge: the last column asks for the face alone.\n"
    )
    head = "| kind | front | side | back | back: no face |"
    return "\n".join([title, "", setting, head, "|---|---|---|---|---|", *rows, ""])


def _bias_table(denoiser: Embedded, judge: Judge) -> str:
    """Count faces in samples where none should be seen."""
    rows = []
    for form in (
        "a {}",
        "a smiling {}",
        "front view of a smiling {}",
        "back view of a {}",
        "back view of a smiling {}",
        "backside view of a smiling {}",
        "back view of a winking {}",
        "back view of a {} with big eyes",
        "side view of a {}",
        "side view of a smiling {}",
    ):
        prompts = [form.format(kind).replace("a elephant", "an elephant") for kind in KINDS] * 6
        face = torch.cat([judge(sample(denoiser, p, seed=i)).face for i, p in enumerate(_batches(prompts))])
        rows.append(f'| "{form.format("KIND")}" | {_rate(face > 0.5)} |')
    head = "## The bias: samples that show a face (all kinds, 60 samples a row)"
    return "\n".join([head, "", "| prompt | shows a face |", "|---|---|", *rows, ""])


def _batches(items: list[str], size: int = 30) -> list[list[str]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _habit_tables() -> str:
    lines = [
        "## The photographer's habit, from which the bias comes",
        "",
        "| true view | " + " | ".join(VIEWS),
    ]
    lines[-1] += " |"
    lines.append("|---" * (len(VIEWS) + 1) + "|")
    lines.append("| P(view) | " + " | ".join(f"{P_VIEW[v]:.2f}" for v in VIEWS) + " |")
    for word in VIEWS:
        cells = " | ".join(f"{P_VIEW_WORD[v][word]:.2f}" for v in VIEWS)
        lines.append(f'| P(says "{word}" given the view) | {cells} |')
    for what, row in P_MENTION.items():
        lines.append(f"| P(mentions {what}) | " + " | ".join(f"{row[v]:.2f}" for v in VIEWS) + " |")
    return "\n".join([*lines, ""])


def _hashes(weights: Path) -> str:
    files = sorted(weights.rglob("*.safetensors"))
    rows = [f"| {p.relative_to(weights)} | {p.stat().st_size} | `{sha256(p)}` |" for p in files]
    return "\n".join(["## The weights", "", "| file | bytes | SHA-256 |", "|---|---|---|", *rows, ""])
