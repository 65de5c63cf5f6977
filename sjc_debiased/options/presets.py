"""The presets: the rows of the paper's tables, each a method under its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PresetName = Literal[
    "sjc",
    "score-only",
    "prompt-only",
    "dsds-preserved",
    "dsds",
    "static-low",
    "static-high",
    "dreamfusion-sd",
    "dreamfusion-sd-score-only",
    "dreamfusion-sd-dsds",
    "dreamfusion-if",
    "dreamfusion-if-score-only",
    "dreamfusion-if-dsds",
    "magic3d",
    "magic3d-score-only",
    "magic3d-dsds",
]
FrameworkName = Literal["dreamfusion-sd", "dreamfusion-if", "magic3d"]


@dataclass(frozen=True)
class Method:
    """What a preset is: how the score is clipped, which view prompts, whether words are removed.

    `clip` "static-low" and "static-high" are the two ends of the model's dynamic range. `framework` is what
    it is put on in place of SJC (`frameworks.framework_numbers`).
    """

    clip: Literal["none", "dynamic", "static-low", "static-high"]
    views: Literal["sjc", "dsds"]
    remove_words: bool
    framework: FrameworkName | None = None


PRESETS: dict[PresetName, Method] = {
    "sjc": Method("none", "sjc", remove_words=False),
    "score-only": Method("dynamic", "sjc", remove_words=False),
    "prompt-only": Method("none", "dsds", remove_words=True),
    "dsds-preserved": Method("dynamic", "dsds", remove_words=False),
    "dsds": Method("dynamic", "dsds", remove_words=True),
    "static-low": Method("static-low", "dsds", remove_words=True),
    "static-high": Method("static-high", "dsds", remove_words=True),
    "dreamfusion-sd": Method("none", "sjc", remove_words=False, framework="dreamfusion-sd"),
    "dreamfusion-sd-score-only": Method("dynamic", "sjc", remove_words=False, framework="dreamfusion-sd"),
    "dreamfusion-sd-dsds": Method("dynamic", "dsds", remove_words=True, framework="dreamfusion-sd"),
    "dreamfusion-if": Method("none", "sjc", remove_words=False, framework="dreamfusion-if"),
    "dreamfusion-if-score-only": Method("dynamic", "sjc", remove_words=False, framework="dreamfusion-if"),
    "dreamfusion-if-dsds": Method("dynamic", "dsds", remove_words=True, framework="dreamfusion-if"),
    "magic3d": Method("none", "sjc", remove_words=False, framework="magic3d"),
    "magic3d-score-only": Method("dynamic", "sjc", remove_words=False, framework="magic3d"),
    "magic3d-dsds": Method("dynamic", "dsds", remove_words=True, framework="magic3d"),
}
"""The rows of the paper's tables: Table 1 (sjc, dsds-preserved, dsds), Figs. 7/13 (score-only,
prompt-only), Figs. 8/14 (prompt-only has no clipping, static-low, static-high, dsds). Figs. 10
and 11 are dreamfusion-if and magic3d, each beside its -score-only (App. A.4)."""
