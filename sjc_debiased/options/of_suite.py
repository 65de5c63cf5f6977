"""What a suite says of the options of one of its prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prompts.suites import SuitePrompt
from sjc_debiased.options.command import Basic, OptionError, Options, SJCOptions
from sjc_debiased.options.presets import PresetName

_MOST = 1e9  # far above any setting, and below what a float cannot hold


def _is_count(value: object) -> bool:
    return type(value) is int and abs(value) <= _MOST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


SETTINGS = {
    "n_steps": _is_count,
    "guidance": _is_number,
    "lr": _is_number,
    "var_red": lambda value: type(value) is bool,
    "emptiness_weight": _is_number,
    "depth_weight": _is_number,
}
"""The options that a prompt of a suite may set, and what they may be."""


def options_of(run: Options, entry: SuitePrompt, preset: PresetName) -> Options:
    """Return the options of `run_sjc.py` for one prompt of a suite.

    Args:
        run: what was given for all of them, which comes before what the suite says.

    Raises:
        OptionError: the suite sets what it may not.
    """
    wrong = sorted(k for k, v in entry.settings.items() if not SETTINGS.get(k, lambda _: False)(v))
    if wrong:
        raise OptionError(
            f"a suite may set {', '.join(SETTINGS)}, to a number, or var_red to true or false. "
            f"{entry.prompt!r} sets {wrong[0]} to {str(entry.settings[wrong[0]])[:40]}. Correct the suite."
        )
    basic = replace(run.basic, prompt=(entry.prompt,), **_open(run.basic, entry))
    method, sjc = replace(run.method, preset=preset), replace(run.sjc, **_open(run.sjc, entry))
    return replace(run, basic=basic, method=method, sjc=sjc)


def _open(group: Basic | SJCOptions, entry: SuitePrompt) -> dict[str, Any]:
    """Return what a suite says of the options that were not given."""
    return {name: value for name, value in entry.settings.items() if vars(group).get(name, 0) is None}
