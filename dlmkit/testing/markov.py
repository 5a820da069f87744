"""An exact test-bed: Markov text in Gaussian noise or under masks, with its exact posterior.

Tokens follow a Markov chain with known transitions; embeddings have unit variance and noise is
Gaussian, or tokens are masked. Forward-backward gives the posterior of every token exactly. That
is a perfect score network without training, with a known entropy and a known likelihood of every
sample: samplers, grids, likelihood estimators, exit rules and decoding orders are checked against
it in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, PerRow, Probabilities, Query

RARE = 1e-6
"""The share of a token's transitions that all but its ``successors`` have in common."""


@dataclass(frozen=True)
class MarkovChain:
    """A stationary chain: ``transition[a, b]`` = p(b | a), all positive; both float64."""

    initial: Float[Tensor, "V"]
    transition: Float[Tensor, "V V"]

    @staticmethod
    def random(
        vocab_size: int, sharpness: float = 2.0, seed: int = 0, successors: int | None = None
    ) -> MarkovChain:
        """A chain whose log-transitions are normal with standard deviation ``sharpness``.

        With ``successors`` a token is followed by that many others, its likeliest, and by the rest
        once in a million (:data:`RARE`): what to all purposes cannot be still has a likelihood,
        and a posterior exists whatever was written. Raises ValueError unless it is at least 1 and
        less than ``vocab_size``.
        """
        noise = Noise.keyed(seed, torch.arange(vocab_size), 0)
        transition = (sharpness * noise.normal(0, (vocab_size,), torch.float64)).softmax(dim=1)
        if successors is not None:
            if not 1 <= successors < vocab_size:
                raise ValueError(f"successors ({successors}) is from 1 to {vocab_size - 1}")
            usual = torch.zeros_like(transition, dtype=torch.bool)
            usual.scatter_(1, transition.topk(successors, dim=1).indices, True)
            rest = RARE / (vocab_size - successors)
            shares = torch.where(usual, transition, 0.0)
            shares = (1.0 - RARE) * shares / shares.sum(dim=1, keepdim=True)
            transition = torch.where(usual, shares, rest)
        return MarkovChain(stationary(transition), transition)

    def impossible(self, ids: Ids) -> Float[Tensor, "B"]:
        """Of each row's L - 1 transitions, the share that the chain makes once in a million."""
        taken = self.transition[ids[:, :-1], ids[:, 1:]]
        return (taken <= RARE).double().mean(dim=1)

    def entropy(self, length: int) -> float:
        """The entropy of a text of ``length`` tokens, nats per token."""
        start = -(self.initial * self.initial.log()).sum()
        step = -(self.initial[:, None] * self.transition * self.transition.log()).sum()
        return float(start + (length - 1) * step) / length

    def nll(self, ids: Ids) -> PerRow:
        """The exact negative log-likelihood of every row, nats per token."""
        steps = self.transition.log()[ids[:, :-1], ids[:, 1:]].sum(dim=1)
        return -(self.initial.log()[ids[:, 0]] + steps) / ids.shape[1]

    def sample(self, count: int, length: int, seed: int = 0) -> Ids:
        """``count`` texts drawn from the chain itself."""
        return self.draw(Noise.keyed(seed, torch.arange(count), 1), length)

    def draw(self, noise: Noise, length: int) -> Ids:
        """One text of ``length`` tokens of each key of ``noise``."""
        u = noise.uniform(0, (length,), torch.float64)
        ids, cdf = [], self.initial.expand(len(u), -1).cumsum(dim=1)
        for position in range(length):
            token = (u[:, position, None] >= cdf).sum(dim=1).clamp(max=len(self.initial) - 1)
            ids.append(token)
            cdf = self.transition[token].cumsum(dim=1)
        return torch.stack(ids, dim=1)


def stationary(transition: Float[Tensor, "V V"]) -> Float[Tensor, "V"]:
    """The distribution that ``transition``, all positive, keeps.

    By elimination without subtraction (Grassmann, Taksar and Heyman 1985), element by element:
    the same bits every time, which LAPACK's solvers are not.
    """
    rest = transition.clone()
    for n in range(len(rest) - 1, 0, -1):
        rest[:n, n] /= rest[n, :n].sum()
        rest[:n, :n] += rest[:n, n, None] * rest[n, None, :n]
    weight = torch.ones_like(rest[0])
    for n in range(1, len(rest)):
        weight[n] = (weight[:n] * rest[:n, n]).sum()
    return weight / weight.sum()


class MarkovSpace(EmbeddingSpace):
    """Fixed random embeddings of norm sqrt(D); the query is the logits themselves."""

    table: Tensor

    def __init__(self, vocab_size: int, dim: int, seed: int = 0) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = vocab_size
        self.dim = dim
        self.corruption = GaussianCorruption()
        raw = Noise.keyed(seed, torch.arange(vocab_size), 2).normal(0, (dim,), torch.float64)
        self.register_buffer("table", nn.functional.normalize(raw, dim=1) * math.sqrt(dim))

    def embed(self, ids: Ids) -> Embedded:
        return self.table[ids]

    def logits(self, query: Query) -> Logits:
        return query

    def expect(self, probabilities: Probabilities) -> Embedded:
        return probabilities @ self.table.to(probabilities.dtype)


class ChainNetwork(ScoreNetwork):
    """One that knows ``chain`` and has nothing to train; ``space`` says what it reads."""

    space: EmbeddingSpace
    initial: Tensor
    transition: Tensor

    def __init__(self, chain: MarkovChain, space: EmbeddingSpace) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("initial", chain.initial)
        self.register_buffer("transition", chain.transition)

    def shard_units(self) -> Sequence[nn.Module]:
        return ()


class MarkovNetwork(ChainNetwork):
    """The exact log-posterior of every token, computed in float64 whatever the dtype of x.

    Given positions are known for certain, unless conditioning was dropped: then they, like
    padding, say nothing. Texts begin at position 0, so padding must follow them.
    """

    space: MarkovSpace

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        level = Level(level.alpha.double(), level.sigma.double())
        alpha, sigma = level.like(x.double())
        noisy = x.double() * torch.sqrt(alpha.square() + sigma.square())
        likelihood = bayes.log_likelihood(self.space, noisy, level)
        assert likelihood is not None
        likelihood = torch.where(
            conditioning.given[..., None], self._known(conditioning), likelihood
        )
        likelihood = torch.where(conditioning.attend[..., None], likelihood, 0.0)
        posterior = bayes.bigram(likelihood, self.initial, self.transition)
        return posterior.to(x.dtype)

    def _known(self, conditioning: Conditioning) -> Logits:
        clean = conditioning.clean.double()
        distance = torch.cdist(clean, self.space.table.double().expand(len(clean), -1, -1))
        tokens = torch.arange(self.space.vocab_size, device=clean.device)
        certain = torch.where(distance.argmin(dim=-1)[..., None] == tokens, 0.0, -torch.inf)
        return torch.where(clean.abs().sum(dim=-1, keepdim=True) > 0, certain, 0.0)


class MaskedMarkovNetwork(ChainNetwork):
    """The exact log-posterior of every token given the uncovered ones, computed in float64.

    It reads nothing but what the space shows of a row: a position that shows a token (as the space
    embeds it) is known for certain, and any other says nothing. So does padding, and so do given
    positions whose conditioning was dropped. Texts begin at position 0; padding must follow them.
    """

    reads_level = False

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        tokens = torch.arange(self.space.vocab_size, device=x.device)
        shown = self.space.corruption.input(self.space.embed(tokens[None]), level)[0]
        seen = torch.where(conditioning.given[..., None], conditioning.clean.to(x), x)
        same = (seen[..., None, :] == shown).all(dim=-1) & conditioning.attend[..., None]
        known = same.any(dim=-1, keepdim=True)
        likelihood = torch.where(known & ~same, -torch.inf, 0.0).to(self.initial)
        return bayes.bigram(likelihood, self.initial, self.transition).to(x.dtype)


def markov_denoise(chain: MarkovChain, dim: int = 16, seed: int = 0) -> ModelDenoise:
    """The exact denoiser of ``chain`` in a random space of ``dim`` channels, in float64."""
    space = MarkovSpace(len(chain.initial), dim, seed)
    return ModelDenoise(space, MarkovNetwork(chain, space))
