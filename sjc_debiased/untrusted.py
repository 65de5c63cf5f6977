"""Files that may come from others: read only if they are small."""

from __future__ import annotations

import json
from pathlib import Path

LIMIT_BYTES = 2**20


def read_json(path: Path):
    """Return what a JSON file holds.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is larger than 1 MiB, or is no JSON.
    """
    if path.stat().st_size > LIMIT_BYTES:
        raise ValueError(f"{path.name} is larger than {LIMIT_BYTES} bytes")
    return json.loads(path.read_text(encoding="utf-8-sig"))
