"""A compiled network that is believed only as long as it works and answers as the plain one does."""

from __future__ import annotations

from typing import Any

import torch

_TOLERANCE = 0.05  # of the largest value: half precision in another order, not another function


class Compiled:
    """Compile a network at its first call; where that fails or changes its answer, go on without."""

    def __init__(self, network: Any, device: torch.device):  # of diffusers
        """Take a network that is called with tensors and `return_dict=False`, and answers with a tuple."""
        self._plain = network
        self._compiled: Any = torch.compile(
            network, mode="reduce-overhead" if device.type == "cuda" else None
        )
        self._run = self._first

    def __call__(self, *arguments, return_dict: bool = False):
        """Return what the network returns."""
        return self._run(*arguments, return_dict=return_dict)

    def _first(self, *arguments, return_dict: bool):
        expected = self._plain(*arguments, return_dict=return_dict)
        try:
            error = (self._compiled(*arguments, return_dict=return_dict)[0] - expected[0]).abs().max()
            if not error <= _TOLERANCE * expected[0].abs().max():
                raise ValueError(f"it changed the answer by {error.item():.2g}")
            self._run = self._later
        except Exception as problem:  # a compiler can fail in every way
            self._give_up(problem)
        return expected

    def _later(self, *arguments, return_dict: bool):
        try:
            return self._compiled(*arguments, return_dict=return_dict)
        except Exception as problem:  # another size of batch is compiled again
            self._give_up(problem)
            return self._plain(*arguments, return_dict=return_dict)

    def _give_up(self, problem: Exception) -> None:
        self._run = self._plain
        print(f"--compile: going on without ({type(problem).__name__}: {str(problem)[:200]})")
