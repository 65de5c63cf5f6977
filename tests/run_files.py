"""Reading what a run left in its folder."""

import json
from pathlib import Path


def stats_of(folder: Path) -> list[dict]:
    """Return the measurements of every step."""
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
