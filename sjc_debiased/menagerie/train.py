"""Train the menagerie from nothing: `python -m sjc_debiased.menagerie.train` runs the stages in order.

Every stage is resumable (same command again) and can be run alone with `--stages`.
"""

from __future__ import annotations

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
    stages: tuple[Stage, ...] = ("autoencoder", "diffusion", "masked_lm", "clip", "judge", "report")
    """The stages to run, in this order. pixel: a diffusion model of pixels, as a DeepFloyd IF folder."""
    begin: Path | None = None
    """A folder of weights from which diffusion, judge and pixel start. Default: from nothing."""
    photos: int = 40_000
    """Size of the album."""
    autoencoder_steps: int = 3000
    diffusion_steps: int = 10_500
    masked_lm_steps: int = 3000
    clip_steps: int = 1500
    judge_steps: int = 1500
    pixel_steps: int = 10_500
    """Untried: no such model was trained yet."""


def main(options: TrainingOptions) -> None:
    """Run the stages that were asked for."""
    parts = {"diffusion": ("unet", "text_encoder", "tokenizer"), "judge": ("judge",), "pixel": ("unet",)}
    for part in (part for stage in options.stages for part in parts.get(stage, ())):
        if options.begin and not (options.begin / part).is_dir():
            raise SystemExit(f"--begin must hold weights. {options.begin} has no {part}. Leave it out.")
    out = WEIGHTS if options.out is None else options.out
    through = {"diffusion", "judge"} & {*options.stages}
    if through and "autoencoder" not in options.stages and not (out / "vae").is_dir():
        raise SystemExit(
            f"--stages {' '.join(sorted(through))} learn what an autoencoder has encoded. {out} has no vae. "
            "Add the stage autoencoder, or copy a vae there."
        )
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
        twins = bare(o.work / "album")
        train_pixels.train(images, twins, truths, o.work, out / "pixel", o.pixel_steps, o.begin)
    if "report" in o.stages:
        report.write(out, o.docs)
        if (out / "pixel").is_dir():
            report.write_pixels(out, o.docs)


if __name__ == "__main__":
    main(tyro.cli(TrainingOptions, prog="python -m sjc_debiased.menagerie.train"))
