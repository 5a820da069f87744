"""Checks of objectives by losses that are known: of no knowledge, and of the exact posterior.

Text of a Markov chain is noised by the objective itself, and the network answers with what makes
its denoiser's prediction the exact posterior of every token, or uniform. The posterior is true to
what it does not know: on average the loss of the right token is the posterior's own entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, LossParts, Objective
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.testing.compare import require
from dlmkit.testing.markov import MarkovChain
from dlmkit.testing.objectives import KIND, draws, mean
from dlmkit.testing.outcome import NotApplicable
from dlmkit.testing.parts import KIT, LENGTH, Nothing, Tied
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check
from dlmkit.types import Embedded, Logits, Query

ERRORS = 4.0
"""Monte-Carlo standard errors that a loss may be off."""


class ChannelPerToken(Tied):
    """A tied space with a channel per token: every distribution is some query's."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__(config, context)
        self.dim = self.query_dim = self.vocab_size
        self.weight = nn.Parameter(torch.eye(self.vocab_size))


class Exact(ScoreNetwork):
    """Answers so that its denoiser predicts the exact posterior of ``ids``, or ``uniform``.

    A denoiser may add to the network's query what it knows itself: that is found by asking it
    with a silent network, and taken away. ``x`` is found by what the corruption made of it.
    """

    def __init__(self, space: EmbeddingSpace, chain: MarkovChain, batch: Batch) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.space, self.chain, self.batch = space, chain, batch
        self.queries = _inverse(space)
        self.read: list[tuple[Tensor, Tensor]] = []
        self.silent = self.uniform = False
        self.denoise: Callable[[], Any] = lambda: None
        self.answered: Logits = torch.zeros(0)
        self.noised = batch.attend
        inner = space.corruption.input

        def remember(x: Tensor, level: Level) -> Embedded:
            self.read.append((inner(x, level), x))
            return self.read[-1][0]

        space.corruption.input = remember  # type: ignore[method-assign]

    @torch.no_grad()
    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        if self.silent:
            return x.new_zeros(*x.shape[:2], self.space.query_dim)
        noisy = self._noisy(x)
        self.silent = True
        alone = self.denoise()(noisy, level, previous, conditioning).query
        self.silent = False
        said = self.posterior(noisy, level, conditioning)
        self.answered, self.noised = said, conditioning.attend & ~conditioning.given
        query: Query = (said - self.space.logits(alone).double()) @ self.queries
        return query.to(x.dtype)

    def _noisy(self, read: Embedded) -> Tensor:
        for made, x in reversed(self.read):
            if torch.equal(made, read):
                return x
        raise NotApplicable("its network does not read what the corruption makes of x")

    def posterior(self, x: Tensor, level: Level, conditioning: Conditioning) -> Logits:
        """log p(token | x, what is given) at the level that the network is told."""
        likelihood = bayes.log_likelihood(self.space, x, level)
        if likelihood is None:
            raise NotApplicable("its corruption has no likelihood in closed form")
        if self.uniform:
            return torch.zeros_like(likelihood, dtype=torch.float64)
        ids = self.batch.ids[: len(x)]
        known = nn.functional.one_hot(ids, self.space.vocab_size).double().log()
        likelihood = torch.where(conditioning.given[..., None], known, likelihood.double())
        likelihood = torch.where(conditioning.attend[..., None], likelihood, 0.0)
        return bayes.bigram(likelihood, self.chain.initial, self.chain.transition)

    def shard_units(self) -> Sequence[nn.Module]:
        return ()


@torch.no_grad()
def _inverse(space: EmbeddingSpace) -> Tensor:
    """What turns logits into a query that has them, (V, Q)."""
    nothing = torch.zeros(1, 1, space.query_dim)
    units = torch.eye(space.query_dim)[None]
    matrix = (space.logits(units) - space.logits(nothing))[0].double()
    if torch.linalg.matrix_rank(matrix) < space.vocab_size - 1:
        raise NotApplicable("its space cannot say every distribution")
    inverse: Tensor = torch.linalg.pinv(matrix)
    return inverse


def exact(subject: Subject, rows: int, uniform: bool = False) -> tuple[Objective, Exact, Batch]:
    """The objective around :class:`Exact`, and the rows of Markov text that the network knows."""
    torch.manual_seed(0)
    context = subject.context
    space = context.part("space")
    if isinstance(space, Tied):
        space = ChannelPerToken(Nothing(), context)
    chain = MarkovChain.random(space.vocab_size)
    ids = chain.sample(rows, LENGTH)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    network = Exact(space, chain, batch)
    network.uniform = uniform
    parts = {"space": space, "network": network, "schedule": _schedule(subject, context)}
    objective: Objective = subject.build(replace(context, parts={**context.parts, **parts})).eval()
    network.denoise = objective.denoise
    return objective, network, batch


def _schedule(subject: Subject, context: BuildContext) -> Any:
    """The schedule beside it, or one of its space's own plugin: its levels reach both ends."""
    space, chosen = subject.beside["space"].plugin, subject.beside["schedule"].plugin
    beside = [e for e in subject.registry.components("schedule") if e.plugin == space]
    if space == KIT.name or chosen != KIT.name or not beside:
        return context.part("schedule")
    return subject.make(beside[0], context)


@torch.no_grad()
def _loss(objective: Objective, network: Exact, batch: Batch) -> LossParts:
    """Its loss. Raises NotApplicable if its denoiser does more than add to the network's query."""
    parts: LossParts = objective(batch, draws(len(batch.ids)))
    rows = torch.arange(len(batch.ids)) < 8
    x0 = objective.space.embed(batch.ids[rows])
    level = objective.schedule.level(parts.t[rows])
    x = objective.space.corruption.corrupt(x0, level, draws(8).noise)
    everywhere = batch.attend[rows]
    clean = objective.space.corruption.input(x, level) * 0.0
    said, noised = network.answered, network.noised
    denoise = objective.denoise()
    nothing = Conditioning(~everywhere, clean, everywhere)
    query = denoise(x, level, denoise.start(x), nothing).query
    probabilities = objective.space.logits(query).double().softmax(dim=-1)
    gap = (probabilities - network.answered.softmax(dim=-1)).abs().max()
    if gap > 1e-3:
        raise NotApplicable("its denoiser does more than add to what the network says")
    network.answered, network.noised = said, noised
    return parts


def _claims(subject: Subject, capability: str) -> None:
    if capability not in subject.component.provides:
        raise NotApplicable(f"it does not provide {capability}")


@check(KIND)
def ignorance_costs_log_v(subject: Subject) -> None:
    """Where it provides cross-entropy, knowing nothing costs log V nats per noised position"""
    _claims(subject, "cross-entropy")
    objective, network, batch = exact(subject, 8, uniform=True)
    loss, expected = mean(_loss(objective, network, batch)), math.log(objective.space.vocab_size)
    require(abs(loss - expected) < 1e-3, f"its loss is {loss:.5g}, and log V is {expected:.5g}")


@check(KIND)
def posterior_costs_its_entropy(subject: Subject) -> None:
    """Where it provides cross-entropy, the exact posterior's loss is that posterior's entropy"""
    _claims(subject, "cross-entropy")
    objective, network, batch = exact(subject, 1024)
    parts = _loss(objective, network, batch)
    log_p, noised = network.answered.log_softmax(dim=-1), network.noised
    entropy = torch.where(noised, -(log_p.exp() * log_p).sum(dim=-1), 0.0).sum(dim=1)
    expected = entropy / noised.sum(dim=1).clamp(min=1)
    _near(mean(parts), float(entropy.sum() / noised.sum()), (parts.per_row - expected).std(), 1024)


@check(KIND)
def bound_is_the_entropy(subject: Subject) -> None:
    """Where it provides likelihood-bound, the exact posterior's loss is the text's entropy"""
    _claims(subject, "likelihood-bound")
    objective, network, batch = exact(subject, 4096)
    parts = _loss(objective, network, batch)
    # the kit's masking gives the first half, so that every noised token follows a known one
    chain = network.chain
    step = -(chain.initial[:, None] * chain.transition * chain.transition.log()).sum()
    _near(mean(parts), float(step), parts.per_row.std(), 4096, 0.03)


def _near(loss: float, known: float, spread: Tensor, rows: int, slack: float = 1e-3) -> None:
    """``slack`` is for ends that a bound leaves out: levels that are not quite clean or noise."""
    allowed = ERRORS * float(spread) / math.sqrt(rows) + slack
    require(
        abs(loss - known) <= allowed,
        f"its loss is {loss:.4f} nats per position, not {known:.4f} +- {allowed:.4f}",
    )
