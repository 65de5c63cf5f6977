"""D-SDS (arXiv:2303.15413) on Score Jacobian Chaining (arXiv:2212.00774): the method itself.

    from sjc_debiased import DSDS_VIEWS, Bert, ClipSchedule, clip, debias_prompt, generate, load

Each name is imported when it is first asked for, so that `import sjc_debiased` alone needs no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompts.debias import debias_prompt
    from prompts.masked_lm import Bert
    from prompts.views import DSDS_VIEWS
    from sjc_debiased.clipping import clip
    from sjc_debiased.library import generate, load
    from sjc_debiased.schedules import ClipSchedule

__version__ = "0.1.0"
__all__ = ["DSDS_VIEWS", "Bert", "ClipSchedule", "clip", "debias_prompt", "generate", "load"]

_HOMES = {
    "DSDS_VIEWS": "prompts.views",
    "Bert": "prompts.masked_lm",
    "ClipSchedule": "sjc_debiased.schedules",
    "clip": "sjc_debiased.clipping",
    "debias_prompt": "prompts.debias",
    "generate": "sjc_debiased.library",
    "load": "sjc_debiased.library",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
