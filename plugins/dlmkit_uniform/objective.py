"""UDLM's objective: a bound on the negative log-likelihood, in continuous time (2412.10193).

DUO's is the same (2506.10892, equations 17 and 18). It is SEDD's score entropy (2310.16834,
equations 5 and 10) with the scores that a denoiser implies.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import loss_rate, masked_share, score_entropy, uniformity
from dlmkit.exact.bayes import log_likelihood
from dlmkit.types import Ids, Logits, PerPosition, Probabilities, Query
from dlmkit_uniform import configs
from dlmkit_uniform.curriculum import Softened
from dlmkit_uniform.space import UniformSpace

ROLE = 3


def own_evidence(space: EmbeddingSpace, x: Ids, level: Level) -> Logits:
    """log q(x | token) of every token, up to a constant of the position."""
    said = log_likelihood(space, x, level)
    assert said is not None
    return said


class UniformDenoise(ModelDenoise):
    """log p(token | all other positions) by the network, and what x itself says, by Bayes.

    The bound's best network does not heed its own position's x: UDLM and DUO put its answer for
    x0 into q(x_s | x_t, x0), which then is x_s's posterior. Here what x says is added to the
    query, so that statistics and samplers meet p(token | x), as from any other denoiser.
    """

    def __init__(self, space: UniformSpace, network: ScoreNetwork) -> None:
        super().__init__(space, network, feedback=False)
        self.table = space.table

    def start(self, x: Tensor) -> Tensor:
        return self.table.weight.new_zeros(*x.shape, self.space.dim)

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning).to(self.table.weight.dtype)
        query = query + own_evidence(self.space, x, level)
        x0, lse = self.space.read(query)
        return Prediction(x0, query, lse, x0, previous)


class MixedDenoise(UniformDenoise):
    """The same, which reads ``mixture`` (B, L, V) of tokens in place of x."""

    mixture: Probabilities

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        read = self.mixture.to(self.table.weight.dtype) @ self.table.weight
        query: Query = self.network(read, level, conditioning, previous)
        return query


class UniformBound(RecipeObjective):
    """E over t of -alpha'(t) / (V alpha(t)) times the score entropy, over t's density.

    The integral ends at the schedule's t_min and t_max. What is left of the bound is exact in
    two terms: the cross-entropy of the tokens at t_min, of which a row is asked with the chance
    1 - alpha(t_min), and the divergence of q(x | x0) at t_max from uniform, in closed form.

    In DUO's curriculum x is the argmax of Gaussian noise, of which the network reads a softmax.
    """

    space: UniformSpace

    def __init__(self, config: configs.Udlm, context: BuildContext) -> None:
        super().__init__(context, config)
        self.curriculum = config.curriculum
        self.softened = Softened(self.space.vocab_size) if config.curriculum else None

    def denoise(self) -> UniformDenoise:
        return UniformDenoise(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        t = self.schedule.quantile(draws.u)
        ends = self.schedule.t_min, self.schedule.t_max
        low, high = (self.schedule.level(t * 0 + end) for end in ends)
        least, most = masked_share(low), masked_share(high)
        lowest = draws.noise.fork(ROLE).uniform(0) < least
        level = rows.where(lowest, low, self.schedule.level(t))
        noised = self.noised(batch, draws, level)
        risen = draws.risen(self.curriculum) if self.softened else 1.0
        if self.softened and risen < 1.0:
            denoise = MixedDenoise(self.space, self.network)
            noise = draws.noise.fork(ROLE + 1)
            x, denoise.mixture = self.softened.draw(batch.ids, level, noise, risen)
            noised = replace(noised, x=x, denoise=denoise)
        query = noised.query().float()
        between = self._between(query, noised.x, batch.ids, level)
        weight = loss_rate(self.schedule, t) / (self.space.vocab_size * (1.0 - least))
        weight = weight / self.schedule.pdf(t)
        said = query + own_evidence(self.space, noised.x, level)
        entropy = F.cross_entropy(said.transpose(1, 2), batch.ids, reduction="none")
        at_least = entropy / least[:, None]
        nats = torch.where(lowest[:, None], at_least, weight[:, None] * between)
        parts = self.loss(nats + uniformity(most, self.space.vocab_size)[:, None], noised)
        return replace(parts, unconditional=parts.unconditional & ~lowest)

    def _between(self, query: Logits, x: Ids, ids: Ids, level: Level) -> PerPosition:
        share = masked_share(level.like(query))
        odds = (self.space.vocab_size * (1.0 - share) / share).log()
        # log of (V alpha p + 1 - alpha) / (1 - alpha), of every token: log q(y), up to a constant
        risen = F.softplus(query.log_softmax(dim=-1) + odds)
        log_score = risen - risen.gather(-1, x[..., None])
        return score_entropy(log_score, x, ids, F.softplus(odds)[..., 0])
