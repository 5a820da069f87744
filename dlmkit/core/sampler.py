"""Samplers: one step from a level to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.types import Index, Rows

BoundDenoise = Callable[[Tensor, Level, Any], Prediction]
"""``denoise(x, level, previous)``, the rows' conditioning already bound."""


class Sampler(ABC):
    """One step of a solver. Pure: what it must remember is its row-first state."""

    @abstractmethod
    def init(self, x: Tensor) -> Any:
        """The state of rows that have taken no step yet: row-first, possibly empty (``()``)."""

    @abstractmethod
    def step(
        self,
        denoise: BoundDenoise,
        corruption: Corruption,
        x: Tensor,
        here: Level,
        next: Level,
        state: Any,
        noise: Noise,
        previous: Any,
    ) -> tuple[Tensor, Prediction, Any]:
        """Step every row from its level ``here`` to its level ``next`` (each [B]).

        Returns the new x, the prediction at ``here`` (its ``feedback`` is the next
        ``previous``) and the new state. ``next`` may be the clean level (alpha 1, sigma 0),
        where the step returns the predicted x0. ``noise`` is keyed by (seed, row, step).
        """

    def evaluations(self, last: Rows) -> Index:
        """Evaluations of the denoiser that a row's step needs; ``last`` if it ends clean."""
        return torch.ones_like(last, dtype=torch.int64)

    def for_grid(self, steps: int) -> Sampler:
        """This sampler on a grid of ``steps`` points: itself, unless it counts them."""
        return self
