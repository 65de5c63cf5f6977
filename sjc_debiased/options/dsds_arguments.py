"""The two arguments of D-SDS's own run script that this command calls otherwise."""

from __future__ import annotations

import math

from sjc_debiased.options.command import OptionError


def translate_dsds_arguments(argv: list[str]) -> list[str]:
    """Return the arguments with D-SDS's two own ones in this command's terms.

    D-SDS's script bounds the score by `score_thres * (0.25 + 0.75 * step / n_steps)`, or by
    `score_thres` with `--score_dynamic False`, and does not clip for `score_thres` <= 0.

    Raises:
        OptionError: a value is missing or is not what the script takes.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, _, value = word.partition("=")
        key = name.replace("-", "_").lstrip("_")
        if name.startswith("--") and key in ("score_thres", "score_dynamic"):
            given[key] = value or next(words, "")
        else:
            rest.append(word)
    if not given:
        return argv
    try:
        bound = float(given.get("score_thres", "8.0"))
        dynamic = {"true": True, "false": False}[given.get("score_dynamic", "True").lower()]
    except (ValueError, KeyError) as error:
        raise OptionError(
            "--score_thres takes a number and --score_dynamic takes True or False. Received "
            f"{' and '.join(f'--{k} {v!r}' for k, v in given.items())}. Correct them, or use --clip.kind."
        ) from error
    if math.isnan(bound):
        raise OptionError("--score_thres must be a number. It is nan. Leave it out for 8.")
    if bound <= 0:
        return [*rest, "--clip.kind", "none"]
    start = ["--clip.start", str(bound / 4)] if dynamic else []
    kind = "dynamic" if dynamic else "static"
    return [*rest, "--clip.kind", kind, *start, "--clip.end", str(bound)]
