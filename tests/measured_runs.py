"""Made-up measured runs, for tests of what is made of them."""

import imageio.v3 as iio
import numpy as np

from sjc_debiased.evaluation.measure import VERSION
from sjc_debiased.folder.runs import METRICS, write_json


def made_up_run(root, number, prompt, preset, seed, success):
    """Write a finished and measured run with made-up measurements; return its folder."""
    folder = root / f"{number:05d}-{preset}-x-seed{seed}"
    (folder / "previews").mkdir(parents=True)
    resolved = {"prompt": prompt, "preset": preset, "seed": seed, "model": "toy", "n_steps": 10}
    write_json(folder / "options.json", {"resolved": resolved, "git_commit": "abcdef" * 6})
    curve = list(np.cos(np.deg2rad(3.6 * np.arange(100))))
    metrics = {
        "version": VERSION,
        "parts": ["a_lpips_alex", "a_lpips_vgg", "a_lpips_published", "clip", "success"],
        "clip_model": "menagerie",
        "clip_weights": "c11c11c11c11",
        "judge": "1ad9e1ad9e1a",
        "commits": {"clip": "fedcba" * 6 + "-dirty", "success": "fedcba" * 6},
        "coverage": 0.3,
        "sharpness": 0.05,
        "a_lpips_vgg": 0.1 if success else 0.2,
        "face": {
            "arcs": 1 if success else 2,
            "in_front": True,
            "share": 0.6,
            "one_face": success,
            "success": success,
            "at_back": not success,
        },
        "clip": {
            "plain": 0.25,
            "similarity": dict.fromkeys(("front", "side", "back"), curve),
            "peak_off_deg": dict.fromkeys(("front", "side", "back"), 3.6),
            "margin": dict.fromkeys(("front", "side", "back"), 0.1),
        },
    }
    write_json(folder / METRICS, metrics)
    image = np.full((96, 512, 3), number * 9, np.uint8)
    for name in ("contact_sheet.png", "score_magnitude.png", "previews/step_000001.png"):
        iio.imwrite(folder / name, image)
    (folder / "turntable.mp4").write_bytes(b"not really a video")
    return folder
