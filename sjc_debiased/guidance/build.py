"""The guidance that a run's options ask for."""

from __future__ import annotations

from sjc_debiased.config import Resolved
from sjc_debiased.guidance import Guidance
from sjc_debiased.guidance.paas import PAAS
from sjc_debiased.guidance.sds import SDS
from sjc_debiased.schedules import TimestepRange


def build_guidance(run: Resolved) -> Guidance:
    """Return the guidance of a run."""
    timesteps = None if run.timesteps is None else TimestepRange.parse(*run.timesteps)
    paas = PAAS(run.guidance, run.n_noise, run.var_red, timesteps)
    return paas if run.weighting is None else SDS(paas, run.weighting)
