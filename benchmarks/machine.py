"""What a benchmark writes down beside its figures."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch


def describe(device: torch.device | str = "cpu") -> dict:
    """Return processor or GPU, threads and version."""
    place = torch.device(device)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor()
    return {
        "device": name or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_json(path: Path, figures: dict) -> None:
    """Write figures as indented JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
