"""MDLM's objective: a bound on the negative log-likelihood (2406.07524, equation 11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlmkit import rows
from dlmkit.core.cache import Cache
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, ModelDenoise, Prediction
from dlmkit.core.network import Conditioning, Incremental, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import IMPOSSIBLE, TokenSpace, masked_share, masking_rate
from dlmkit.plugin import Config
from dlmkit.types import Ids, Query
from dlmkit_mdlm.reuse import Reusing

ROLE = 3
"""What a row's draw of its term is forked by."""


class MaskedDenoise(ModelDenoise):
    """Predicts masked tokens; the uncovered ones are carried over (SUBS, section 3.2.3).

    It reads no previous prediction.
    """

    def __init__(self, space: TokenSpace, network: ScoreNetwork) -> None:
        super().__init__(space, network)
        self.mask, self.table = space.corruption.mask, space.table
        self.reads_level = network.reads_level

    def start(self, x: Tensor) -> Tensor:
        dtype = next(self.network.parameters(), self.table.weight).dtype
        return x.new_zeros((*x.shape[:2], self.space.dim), dtype=dtype)

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        """Logits of the tokens."""
        return self.possible(super().query(x, level, previous, conditioning))

    def possible(self, query: Float[Tensor, "*shape Q"]) -> Float[Tensor, "*shape Q"]:
        """``query``, in which the mask, where it has a logit, is never predicted."""
        if self.mask < query.shape[-1]:
            query = query.clone() if query.requires_grad else query
            query[..., self.mask] = IMPOSSIBLE
        return query

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        return self.carried(x, self.query(x, level, previous, conditioning), previous)

    def carried(self, x: Ids, query: Query, feedback: Any) -> Prediction:
        """The prediction by logits ``query`` for ids ``x``, whose masks alone are predicted."""
        query = query.to(self.table.weight.dtype)
        settled = x != self.mask
        token = torch.where(settled, x, 0)[..., None]  # the mask is no token
        likeliest, lse = self.space.read(query)
        predicted = query.gather(-1, token)
        log_p = torch.where(settled, predicted[..., 0] - lse, 0.0)
        certain = settled[..., None]
        # in place but for gradients: logits are most of a step's memory
        fill = query.masked_fill if query.requires_grad else query.masked_fill_
        query = fill(certain, IMPOSSIBLE).scatter_(-1, token, torch.where(certain, 0.0, predicted))
        x0, lse = torch.where(settled, x, likeliest), torch.where(settled, 0.0, lse)
        return Prediction(x0, query, lse, x0, feedback, log_p=log_p)

    def keeping(self, cache: Cache) -> Denoise:
        from dlmkit_mdlm.cache import CachedDenoise, rule_of

        space, network = self.space, self.network
        assert isinstance(space, TokenSpace)
        if not isinstance(network, Incremental) or network.reads_level:
            return super().keeping(cache)
        if cache.kind == "exact" and not network.block:
            return super().keeping(cache)
        return CachedDenoise(space, network, rule_of(cache, network.block))

    def reusing(self, counted: Denoise) -> Denoise:
        """Asks again only where a token changed, if the network does not read the level."""
        return counted if self.reads_level else Reusing(counted, self.table, self.space.query_dim)


class MaskedBound(RecipeObjective):
    """E over t of m'(t) / m(t) times the cross-entropy of the masked tokens, over t's density.

    m is the share of masked tokens. The integral ends at the schedule's t_min and t_max, where m
    is not quite 0 and 1. What is left of the bound is exact in two terms, as in discrete time
    (equation 8): the cross-entropy of the tokens still masked at t_min, and 1 - m(t_max) times
    that of all tokens where all are masked, which is the first step from nothing. A row is one of
    the two with the chance m(t_min) and 1 - m(t_max), as if m itself were drawn from 0 to 1.
    """

    space: TokenSpace

    def __init__(self, config: Config, context: BuildContext) -> None:
        super().__init__(context, config)

    def denoise(self) -> MaskedDenoise:
        return MaskedDenoise(self.space, self.network)

    def trained(self, batch: Batch, draws: Draws) -> MaskedDenoise:
        """The denoiser of one training step."""
        return self.denoise()

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        t = self.schedule.quantile(draws.u)
        low, high = (self.schedule.level(t * 0 + end) for end in self._ends())
        least, most = masked_share(low), masked_share(high)
        role = draws.noise.fork(ROLE).uniform(0)
        lowest, highest = role < least, role >= most
        level = rows.where(lowest, low, rows.where(highest, high, self.schedule.level(t)))
        noised = self.noised(batch, draws, level, self.trained(batch, draws))
        mask = self.space.corruption.mask
        noised = replace(noised, x=torch.where(highest[:, None], mask, noised.x))
        # uncovered tokens do not count, so their logits need not say that they are known
        query = noised.query().float()
        entropy = F.cross_entropy(query.flatten(0, 1), batch.ids.flatten(), reduction="none")
        masked = torch.where(noised.x == mask, entropy.view(batch.ids.shape), 0.0)
        weight = masking_rate(self.schedule, t) / (self.schedule.pdf(t) * (most - least))
        weight = torch.where(lowest, 1.0 / least, torch.where(highest, 1.0, weight))
        parts = self.loss(masked, noised, weight)
        return replace(parts, unconditional=parts.unconditional & ~(lowest | highest))

    def _ends(self) -> tuple[float, float]:
        return self.schedule.t_min, self.schedule.t_max
