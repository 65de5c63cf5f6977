"""How many objects have one face, in front, where the prompt has a word of a face, and where it has none.

python scripts/rates_by_word.py results/menagerie-menagerie/tables/objects.csv [ANOTHER.csv ...]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

OF_A_FACE = ("smiling", "winking", "big eyes")


def main(tables: list[Path]) -> None:
    """Print the counts of every preset, over the objects of all tables together."""
    rows = []
    for table in tables:
        with table.open(encoding="utf-8") as file:
            rows += [row for row in csv.DictReader(file) if row["success"]]
    for preset in dict.fromkeys(row["preset"] for row in rows):
        told = []
        for named in (True, False):
            of_it = [
                row["success"] == "yes"
                for row in rows
                if row["preset"] == preset and any(word in row["prompt"] for word in OF_A_FACE) == named
            ]
            told.append(f"{sum(of_it)} of {len(of_it)}")
        print(f"{preset}: {told[0]} with {', '.join(OF_A_FACE)}; {told[1]} with none of them")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(name) for name in sys.argv[1:]])
