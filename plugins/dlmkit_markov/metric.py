"""The metric `exact`: how far texts are from the chain, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Metric
from dlmkit.errors import DataError, RecipeError
from dlmkit.exact.intervals import Jackknife, jackknife
from dlmkit.testing.markov import RARE, MarkovChain
from dlmkit_markov.configs import ExactMetric
from dlmkit_markov.data import MarkovData

NORMAL = 1.959964
"""Half-width of a 95 % interval in standard errors."""


class ExactScore(Metric):
    """Likelihood and transitions of texts under the chain that they should come from."""

    def __init__(self, config: ExactMetric, context: BuildContext) -> None:
        self.blocks, self.draws = config.blocks, config.draws
        self.length = context.length

    def fit(self, data: Data) -> None:
        """Take the chain of ``data``. Raises RecipeError if it is not markov:chain."""
        if not isinstance(data, MarkovData):
            raise RecipeError(
                "the metric markov:exact measures samples of the data markov:chain only, "
                f"but this recipe's data is {type(data).__name__}"
            )
        self.chain, self.tokenizer = data.chain, data.tokenizer
        self._known: dict[int, float] = {}

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """In nats per token, intervals of 95 %; of fewer than two whole texts, only `incomplete`.

        incomplete              share of texts of another length than the recipe's, as of a model
                                that writes <pad> or <unk>; the other numbers are of the rest
        nll, nll_expected       mean exact NLL of the texts, and of the chain's own texts
        nll_gap, _low, _high    their difference, its interval by the spread between texts
        impossible, _low, ...   share of transitions that the chain makes once in a million, where
                                it has such; its interval by the spread between texts
        transition_kl, ...      KL of the sampled transitions from the chain's, weighted by how
                                often each token is left; minus what as many texts of the chain
                                itself show on average, so that 0 is perfect and slightly
                                negative values are noise; its interval by a block jackknife
        """
        if not texts:
            return {}
        whole = [text for text in texts if len(self.tokenizer.encode(text)) == self.length]
        ids = self.ids(whole)
        incomplete = {"incomplete": 1.0 - len(ids) / len(texts)}
        if len(ids) < 2:
            return incomplete
        nll = self.per_text(ids)
        error = _error(nll)
        expected = self.chain.entropy(self.length)
        gap = float(nll.mean()) - expected
        counts = pairs(ids, len(self.chain.initial), self.blocks)
        kl, (spread, _) = sampled_kl(counts, self.chain, len(ids))
        kl -= self._finite_sample(len(ids))
        return {
            **incomplete,
            **self._impossible(ids),
            "nll": float(nll.mean()),
            "nll_expected": expected,
            "nll_gap": gap,
            "nll_gap_low": gap - error,
            "nll_gap_high": gap + error,
            "transition_kl": kl,
            "transition_kl_low": kl - NORMAL * spread,
            "transition_kl_high": kl + NORMAL * spread,
        }

    def _impossible(self, ids: Tensor) -> dict[str, float]:
        if float(self.chain.transition.min()) > RARE:
            return {}
        share = self.chain.impossible(ids)
        mean, error = float(share.mean()), _error(share)
        return {
            "impossible": mean,
            "impossible_low": max(0.0, mean - error),
            "impossible_high": mean + error,
        }

    def _finite_sample(self, texts: int) -> float:
        if texts not in self._known:
            self._known[texts] = finite_sample_kl(self.chain, texts, self.length, self.draws)
        return self._known[texts]

    def per_text(self, ids: Tensor) -> Float[Tensor, "B"]:
        """The exact NLL of every text, nats per token; ``ids`` are the chain's own."""
        return self.chain.nll(ids)

    def ids(self, texts: Sequence[str]) -> Tensor:
        """The chain's tokens of ``texts``. Raises DataError if one is not a whole row."""
        rows = [self.tokenizer.encode(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) != self.length:
                raise DataError(f"{text!r} has {len(row)} tokens of the chain, not {self.length}")
        return torch.tensor(rows, dtype=torch.int64).view(-1, self.length) - 1


def _error(values: Float[Tensor, "B"]) -> float:
    """Half the width of a 95 % interval of their mean."""
    return NORMAL * float(values.std()) / math.sqrt(len(values))


def pairs(ids: Tensor, size: int, blocks: int) -> Float[Tensor, "G V V"]:
    """How often each token follows each other, in up to ``blocks`` groups of texts: text i is in
    group i mod ``blocks``."""
    groups = min(blocks, len(ids))
    block = torch.arange(len(ids)) % groups
    index = (block[:, None] * size + ids[:, :-1]) * size + ids[:, 1:]
    counts = torch.bincount(index.flatten(), minlength=groups * size * size)
    return counts.view(groups, size, size).double()


def transition_kl(counts: Float[Tensor, "V V"], chain: MarkovChain) -> float:
    """sum_a p(a) KL(sampled p(. | a) || the chain's): biased upwards, as samples are finite."""
    share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1.0)
    ratio = torch.where(counts > 0, share / chain.transition, 1.0)
    return float((counts * ratio.log()).sum() / counts.sum())


def sampled_kl(
    blocks: Float[Tensor, "G V V"], chain: MarkovChain, texts: int
) -> tuple[float, Jackknife]:
    """The KL of ``texts`` texts, and its error by leaving out one group of them at a time."""
    whole = blocks.sum(dim=0)
    value = transition_kl(whole, chain)
    left = [transition_kl(whole - block, chain) for block in blocks]
    return value, jackknife(value, left, texts)


def finite_sample_kl(chain: MarkovChain, texts: int, length: int, draws: int) -> float:
    """The mean KL that ``texts`` texts of the chain itself show, over ``draws`` samples."""
    size = len(chain.initial)
    values = [
        transition_kl(pairs(chain.sample(texts, length, seed), size, 1)[0], chain)
        for seed in range(draws)
    ]
    return sum(values) / draws
