"""Seeded bugs that show on an accelerator alone: a part of every kind that forgets ``device=``."""

from __future__ import annotations

from dataclasses import replace

import torch
from mutants import CROSS, Loss, Table
from mutants import mutant as declare
from mutants_of_sampling import FIRST, GUIDED, RULE, Altered, Guided, Points, Rule

from dlmkit.core.options import Nothing
from dlmkit.core.schedule import Level
from dlmkit.testing import parts
from dlmkit_samplers.statistics import Entropy

CHECK = "runs-on-an-accelerator"


def mutant(kind, check=CHECK, **declared):
    return declare(kind, check, module=__name__, **declared)


@mutant("schedule")
class LevelOfTheCPU(parts.Plain):
    """alpha is made on the CPU."""

    def level(self, t):
        return Level(torch.ones(t.shape, dtype=t.dtype), t.clone())


@mutant("schedule", "learns-on-an-accelerator")
class FitsOnTheCPU(Table):
    """observe weighs its bins by a table of the CPU."""

    def observe(self, t, loss, pdf, rows):
        super().observe(t, loss, pdf, rows)
        self.means.mul_(torch.ones(len(self.means), dtype=torch.float64))


@mutant("space", provides=frozenset({"gaussian", "tied", "unit-norm"}))
class BiasOfTheCPU(parts.Tied):
    """logits adds a vector that is no buffer, and stays behind."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.nothing = torch.zeros(self.vocab_size)

    def logits(self, query):
        return super().logits(query) + self.nothing


@mutant("network")
class PositionsOfTheCPU(parts.Mixing):
    """It adds positions that it makes on the CPU."""

    def forward(self, x, level, conditioning, previous):
        positions = 0.01 * torch.arange(x.shape[1])[:, None]
        return super().forward(x + positions, level, conditioning, previous)


@mutant("objective", **CROSS)
class WeighsOnTheCPU(Loss):
    """The rows' weights are made on the CPU."""

    def change(self, loss, batch, draws):
        return replace(loss, per_row=loss.per_row * torch.ones(len(loss.per_row)))


@mutant("masking")
class MasksOnTheCPU(parts.Half):
    """The mask is made from positions on the CPU."""

    def draw(self, attend, noise):
        first = torch.arange(attend.shape[1]) < attend.sum(dim=1, keepdim=True).cpu() // 2
        return first & attend


@mutant("masking")
class LeavesTheMaskThere(parts.Half):
    """The mask is right, and on the CPU."""

    def draw(self, attend, noise):
        return super().draw(attend.cpu(), noise)


@mutant("sampler", **FIRST)
class StepsOnTheCPU(Altered):
    """What a step adds is made on the CPU."""

    def change(self, x, next):
        return x + torch.zeros(x.shape)


@mutant("grid", config=Nothing)
class PointsOfTheCPU(Points):
    """Points of the CPU are added to the schedule's."""

    def change(self, points, schedule, n):
        return points + torch.zeros(n, dtype=torch.float64)


@mutant("exit", **RULE)
class HaltsOnTheCPU(Rule):
    """A mask of the CPU joins what it says."""

    def __call__(self, statistics, memory):
        halt, memory = super().__call__(statistics, memory)
        return halt & torch.ones(len(halt), dtype=torch.bool), memory


@mutant("guidance", **GUIDED)
class GuidesOnTheCPU(Guided):
    """What it adds to the prediction is made on the CPU."""

    def change(self, prediction, x, level, previous, conditioning):
        moved = prediction.x0_step + torch.zeros(prediction.x0_step.shape)
        return replace(prediction, x0_step=moved)


@mutant("statistic", config=Nothing)
class ReadsByNumpy(Entropy):
    """It goes by way of numpy."""

    def per_position(self, space, prediction, before):
        return torch.from_numpy(super().per_position(space, prediction, before).numpy())
