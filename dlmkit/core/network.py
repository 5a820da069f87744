"""Score networks: what a trained transformer (or anything else) must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, Mask, Query


@dataclass(frozen=True)
class Conditioning:
    """What is known of each row, row-first.

    ``given`` marks positions whose token is known, ``clean`` holds their clean embedding (zero
    elsewhere), and ``attend`` is False at padding, which nothing attends to.
    """

    given: Mask
    clean: Embedded
    attend: Mask

    @staticmethod
    def of(x0: Embedded, given: Mask, attend: Mask) -> Conditioning:
        """Conditioning on ``x0`` at the ``given`` positions."""
        return Conditioning(given, torch.where(given[..., None], x0, 0.0), attend)

    def dropped(self) -> Conditioning:
        """The same rows without their clean embeddings, as classifier-free guidance needs."""
        return replace(self, clean=torch.zeros_like(self.clean))


class ScoreNetwork(nn.Module, ABC):
    """Noisy rows in, one query vector a position out.

    One that says ``reads_level = False`` puts out the same at every level.
    """

    reads_level: bool = True

    @abstractmethod
    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        """``x`` is the space's input at ``level``; ``previous`` the last predicted x0, or zero.

        Rows are independent of each other, and no position depends on padding.
        """

    @abstractmethod
    def shard_units(self) -> Sequence[nn.Module]:
        """The blocks that a sharded run wraps one by one, in the order they run."""

    def dense_layers(self) -> Sequence[nn.Linear]:
        """The linear layers with most of the work, which read (B, L, ...) and may run in int8."""
        modules = (module for unit in self.shard_units() for module in unit.modules())
        return [module for module in modules if isinstance(module, nn.Linear)]

    def probe(self) -> None:
        """Raise what only running the network shows to be wrong, such as attention that does not
        see what it was asked to. Called once, when it has been built; most have nothing to say."""

    def save(self, folder: Path) -> None:
        """Write into ``folder``, a checkpoint's, what building needs beside options and weights.

        The network that is built from the checkpoint finds it in ``context.folder``. Most write
        nothing.
        """
