"""What the numbers and words of a run must be, whatever model or preset they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import lt
from typing import Any

from prompts.words import split_words
from sjc_debiased.options.command import Basic, MethodOptions, OptionError, Options

_MOST_VOXELS = 512
_RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    ("at least 1", lambda value: value >= 1, ("n_steps", "n_noise", "schedule_steps")),
    (f"2 to {_MOST_VOXELS}", lambda value: 2 <= value <= _MOST_VOXELS, ("resolution",)),
    ("between 0 and 2147483647", lambda value: 0 <= value < 2**31, ("seed",)),
    (
        "finite and not negative",
        lambda value: 0 <= value < math.inf,
        (
            *("guidance", "emptiness_weight", "emptiness_scale", "emptiness_multiplier"),
            *("depth_weight", "color_scale"),
        ),
    ),
    ("finite and positive", lambda value: 0 < value < math.inf, ("lr", "background_lr")),
    (
        "a share in [0, 1]",
        lambda value: 0 <= value <= 1,
        ("emptiness_step", "lr_end", "least_ambient", "shaken"),
    ),
    ("a share in [0, 0.75]", lambda value: 0 <= value <= 0.75, ("textureless",)),
    (
        "finite numbers",
        lambda value: all(map(math.isfinite, value)),
        ("color_mean", "background_mean", "denoised_range"),
    ),
    (
        "least values, and as many larger ones",
        lambda value: len(value) % 2 == 0 and all(map(lt, value, value[len(value) // 2 :])),
        ("denoised_range",),
    ),
)
"""What numbers must be, by the names of their options."""


def check_numbers(numbers: Mapping[str, Any]) -> None:
    """Refuse a number that is out of its range.

    Args:
        numbers: by the names of their options, as of `config.by_option`.

    Raises:
        OptionError: one is.
    """
    for rule, holds, names in _RULES:
        for name in names:
            require(holds(numbers[name]), f"--{name}", rule, numbers[name])


def check_removal(prompts: Sequence[str], o: MethodOptions, removes: bool) -> None:
    """Refuse options of prompt debiasing where no word is removed, and words to keep that are in no prompt.

    Args:
        removes: whether any run removes words.

    Raises:
        OptionError: names the option or the word.
    """
    plain, keep = MethodOptions(), o.keep
    for name in ("keep", "masked_lm", "pmi_normalized"):
        if getattr(o, name) != getattr(plain, name) and not removes:
            raise OptionError(
                f"--{name} belongs to prompt debiasing's removal of words. Nothing is removed here. Add "
                f"--prompt_debias, or leave --{name} out."
            )
    there = {word.text for prompt in prompts for word in split_words(prompt)}
    if absent := [word for word in keep if word.lower() not in there]:
        raise OptionError(
            f"--keep takes words of the prompt, each by itself. No prompt has {absent[0]!r} as a word. "
            f"Take some of {', '.join(sorted(there))}."
        )


def check_others(run: Options, remedies: Mapping[str, str], who: str) -> None:
    """Refuse the options of a run that another command does without.

    Args:
        remedies: by option, what to do. who: the command, as a sentence begins with it.

    Raises:
        OptionError: one of them was given.
    """
    given, plain = (
        vars(o.basic) | vars(o.method) | vars(o.mesh) | vars(o.machine) | vars(o.watch)
        for o in (run, Options(Basic(prompt=())))
    )
    for name, remedy in remedies.items():
        if given[name] != plain[name]:
            others, own = (text.replace("mesh_", "mesh.") for text in (", --".join(remedies), name))
            raise OptionError(
                f"{who} takes every option of a run but --{others}. It was given --{own}. {remedy}"
            )


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse an option's value where its rule does not hold.

    Raises:
        OptionError: it does not.
    """
    if not holds:
        raise OptionError(f"{name} must be {rule}. It is {value}. Leave it out for the default.")
