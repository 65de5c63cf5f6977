"""How the runs of `--best_of` came out: what the rankings beside a run say of it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from sjc_debiased.folder.reader import RunReader
from sjc_debiased.folder.runs import RANKING, RANKING_SHEET
from sjc_debiased.untrusted import read_json


@dataclass(frozen=True)
class Place:
    """Say where a run stands in a ranking.

    Attributes:
        rank: from 1, of `n_ranked` runs that were finished among the `best_of`.
        by: who ranked, in words. verdict: what was found of the run.
        sheet: the picture of all that were ranked, relative to the run's parent; None where it is gone.
    """

    rank: int
    n_ranked: int
    best_of: int
    by: str
    verdict: str
    sheet: str | None


def places_of(run: RunReader) -> list[Place]:
    """Return where a run stands in each ranking beside it that names it; none for a run of no `--best_of`.

    Raises:
        RunError: the options cannot be read.
        OSError, ValueError, KeyError, TypeError, AttributeError: a ranking is damaged.
    """
    if run.best_of is None:
        return []
    root, found = run.folder.absolute().parent, []
    for path in sorted(root.glob(f"best-*/{RANKING}")):
        said = read_json(path)
        by = "CLIP, which is a guess" if said["a_guess"] else "the judge"
        sheet = path.with_name(RANKING_SHEET)
        picture = f"{quote(path.parent.name)}/{sheet.name}" if sheet.exists() else None
        found += [
            Place(int(row["rank"]), len(said["runs"]), int(said["best_of"]), by, str(row["verdict"]), picture)
            for row in said["runs"]
            if row["run"] == run.folder.name
        ]
    return found
