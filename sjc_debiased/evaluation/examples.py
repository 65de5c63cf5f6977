"""Which prompts are shown: by a rule that was there before the outcomes, and that the captions state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from prompts.suites import load_suite, suite_names
from sjc_debiased.evaluation.collect import Measured


def examples(
    runs: Iterable[Measured], presets: Sequence[str], n: int
) -> tuple[list[tuple[str, int]], str | None]:
    """Return at most `n` prompts, each with a seed, of which every preset has a run; and the rule in words.

    The prompts are evenly spaced over all that are shared, in the order of the suite that has most of them;
    prompts of no suite that comes with the code stand behind it, by the numbers of their runs. The seed is
    the lowest. No outcome is looked at. Where nothing is shared: none, and no rule.
    """
    folders = {(r.prompt, r.seed, r.preset): r.folder.name for r in runs}
    seeds: dict[str, int] = {}
    for prompt, seed in sorted({(p, s) for p, s, _ in folders}):
        if all((prompt, seed, preset) in folders for preset in presets):
            seeds.setdefault(prompt, seed)
    if not seeds:
        return [], None
    first = {p: min(folder for (q, *_), folder in folders.items() if q == p) for p in seeds}
    suite, place = _suite_of(seeds)
    order = sorted(seeds, key=lambda prompt: (place.get(prompt, len(place)), first[prompt]))
    n = min(n, len(order))
    shown = [order[i * (len(order) - 1) // max(n - 1, 1)] for i in range(n)]
    among = f"the suite {suite}" if suite else "their runs"
    if suite and not seeds.keys() <= place.keys():
        among += ", prompts of no suite behind it"
    which = "the first" if n == 1 else f"{n}, evenly spaced"
    rule = (
        f"{which} in the order of {among}, of the {len(order)} made with {' and '.join(presets)}, with the "
        "lowest seed that was made with all; no outcome was looked at"
    )
    return [(prompt, seeds[prompt]) for prompt in shown], rule


def _suite_of(prompts: Collection[str]) -> tuple[str | None, dict[str, int]]:
    """Return the name of the suite that has most of the prompts, None where none has any; and its order."""
    suites = [load_suite(name) for name in suite_names()]
    orders = {suite.name: {entry.prompt: i for i, entry in enumerate(suite.prompts)} for suite in suites}
    name = max(orders, key=lambda name: len(orders[name].keys() & {*prompts}))
    return (name, orders[name]) if orders[name].keys() & {*prompts} else (None, {})
