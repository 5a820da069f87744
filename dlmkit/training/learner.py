"""All that training changes: the objective, its optimiser and the average of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dlmkit.core.objective import Objective
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.ema import Ema
from dlmkit.training.observed import Observed
from dlmkit.training.optimiser import build_optimiser
from dlmkit.training.parallel import World


@dataclass
class Learner:
    """All that training changes. ``step`` counts the optimiser steps done.

    ``stream_state`` is the data's state after the rows of those steps. ``before`` counts the
    steps that the weights had behind them when this learner began, of another training: a loss
    that is annealed goes on from there.
    """

    objective: Objective
    wrapped: nn.Module
    optimiser: torch.optim.AdamW
    ema: Ema
    step: int = 0
    stream_state: Mapping[str, Any] = field(default_factory=dict)
    before: int = 0

    @staticmethod
    def begin(objective: Objective, config: TrainConfig, world: World, before: int = 0) -> Learner:
        """A learner that has taken no step. Call it before the objective's blocks are compiled."""
        ema = Ema(objective, config.ema)
        wrapped = world.wrap(objective)
        if world.sharded:
            ema.shard(world)
        return Learner(objective, wrapped, build_optimiser(objective, config), ema, before=before)

    def apply(self, rate: float, observed: Observed, world: World, learns: bool) -> None:
        """The optimiser's step at ``rate``, then what follows the weights: the learned schedule,
        if it ``learns`` of some row, and the average."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        if learns:
            self.objective.schedule.observe(
                observed.t, observed.loss, observed.pdf, observed.unconditional
            )
        self.ema.update(self.step + 1, world)
