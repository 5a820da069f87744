"""SEDD's objective, its denoiser, and its geometric noise (2310.16834)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise, Prediction
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.options import Dropping
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.core.tokens import IMPOSSIBLE, DiscreteSpace, loss_rate, masked_share
from dlmkit.exact.bayes import log_likelihood
from dlmkit.types import Ids, Logits
from dlmkit_sedd.graphs import graph_of
from dlmkit_sedd.plugin import Geometric

ROLE = 3


class ScoreDenoise(ModelDenoise):
    """What scores say of x0: r, and what x itself says, by Bayes. It reads no last prediction."""

    def __init__(self, space: DiscreteSpace, network: ScoreNetwork) -> None:
        super().__init__(space, network, feedback=False)
        self.table, self.graph = space.table, graph_of(space)

    def start(self, x: Tensor) -> Tensor:
        return self.table.weight.new_zeros(*x.shape, self.space.dim)

    def posterior(self, output: Logits, x: Ids, level: Level) -> tuple[Logits, Logits]:
        """(log r, log p(token | x)), neither normalised."""
        log_r = self.graph.others_say(output, x, level)
        said = log_likelihood(self.space, x, level)
        assert said is not None
        return log_r, log_r + said.clamp(min=IMPOSSIBLE)

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        output = self.query(x, level, previous, conditioning).to(self.table.weight.dtype)
        log_r, query = self.posterior(output, x, level)
        x0, lse = self.space.read(query)
        settled = self.space.settled(x)
        if settled is None:
            return Prediction(x0, query, lse, x0, previous)
        token = torch.where(settled, x, 0)[..., None]
        log_p = log_r.log_softmax(dim=-1).gather(-1, token)[..., 0]
        return Prediction(x0, query, lse, x0, previous, log_p=torch.where(settled, log_p, 0.0))


class ScoreEntropy(RecipeObjective):
    """Denoising score entropy (theorem 3.4), weighted by the rate of the total noise: a bound on
    the negative log-likelihood (theorem 3.6), over the density of t.

    The paper's integral ends at the schedule's t_min and t_max. Here the cross-entropy at t_min is
    added, of which a row is asked with the chance that a token is lost there, and the divergence
    at t_max in closed form.
    """

    space: DiscreteSpace

    def __init__(self, config: Dropping, context: BuildContext) -> None:
        super().__init__(context, config)
        self.graph = graph_of(self.space)

    def denoise(self) -> ScoreDenoise:
        return ScoreDenoise(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        t = self.schedule.quantile(draws.u)
        ends = self.schedule.t_min, self.schedule.t_max
        low, high = (self.schedule.level(t * 0 + end) for end in ends)
        least = masked_share(low)
        lowest = draws.noise.fork(ROLE).uniform(0) < least
        denoise = self.denoise()
        level = rows.where(lowest, low, self.schedule.level(t))
        noised = self.noised(batch, draws, level, denoise)
        output = noised.query().float()
        rate = loss_rate(self.schedule, t) / (self.schedule.pdf(t) * (1.0 - least))
        between = rate[:, None] * self.graph.entropy(output, noised.x, batch.ids, level)
        _, said = denoise.posterior(output, noised.x, level)
        known = F.cross_entropy(said.transpose(1, 2), batch.ids, reduction="none")
        nats = torch.where(lowest[:, None], known / least[:, None], between)
        parts = self.loss(nats + self.graph.rest(masked_share(high))[:, None], noised)
        return replace(parts, unconditional=parts.unconditional & ~lowest)


class GeometricNoise(NoiseSchedule):
    """Of the tokens exp(-n) are left, n = low^(1 - t) high^t (section 5.1); t is uniform."""

    t_min, t_max = 0.0, 1.0

    def __init__(self, config: Geometric, context: BuildContext) -> None:
        super().__init__()
        self.low, self.span = math.log(config.low), math.log(config.high / config.low)

    def level(self, t: Tensor) -> Level:
        total = torch.exp(self.low + t * self.span)
        return Level(torch.exp(-total), -torch.expm1(-total))

    def inverse(self, ratio: Tensor) -> Tensor:
        return (torch.log1p(ratio).log() - self.low) / self.span
