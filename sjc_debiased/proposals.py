"""The sheet of proposals: what the 2D model wants of a view, at each noise level and guidance.

    python -m sjc_debiased.proposals RUN [--timesteps 150 450 750] [--guidance 1 8 30] [--out SHEET.png]

A step of the loop pulls a rendering x towards D(x + sigma n; sigma). The sheet shows this picture itself,
decoded: columns are the rendering and then timesteps, rows are scales of guidance, a block for each view. Any
run, of any model, finished or stopped. Where no proposal shows what is wanted, no setting of the loop will
bring it about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import tyro
from torch import Tensor

from prompts.views import VIEW_AZIMUTHS_DEG
from sjc_debiased.denoiser import Conditioning, Denoiser
from sjc_debiased.score import perturb
from sjc_debiased.seeing import picture_of
from voxnerf.cameras import orbit_camera
from voxnerf.field import Field
from voxnerf.snapshot import TURN_ELEVATION_DEG, to_u8

TIMESTEPS = (50, 150, 300, 450, 600, 750, 900)
GUIDANCES = (1.0, 8.0, 30.0)


@runtime_checkable
class Tabled(Denoiser, Protocol):
    """A 2D model with a table of noise levels, ascending, one for each timestep."""

    sigmas: Tensor


@torch.no_grad()
def propose(
    field: Field,
    denoiser: Tabled,
    cond: Conditioning,
    azimuth_deg: float,
    timesteps: Sequence[int] = TIMESTEPS,
    guidances: Sequence[float] = GUIDANCES,
    seed: int = 0,
) -> np.ndarray:
    """Return the block of one view, uint8 [rows * height, (1 + columns) * width, 3].

    Args:
        cond: of the view's prompt.
        timesteps: columns, whole numbers in [0, 999]. guidances: rows.
        seed: of the noise, one draw for each timestep, the same in every row.
    """
    size = denoiser.size
    seen = field.render(orbit_camera(azimuth_deg, TURN_ELEVATION_DEG, size, size)).latent
    latent = picture_of(seen, field, denoiser)
    n = len(timesteps)
    noise = torch.randn((n, *latent.shape[1:]), generator=torch.Generator().manual_seed(seed))
    sigmas = denoiser.sigmas[list(timesteps)]
    noised = torch.cat([perturb(latent, s, e[None]) for s, e in zip(sigmas, noise.to(latent))])
    rows = []
    for guidance in guidances:
        scale = torch.full((n,), float(guidance))
        wanted = denoiser.denoise(noised, sigmas, cond.repeated(n), scale)
        images = to_u8(denoiser.decode(torch.cat([latent, wanted])))
        rows.append(np.concatenate(list(images), axis=1))
    return np.concatenate(rows)


def sheet(
    field: Field,
    denoiser: Denoiser,
    sent: Mapping[str, str],
    timesteps: Sequence[int] = TIMESTEPS,
    guidances: Sequence[float] = GUIDANCES,
) -> np.ndarray:
    """Return the blocks of front, side and back below each other.

    Args:
        sent: the prompt of each view.

    Raises:
        ValueError: the 2D model has no table of noise levels, or a timestep is not in it.
    """
    if not isinstance(denoiser, Tabled):
        raise ValueError("proposals need a 2D model with a table of noise levels. This one has no `sigmas`.")
    last = len(denoiser.sigmas) - 1
    if not all(0 <= t <= last for t in timesteps):
        raise ValueError(f"--timesteps must be between 0 and {last}. They are {timesteps}. Choose others.")
    return np.concatenate(
        [
            propose(field, denoiser, denoiser.condition([sent[view]]), azimuth_deg, timesteps, guidances)
            for view, azimuth_deg in VIEW_AZIMUTHS_DEG.items()
        ]
    )


@dataclass(frozen=True)
class ProposalOptions:
    """Show what the 2D model wants of a run's object, by noise level and guidance."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    timesteps: tuple[int, ...] = TIMESTEPS
    """Columns: noise levels, from 0 to the last of the model's table (999; 980 of DeepFloyd IF)."""
    guidance: tuple[float, ...] = GUIDANCES
    """Rows: scales of classifier-free guidance."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda or auto."""
    out: Path | None = None
    """The picture. Default: proposals.png in the run folder."""


def main(o: ProposalOptions) -> None:
    """Write the sheet of a run: front, side and back, with the prompts that it was made with."""
    from sjc_debiased.folder.reader import RunReader
    from sjc_debiased.folder.runs import RunError
    from sjc_debiased.making.made import load_scene
    from sjc_debiased.making.pictures import write_png
    from sjc_debiased.models.machine import choose_machine
    from sjc_debiased.options.command import OptionError
    from sjc_debiased.options.rules import require

    path = o.out or o.run / "proposals.png"
    try:
        require(len(o.timesteps) > 0, "--timesteps", "one or more", "none")
        require(len(o.guidance) > 0, "--guidance", "one or more", "none")
        if o.out and not path.parent.is_dir():
            raise OptionError(f"--out must be in a folder that is there. {path.parent} is not. Make it.")
        device = choose_machine(o.device).device
        _, field, denoiser = load_scene(o.run, device, stopped=True, asked=True)
        prompts = RunReader(o.run).view_prompts
    except (OSError, ValueError, RunError) as error:
        raise SystemExit(f"proposals: {error}") from error
    if prompts is None:
        raise SystemExit(f"proposals: a run must say its view prompts. {o.run} is older. Make it again.")
    sent = prompts["sent"]
    for view in VIEW_AZIMUTHS_DEG:
        print(f"{view}: {sent[view]}")
    try:
        write_png(path, sheet(field, denoiser, sent, o.timesteps, o.guidance))
    except (OSError, ValueError) as error:
        raise SystemExit(f"proposals: {error}") from error
    print(f"rows: guidance {o.guidance}; columns: the rendering, then timesteps {o.timesteps}: {path}")


if __name__ == "__main__":
    main(tyro.cli(ProposalOptions, prog="python -m sjc_debiased.proposals"))
