"""FMLM's flow map: where a step of any length ends, of a network that reads both of its ends
(2602.16813, two-time denoiser; semigroup distillation)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.layers import TimeFeatures
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, Noised
from dlmkit.core.sampler import euler, per_row
from dlmkit.core.schedule import Level
from dlmkit.types import PerRow, Probabilities
from dlmkit_cdcd.network import Transformer
from dlmkit_distil import plugin
from dlmkit_distil.objective import Continuous

END = 3
"""What the ends of steps are forked by."""
LEAST = 1e-3
"""Shares of the noise below it are read alike, 0 among them."""


class TwoTime(Transformer):
    """`cdcd:transformer`, which also reads what share of the noise a step leaves.

    That adds nothing at first. Outside of steps the share is 1: what is asked is the mean of x0.
    """

    def __init__(self, config: plugin.TwoTime, context: BuildContext) -> None:
        super().__init__(config, context)
        width = config.time_features
        out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(out.weight)
        self.end = nn.Sequential(TimeFeatures(width, config.time_bandwidth), out)

    def features(self, level: Level, conditioning: Conditioning) -> Tensor:
        there = level if conditioning.step is None else conditioning.step[1]
        left = (there.ratio / level.ratio).clamp(min=LEAST)
        features: Tensor = self.end(Level.of_ratio(left))
        return super().features(level, conditioning) + features


def share(here: Level, middle: Level, there: Level) -> PerRow:
    """What the second of two steps, here - middle - there, counts for in both together.

    Of x / alpha a step to the share r of the noise keeps r and takes 1 - r of its prediction.
    """
    return (1.0 - there.ratio / middle.ratio) / (1.0 - there.ratio / here.ratio)


class FlowMap(Continuous):
    """The student says of a step what it says of its two halves, one after the other.

    A step from s to t is Euler's with the prediction p_{s,t}, so that over any u between them
    p_{s,t}(x_s) = (1 - w) p_{s,u}(x_s) + w p_{u,t}(x_u), w of :func:`share`. That mixture, without
    gradient, is the target: KL(target || student) in nats per position. Of steps no longer than one
    of ``steps`` it is what the teacher says at s; without a teacher the text, of which the teacher
    would have learned that (2505.18825). What ends below the last of them ends clean.

    Halves are equal in the schedule's draws. The student feeds back no prediction.
    """

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        low = draws.u * draws.noise.fork(END).uniform(0)
        clean = low < 1.0 / self.config.steps
        low = torch.where(clean, 0.0, low)
        middle, there = (
            self.schedule.level(self.schedule.quantile(u)) for u in (0.5 * (draws.u + low), low)
        )
        ones = torch.ones_like(there.sigma)
        there = rows.where(clean, Level(ones, torch.zeros_like(ones)), there)
        target = self.halves(noised, middle, there)
        with torch.no_grad():
            _, at_once = self.towards(batch, noised)
        short = (draws.u - low <= 1.0 / self.config.steps)[:, None, None]
        target = torch.where(short, at_once.to(target.dtype), target)
        asked = replace(noised.conditioning, step=(noised.level, there))
        return self.divergence(replace(noised, conditioning=asked), target)

    @torch.no_grad()
    def halves(self, noised: Noised, middle: Level, there: Level) -> Probabilities:
        """What is said of steps from ``noised`` to ``middle`` and on to ``there``, in one."""
        x, here = noised.x, noised.level
        first, said = self.step(noised, x, here, middle)
        alpha, alpha_middle = here.like(x).alpha, middle.like(x).alpha
        moved = euler(x / alpha, first.x0_step, per_row(here.ratio, x), per_row(middle.ratio, x))
        _, further = self.step(noised, moved * alpha_middle, middle, there)
        return torch.lerp(said, further, per_row(share(here, middle, there), said))

    def step(
        self, noised: Noised, x: Tensor, here: Level, there: Level
    ) -> tuple[Prediction, Probabilities]:
        """The prediction for a step of ``x``, and its tokens."""
        denoise = self.denoise()
        known = replace(noised.conditioning, step=(here, there))
        said = denoise(x, here, denoise.start(x), known)
        return said, self.space.logits(said.query).float().softmax(dim=-1)
