"""Remasking: by chance, by rank, or by doubt."""

from __future__ import annotations

import math
from typing import Any

import torch

from dlmkit.core.candidates import BACK, Candidates, inverse
from dlmkit.core.context import BuildContext
from dlmkit.core.remask import Remask
from dlmkit.errors import RecipeError
from dlmkit.types import Mask, PerPosition
from dlmkit_masked import configs
from dlmkit_masked.quotas import share


class Remdm(Remask):
    """Each written token goes back with chance sigma (ReMDM, 2503.00307).

    sigma is at most (1 - a_s) / a_t, a the share of tokens that are settled by the level after and
    before the step. The paper raises the chance of writing in turn; here one position more is
    written for each that goes back, so that the number that is masked keeps to the quota.
    """

    def __init__(self, config: configs.Remdm, context: BuildContext) -> None:
        self.config = config

    def back(self, candidates: Candidates, accepted: Mask, memory: Any) -> tuple[Mask, Any]:
        u = candidates.step.noise.fork(BACK).uniform(0, accepted.shape[1:], torch.float64)
        return u < self._chance(candidates), memory

    def _chance(self, candidates: Candidates) -> PerPosition:
        config, step = self.config, candidates.step
        before, after = share(step.here), share(step.next)
        most = (after / (1.0 - before)).clamp(max=1.0)[:, None]
        done = candidates.progress[0][:, None]
        within = (config.on <= done) & (done < config.off) & candidates.settled
        if config.rule == "cap":
            chance = most.clamp(max=config.eta)
        elif config.rule == "rescale":
            chance = config.eta * most
        else:
            doubt = torch.where(candidates.settled, -candidates.written.double().exp(), -torch.inf)
            chance = config.eta * most * doubt.softmax(dim=1).nan_to_num(0.0)
        return torch.where(within, chance, 0.0)


def log_p(candidates: Candidates) -> PerPosition:
    """The log-probability that the network gives each written token now, (B, L)."""
    if candidates.prediction.log_p is None:
        raise RecipeError(
            "sampler: this remasking asks what the network says of tokens that are written, which "
            "the recipe's objective does not tell, or is not computed with sample.cache; "
            "mdlm:nelbo without it does"
        )
    return candidates.prediction.log_p


class Planned(Remask):
    """Written and open positions compete: those stay or are written of which the model is surest
    (P2 with the model as its own planner, 2502.03540).

    As many are settled after the step as the quota says.
    """

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        pass

    def back(self, candidates: Candidates, accepted: Mask, memory: Any) -> tuple[Mask, Any]:
        settled, still_open = candidates.settled, candidates.open
        scores = torch.where(still_open, candidates.certainty.first, -torch.inf)
        scores = torch.where(settled, log_p(candidates).to(scores.dtype), scores)
        keep = (settled | accepted).sum(dim=1, keepdim=True)
        # of equals, written ones come first, so that nothing moves without a reason
        by_age = settled.long().argsort(dim=1, descending=True, stable=True)
        scores = scores.gather(1, by_age)
        order = by_age.gather(1, scores.argsort(dim=1, descending=True, stable=True))
        return settled & (inverse(order) >= keep), memory


class Doubted(Remask):
    """A written token goes back once the model gives it too little (token to mask, after
    2604.18738, as a summary tells it)."""

    replaces = False

    def __init__(self, config: configs.Doubted, context: BuildContext) -> None:
        self.least = math.log(config.threshold)

    def back(self, candidates: Candidates, accepted: Mask, memory: Any) -> tuple[Mask, Any]:
        return candidates.settled & (log_p(candidates) < self.least), memory
