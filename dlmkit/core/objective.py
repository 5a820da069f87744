"""Training objectives: the only thing that trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.masking import Masking
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.noise import Noise
from dlmkit.types import Ids, Index, Mask, PerRow, Rows


@dataclass(frozen=True)
class Batch:
    """Token ids of some rows of the global batch; ``attend`` is False at padding."""

    ids: Ids
    attend: Mask


@dataclass(frozen=True)
class Draws:
    """The randomness of a batch's rows.

    ``u`` in [0, 1) is stratified over the *global* batch of the optimiser step; ``noise`` is
    keyed by (seed, step, slot of the global batch). ``step`` counts the optimiser steps done, one
    number for all rows, for a loss that is annealed; None: nothing is being trained.
    """

    u: PerRow
    noise: Noise
    step: Index | None = None


@dataclass(frozen=True)
class LossParts:
    """A loss that adds up exactly over microbatches and processes.

    ``loss_sum`` (scalar, differentiable) over ``count`` (scalar) noised positions of the batch;
    detached ``per_row`` means; the times ``t`` with the density ``pdf`` they were drawn from;
    ``unconditional`` marks rows without given positions, which a learned schedule may observe.
    """

    loss_sum: Float[Tensor, ""]
    count: Float[Tensor, ""]
    per_row: PerRow
    t: PerRow
    pdf: PerRow
    unconditional: Rows

    @staticmethod
    def of(totals: PerRow, given: Mask, attend: Mask, t: PerRow, pdf: PerRow) -> LossParts:
        """From each row's loss, summed over the noised positions: neither given nor padding."""
        count = (attend & ~given).sum(dim=1)
        return LossParts(
            loss_sum=totals.sum(),
            count=count.sum().to(totals.dtype),
            per_row=totals.detach() / count.clamp(min=1),
            t=t,
            pdf=pdf,
            unconditional=~given.any(dim=1),
        )


class Objective(nn.Module, ABC):
    """A loss over a space, a network and a schedule, which are its sub-modules.

    ``forward`` is the only training entry, so that the hooks of distributed wrappers fire.
    """

    space: EmbeddingSpace
    network: ScoreNetwork
    schedule: NoiseSchedule

    @abstractmethod
    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        """The loss of ``batch``."""

    @abstractmethod
    def denoise(self) -> Denoise:
        """The denoiser that this objective trains, for sampling and evaluation."""


class RecipeObjective(Objective):
    """One that holds the recipe's space, network, schedule and masking under their kinds' names."""

    masking: Masking

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.space = context.part("space")
        self.network = context.part("network")
        self.schedule = context.part("schedule")
        self.masking = context.part("masking")
