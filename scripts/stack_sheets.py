"""Stack the contact sheets of runs into one picture: python scripts/stack_sheets.py OUT RUN [RUN ...]."""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sjc_debiased.folder.reader import RunReader


def stack(runs: list[Path]) -> np.ndarray:
    """Return the image rows of the runs' contact sheets, one below the other, at half size."""
    rows = []
    for run in runs:
        sheet = iio.imread(RunReader(run).contact_sheet)
        rows.append(sheet[: sheet.shape[0] // 2])
    tall = np.concatenate(rows)
    height, width = tall.shape[0] // 2, tall.shape[1] // 2
    return tall.reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)


if __name__ == "__main__":
    iio.imwrite(sys.argv[1], stack([Path(name) for name in sys.argv[2:]]))
