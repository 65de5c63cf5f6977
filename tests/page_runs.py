"""Made-up run folders with everything that their pages show, small enough to make hundreds."""

import json
from dataclasses import asdict
from functools import cache

import imageio.v3 as iio
import numpy as np

from prompts.debias import ViewPrompts
from prompts.views import DSDS_VIEWS, VIEWS
from sjc_debiased.folder.reader import write_options
from sjc_debiased.folder.runs import FINISHED, preview_path, slug, views_path, write_json
from sjc_debiased.models.choose import choose_model
from sjc_debiased.options.command import Basic, MethodOptions, Options
from sjc_debiased.options.config import resolve

MACHINE = {"device": "cpu", "precision": "float32", "kernel": "torch", "asked": False}


def options_of(prompt="a smiling cat", preset="dsds", seed=0, n_steps=40):
    """Return the resolved options of a run on the embedded model."""
    options = Options(Basic((prompt,), seed=seed, n_steps=n_steps), MethodOptions(preset))
    (run,) = resolve(options, choose_model("menagerie", "cpu").profile, "menagerie", "0" * 16)
    return run


def page_run(root, number=0, prompt="a smiling cat", preset="dsds", seed=0, n_steps=40, done=None):
    """Write a run folder, finished where `done` is None; return it."""
    run = options_of(prompt, preset, seed, n_steps)
    folder = root / f"{number:05d}-{preset}-{slug(prompt)}-seed{seed}"
    (folder / "previews").mkdir(parents=True)
    record = {
        "command": [],
        "view_prompts": asdict(view_prompts(prompt)),
        "machine": MACHINE,
        "device": "a CPU",
    }
    write_options(folder, run, record)
    n = n_steps if done is None else done
    rows = [json.dumps(stats_row(step, run)) + "\n" for step in range(n)]
    (folder / "stats.jsonl").write_text("".join(rows))
    for step in range(10, n + 1, 10):
        preview_path(folder, step).write_bytes(picture(16, 80, ".png", step))
    for step in range(20, n + 1, 20):
        views_path(folder, step).write_bytes(picture(16, 64, ".jpg", step))
    if done is None:
        for name in ("contact_sheet.png", "score_magnitude.png"):
            (folder / name).write_bytes(picture(32, 128, ".png", number))
        (folder / "turntable.mp4").write_bytes(video())
        (folder / "mesh.glb").write_bytes(mesh())
        settings = {"level": None, "faces": 20_000, "texture": 1024}
        made = {"faces": 12, "iou": 0.9, "settings": settings}
        write_json(folder / FINISHED, {"n_steps": n, "mesh": made, "optimization_time_s": 1.0})
    return folder


def view_prompts(prompt):
    """Return what became of a prompt of which "smiling" was removed but in front."""
    gone = ("smiling",) if "smiling" in prompt.split() else ()
    removed = {view: () if view == "front" else gone for view in VIEWS}
    sent = {
        v: DSDS_VIEWS.prompt(v, " ".join(w for w in prompt.split() if w not in removed[v])) for v in VIEWS
    }
    pmi = {word: {view: 1.0 if view == "front" else 0.59 for view in VIEWS} for word in gone}
    return ViewPrompts(prompt, sent, removed, pmi, pmi, {"cat": "subject"})


def stats_row(step, run):
    """Return what is logged of a step."""
    clip = None if run.settings.clip.start is None else 0.6 + 0.01 * step
    return {
        "step": step, "azimuth_deg": 10.0 * step, "elevation_deg": 5.0, "view": "side", "clip_value": clip,
        "sigma": 1.0, "direction_rms": 1.0 + 0.5 * (step % 2), "direction_p95_abs": 2.0,
        "clipped_fraction": 0.25, "opacity_mean": 0.1 + step / 100, "emptiness_loss": 0.1, "depth_loss": None,
    }  # fmt: skip


@cache
def picture(height, width, ending, shade):
    """Return the bytes of a small picture."""
    return iio.imwrite("<bytes>", np.full((height, width, 3), shade * 3 % 256, np.uint8), extension=ending)


@cache
def video():
    """Return the bytes of a short turntable."""
    frames = np.stack([np.full((32, 32, 3), 3 * i, np.uint8) for i in range(72)])
    return iio.imwrite("<bytes>", frames, extension=".mp4", fps=24, codec="libx264", plugin="FFMPEG")


@cache
def mesh():
    """Return the bytes of a box as a GLB."""
    import trimesh

    return trimesh.creation.box().export(file_type="glb")
