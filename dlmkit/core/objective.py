"""Training objectives: the only thing that trains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, ModelDenoise, Shown
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.masking import Masking
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.options import Dropping
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.noise import Noise
from dlmkit.plugin import Config
from dlmkit.types import Ids, Index, Mask, PerPosition, PerRow, Query, Rows


@dataclass(frozen=True)
class Batch:
    """Token ids of some rows of the global batch; ``attend`` is False at padding.

    ``given`` marks what the data gives and nothing is learned of, such as the question of an
    answer; None: nothing. ``segments`` numbers the texts of rows that hold several, none of which
    may see another; None: a row is one text.
    """

    ids: Ids
    attend: Mask
    given: Mask | None = None
    segments: Ids | None = None


@dataclass(frozen=True)
class Slots:
    """The slots of a global batch of ``batch`` rows that the rows of one forward pass have.

    They are ``first``, ``first + passes``, ``first + 2 passes``, ...; ``passes`` counts the
    passes of all processes. ``earliest`` is the lowest ``first`` of the passes that the processes
    make at the same time.
    """

    batch: int
    first: int = 0
    passes: int = 1
    earliest: int = 0

    def __len__(self) -> int:
        return len(range(self.first, self.batch, self.passes))

    def index(self, device: torch.device | None = None) -> Index:
        """The slots in ascending order."""
        return torch.arange(self.first, self.batch, self.passes, device=device)

    def shown(self, share: float) -> Shown:
        """Which rows see a first prediction, if a ``share`` of the global batch does.

        Those of its first ceil(``share`` times ``batch``) slots, whatever the passes and the
        processes. That u comes in a random order of slots keeps them spread over noise levels.
        """
        below = math.ceil(share * self.batch - 1e-9)  # 0.55 x 100 is above 55 in floating point
        rows = len(range(self.first, below, self.passes))
        return Shown(rows, rows or int(self.earliest < below))


@dataclass(frozen=True)
class Draws:
    """The randomness of a batch's rows.

    ``u`` in [0, 1) is stratified over the *global* batch of the optimiser step; ``noise`` is
    keyed by (seed, step, slot of the global batch). ``step`` counts the optimiser steps done, one
    number for all rows, for a loss that is annealed; None: nothing is being trained. ``slots``
    are where the rows stand in the global batch; None: they are all of it.
    """

    u: PerRow
    noise: Noise
    step: Index | None = None
    slots: Slots | None = None

    def shown(self, share: float) -> Shown:
        """Which of the rows see a first prediction: a ``share`` of the global batch."""
        return (self.slots or Slots(len(self.u))).shown(share)

    def risen(self, steps: int) -> float | Tensor:
        """What rises from 0 to 1 over so many ``steps`` of training; 1 outside training."""
        return 1.0 if self.step is None else (self.step[0] / steps).clamp(max=1.0)


@dataclass(frozen=True)
class LossParts:
    """A loss that adds up exactly over microbatches and processes.

    ``loss_sum`` (scalar, differentiable) over ``count`` (scalar) noised positions of the batch;
    detached ``per_row`` means; the times ``t`` with the density ``pdf`` they were drawn from;
    ``unconditional`` marks rows without given positions, which a learned schedule may observe,
    but none that is padding alone: its loss of 0 says nothing.
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
            unconditional=~given.any(dim=1) & (count > 0),
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

    def save(self, folder: Path) -> None:
        """Write into ``folder``, a checkpoint's, what going on with it must find again.

        The objective that is built from the checkpoint finds it in ``context.folder``. Most write
        nothing.
        """


@dataclass(frozen=True)
class Noised:
    """A batch at the noise levels that it is trained at, and what is asked of the network there.

    ``given`` (B, L) marks the positions whose token is known, by the data or by the masking. Row i
    is noised at time ``t[i]``, whose ``level`` makes ``x`` (B, L, ...) of the clean ``x0``.
    ``denoise`` is asked, under ``conditioning``; the rows ``shown`` see its first prediction.
    """

    attend: Mask
    given: Mask
    t: PerRow
    level: Level
    x0: Tensor
    x: Tensor
    conditioning: Conditioning
    denoise: ModelDenoise
    shown: Shown

    def query(self) -> Query:
        """The network's answer, (B, L, Q), which the space reads logits from.

        The rows ``shown`` are asked twice: the first prediction, made without gradient, is what
        the second sees (self-conditioning, 2208.04202, section 3.2).
        """
        asked = self.x, self.level, self.conditioning
        previous = self.denoise.first_predictions(self.shown, *asked)
        return self.denoise.query(self.x, self.level, previous, self.conditioning)


CORRUPTION, MASKING, DROPOUT = range(3)
"""What :meth:`RecipeObjective.noised` forks a row's noise by; a model's own draws begin at 3."""


class RecipeObjective(Objective):
    """What the objectives of recipes share: a loss of each position of noised rows.

    A model says what that loss is, in ``forward``::

        noised = self.noised(batch, draws)
        logits = self.space.logits(noised.query()).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        return self.loss(entropy, noised)

    The recipe's space, network, schedule and masking are kept under their kinds' names.
    """

    masking: Masking
    self_conditioning: float = 0.0
    """Share of the global batch's rows that see a first prediction; at 0, no text that is sampled
    does either."""
    conditioning_dropout: float = 0.0
    """The chance that a row is not told its given tokens, as classifier-free guidance needs: that
    of options that have one."""

    def __init__(self, context: BuildContext, config: Config | None = None) -> None:
        super().__init__()
        if isinstance(config, Dropping):
            self.conditioning_dropout = config.conditioning_dropout
        self.space = context.part("space")
        self.network = context.part("network")
        self.schedule = context.part("schedule")
        self.masking = context.part("masking")

    def denoise(self) -> ModelDenoise:
        return ModelDenoise(self.space, self.network, feedback=self.self_conditioning > 0)

    def given(self, batch: Batch, noise: Noise) -> Mask:
        """What the data gives, and of the rest what the masking draws."""
        if batch.given is None:
            return self.masking.draw(batch.attend, noise)
        return batch.given | self.masking.draw(batch.attend & ~batch.given, noise)

    def shown(self, draws: Draws) -> Shown:
        """Which rows see a first prediction."""
        return draws.shown(self.self_conditioning)

    def noised(
        self,
        batch: Batch,
        draws: Draws,
        level: Level | None = None,
        denoise: ModelDenoise | None = None,
    ) -> Noised:
        """``batch``, each row at the level of its own time.

        ``level`` stands for the schedule's where a model noises some rows otherwise, and
        ``denoise`` for :meth:`denoise` where training asks another than sampling.
        """
        given = self.given(batch, draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        level = self.schedule.level(t) if level is None else level
        x0, corruption = self.space.embed(batch.ids), self.space.corruption
        x = corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        clean = corruption.clean(x0)
        conditioning = Conditioning.of(clean, given, batch.attend, batch.segments)
        conditioning = self._dropped(conditioning, draws)
        denoise = self.denoise() if denoise is None else denoise
        return Noised(
            batch.attend, given, t, level, x0, x, conditioning, denoise, self.shown(draws)
        )

    def loss(
        self, per_position: PerPosition, noised: Noised, weight: PerRow | None = None
    ) -> LossParts:
        """The sum of ``per_position`` over what is neither given nor padding, by row times
        ``weight`` where there is one."""
        counted = noised.attend & ~noised.given
        totals = torch.where(counted, per_position, 0.0).sum(dim=1)
        totals = totals if weight is None else weight * totals
        pdf = self.schedule.pdf(noised.t)
        return LossParts.of(totals, noised.given, noised.attend, noised.t, pdf)

    def _dropped(self, conditioning: Conditioning, draws: Draws) -> Conditioning:
        if self.conditioning_dropout == 0:
            return conditioning
        keep = draws.noise.fork(DROPOUT).uniform(0) >= self.conditioning_dropout
        dropped = conditioning.dropped(self.space.corruption.unknown)
        clean = torch.where(keep[:, None, None], conditioning.clean, dropped.clean)
        return replace(conditioning, clean=clean)
