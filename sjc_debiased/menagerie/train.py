"""Train the menagerie from nothing: `python -m sjc_debiased.menagerie.train` runs the stages in order.

Every stage is resumable (same command again) and can be run alone with `--stages`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sjc_debiased.menagerie import WEIGHTS

Stage = Literal["autoencoder", "diffusion", "masked_lm", "clip", "judge", "report", "pixel"]


@dataclass(frozen=True)
class TrainingOptions:
    """What to train, how long, and where."""

    work: Path = Path("runs/menagerie-training")
    """Album, checkpoints and logs."""
    out: Path | None = None
    """The folder that gets the weights. Default: the one that the code takes them from."""
    docs: Path = Path("docs")
    """The folder that gets the report."""
    stages: tuple[Stage, ...] = ("autoencoder", "diffusion", "masked_lm", "clip", "judge", "pixel", "report")
    """The stages to run, in this order. pixel: a diffusion model of pixels, as a DeepFloyd IF folder."""
    begin: Path | None = None
    """A folder of weights from which diffusion and judge start, and pixel with the inner levels of its U-Net.
    Default: from nothing, and pixel from a U-Net that was trained before it."""
    photos: int = 40_000
    """Size of the album."""
    autoencoder_steps: int = 3000
    diffusion_steps: int = 10_500
    masked_lm_steps: int = 3000
    clip_steps: int = 1500
    judge_steps: int = 1500
    pixel_steps: int = 5000


def main(options: TrainingOptions) -> None:
    """Run the stages that were asked for."""
    out = WEIGHTS if options.out is None else options.out
    _check(options, out)
    from sjc_debiased.menagerie import (
        profile,
        report,
        train_autoencoder,
        train_clip,
        train_diffusion,
        train_judge,
        train_masked_lm,
        train_pixels,
    )
    from sjc_debiased.menagerie.dataset import album, bare

    o = options
    out.mkdir(parents=True, exist_ok=True)
    profile.write(out)
    if (out / "pixel").is_dir():
        profile.write(out / "pixel", profile.PIXELS)
    if {*o.stages} - {"masked_lm", "report"}:
        images, truths = album(o.work / "album", o.photos)
    if "autoencoder" in o.stages:
        train_autoencoder.train(images, o.work, out / "vae", o.autoencoder_steps)
    if "diffusion" in o.stages:
        twins = bare(o.work / "album")
        train_diffusion.train(images, twins, truths, o.work, out, o.diffusion_steps, o.begin)
    if "masked_lm" in o.stages:
        train_masked_lm.train(o.work, out / "mlm", o.masked_lm_steps)
    if "clip" in o.stages:
        train_clip.train(images, truths, o.work, out / "clip", o.clip_steps)
    if "judge" in o.stages:
        begin = o.begin / "judge" if o.begin else None
        train_judge.train(images, truths, out / "vae", o.work, out / "judge", o.judge_steps, begin)
    if "pixel" in o.stages:
        twins, begin = bare(o.work / "album"), out if "diffusion" in o.stages else o.begin
        train_pixels.train(images, twins, truths, o.work, out / "pixel", o.pixel_steps, begin)
    if "report" in o.stages:
        report.write(out, o.docs)
        if (out / "pixel").is_dir():
            report.write_pixels(out, o.docs)


def _check(o: TrainingOptions, out: Path) -> None:
    """Refuse stages that lack what they start from, before any work."""
    parts = {"diffusion": ("unet", "text_encoder", "tokenizer"), "judge": ("judge",), "pixel": ("unet",)}
    for part in (part for stage in o.stages for part in parts.get(stage, ())):
        if o.begin and not (o.begin / part).is_dir():
            raise SystemExit(f"--begin must hold weights. {o.begin} has no {part}. Leave it out.")
    if "pixel" in o.stages and o.begin and not _is_of_latents(o.begin / "unet"):
        raise SystemExit(
            "--begin must hold the U-Net of a latent model for the stage pixel, of 4 channels. That of "
            f"{o.begin} has others. Leave it out, or name the folder of the menagerie's weights."
        )
    through = {"diffusion", "judge"} & {*o.stages}
    if through and "autoencoder" not in o.stages and not (out / "vae").is_dir():
        raise SystemExit(
            f"--stages {' '.join(sorted(through))} learn what an autoencoder has encoded. {out} has no vae. "
            "Add the stage autoencoder, or copy a vae there."
        )


def _is_of_latents(unet: Path) -> bool:
    return json.loads((unet / "config.json").read_text())["in_channels"] == 4


if __name__ == "__main__":
    main(tyro.cli(TrainingOptions, prog="python -m sjc_debiased.menagerie.train"))
