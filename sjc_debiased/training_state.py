"""Parameters and the moments of their optimiser as tensors by name, for a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def training_state(
    parameters: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer, kind: str, moments: str
) -> dict[str, Tensor]:
    """Return parameters as KIND.NAME and their optimiser's state as MOMENTS.NAME.KEY."""
    state: dict[str, Tensor] = {}
    for name, param in parameters:
        state[f"{kind}.{name}"] = param
        state |= {f"{moments}.{name}.{key}": value for key, value in optimizer.state[param].items()}
    return state


@torch.no_grad()
def restore_training(
    state: dict[str, Tensor],
    parameters: Iterable[tuple[str, nn.Parameter]],
    optimizer: torch.optim.Optimizer,
    kind: str,
    moments: str,
) -> None:
    """Put parameters and optimiser into a state of `training_state`.

    Raises:
        KeyError, RuntimeError: the state is of other parameters.
    """
    for name, param in parameters:
        param.copy_(state[f"{kind}.{name}"])
        prefix = f"{moments}.{name}."
        optimizer.state[param] = {
            key.removeprefix(prefix): value.clone() if key.endswith(".step") else value.to(param.device)
            for key, value in state.items()
            if key.startswith(prefix)
        }
