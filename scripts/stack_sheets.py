"""Stack the contact sheets of runs into one picture: python scripts/stack_sheets.py OUT RUN [RUN ...]."""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.making.pictures import halved, turn_of


def stack(runs: list[Path]) -> np.ndarray:
    """Return the image rows of the runs' contact sheets, one below the other, at half size."""
    turns = [turn_of(iio.imread(RunReader(run).contact_sheet)) for run in runs]
    return halved(np.concatenate(turns))


if __name__ == "__main__":
    iio.imwrite(sys.argv[1], stack([Path(name) for name in sys.argv[2:]]))
