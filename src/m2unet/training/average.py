"""Exponential average of the weights over steps: with few scans it generalises better than the last step's weights.

B. T. Polyak and A. B. Juditsky, *SIAM J. Control Optim.* 30, 1992; in its exponential form usual since
A. Tarvainen and H. Valpola, *Mean teachers*, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 10.0
"""The decay of step t is at most (1 + t) / (WARM_UP + t), so that the random first weights are soon forgotten."""


class WeightAverage:
    """Averages a model's parameters; its running batch statistics are not averaged but recomputed.

    Args:
        model: the network that trains.
        decay: weight of the past in each step, 0-1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.steps = 0
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step."""
        self.steps += 1
        decay = min(self.decay, (1.0 + self.steps) / (WARM_UP + self.steps))
        for name, value in self.model.named_parameters():
            self.weights[name].lerp_(value, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the model has the averaged weights; afterwards its own and its own statistics again."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.adopt()
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the model the averaged weights for good."""
        for name, value in self.model.named_parameters():
            value.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self.steps = int(state["steps"])
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)
