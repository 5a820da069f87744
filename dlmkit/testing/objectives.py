"""Checks of objectives, with networks that know the answer in place of trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, Objective, Slots
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.rows import take
from dlmkit.testing.compare import Exercise, agree, copied, finite, pure, require
from dlmkit.testing.parts import LENGTH, WORDS
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check
from dlmkit.types import Embedded, Query

KIND = "objective"
ROWS = 8


class Oracle(ScoreNetwork):
    """Knows the rows' tokens: a certain and right answer, or a wrong one at given positions.

    ``ids`` are those of the rows it is called with; it finds its rows by their noisy input, so
    that an objective may call it with some of them.
    """

    def __init__(self, queries: Tensor, wrong_when_given: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("queries", queries)
        self.wrong_when_given = wrong_when_given
        self.ids = torch.zeros(0, 0, dtype=torch.int64)
        self.calls = 0
        self.outside = 0
        self.register_forward_pre_hook(self._count)

    queries: Tensor

    def _count(self, module: nn.Module, arguments: object) -> None:
        self.calls += 1

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        self.outside += 1
        ids = self.ids[: len(x)]
        if self.wrong_when_given:
            other = 2 + (ids - 1) % len(WORDS)
            ids = torch.where(conditioning.given | ~conditioning.attend, other, ids)
        return self.queries[ids] * self.scale + 0.0 * x.sum()

    def shard_units(self) -> Sequence[nn.Module]:
        return ()


class Ignorant(Oracle):
    """Knows nothing: every token is as likely as the others."""

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        return self.queries.new_zeros(*x.shape[:2], self.queries.shape[1]) * self.scale


class ReadsPrevious(Oracle):
    """Knows nothing, and answers by how large the previous prediction is."""

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        seen = previous.to(x.dtype).abs().mean(dim=-1, keepdim=True)
        return (self.queries[2] * seen + self.queries[3]) * self.scale


def batch(rows: int = ROWS) -> Batch:
    """Random words; the last k positions of row k are padding."""
    u = Noise.keyed(3, torch.arange(rows), 0).uniform(0, (LENGTH,))
    attend = torch.arange(LENGTH) < (LENGTH - torch.arange(rows) % 4)[:, None]
    ids = 2 + (u * len(WORDS)).long()
    return Batch(torch.where(attend, ids, 0), attend)


def draws(rows: int = ROWS) -> Draws:
    """Stratified u, and noise keyed by slot."""
    slots = torch.arange(rows)
    return Draws((slots + 0.5) / rows, Noise.keyed(3, slots, 1))


def with_network(subject: Subject, network: type[Oracle], **options: bool) -> Objective:
    """The objective around ``network``, which is told the tokens of :func:`batch`."""
    context = subject.context
    knowing = network(subject.oracle, **options)
    knowing.ids = batch().ids
    parts = {**context.parts, "network": knowing}
    objective: Objective = subject.build(replace(context, parts=parts))
    return objective


def noised() -> Tensor:
    """The noised positions of :func:`batch` under the kit's masking."""
    attend = batch().attend
    half = attend.sum(dim=1, keepdim=True) // 2
    return attend & (attend.long().cumsum(dim=1) > half)


def mean(parts: LossParts) -> float:
    """The loss a noised position."""
    return (parts.loss_sum / parts.count).item()


def _exercise(subject: Subject) -> Exercise:
    objective = with_network(subject, Ignorant)

    def call(batch: Batch, draws: Draws) -> tuple[Tensor, ...]:
        parts: LossParts = objective(batch, draws)
        return parts.per_row, parts.t, parts.pdf, parts.unconditional

    return Exercise(call, (batch(), draws()), 1e-5)


pure(KIND, _exercise)


def _padding_changed(given: Batch) -> Batch:
    return Batch(torch.where(given.attend, given.ids, 5), given.attend)


@check(KIND)
def oracle_has_no_loss(subject: Subject) -> None:
    """A network that knows every token has a loss of nearly nothing"""
    loss = mean(with_network(subject, Oracle)(batch(), draws()))
    require(abs(loss) < 0.02, f"its loss is {loss:.3g} nats per position")


@check(KIND)
def padding_does_not_count(subject: Subject) -> None:
    """What stands at padding changes neither the loss nor the count"""
    objective = with_network(subject, Ignorant)
    first, other = (objective(rows, draws()) for rows in (batch(), _padding_changed(batch())))
    agree(
        (other.loss_sum, other.count),
        (first.loss_sum, first.count),
        "losses with other padding",
        1e-6,
    )


@check(KIND)
def given_does_not_count(subject: Subject) -> None:
    """What the network says at given positions and at padding changes no loss"""
    loss = mean(with_network(subject, Oracle, wrong_when_given=True)(batch(), draws()))
    require(abs(loss) < 0.02, f"answers wrong only there cost {loss:.3g} nats per position")


@check(KIND)
def counts_noised_positions(subject: Subject) -> None:
    """count is the number of noised positions, and per_row their mean in each row"""
    parts = with_network(subject, Ignorant)(batch(), draws())
    expected = int(noised().sum())
    require(int(parts.count) == expected, f"count is {float(parts.count):g}, not {expected}")
    rows = noised().sum(dim=1)
    total = (parts.per_row * rows).sum()
    agree(total, parts.loss_sum, "per_row times each row's count, and loss_sum", 1e-5)


@check(KIND)
def rows_report_detached(subject: Subject) -> None:
    """per_row, t and pdf carry no graph, and loss_sum does"""
    parts = with_network(subject, Ignorant)(batch(), draws())
    require(parts.loss_sum.requires_grad, "loss_sum carries no gradient")
    for name in ("per_row", "t", "pdf"):
        require(not getattr(parts, name).requires_grad, f"{name} still carries the graph")


@check(KIND)
def losses_add_up(subject: Subject) -> None:
    """The loss sum and count of a batch are those of its passes, added, however many there are"""
    objective = with_network(subject, ReadsPrevious)
    whole = objective(batch(), draws())
    for count in (2, ROWS):
        parts = [_part(objective, Slots(ROWS, first, count, first)) for first in range(count)]
        what = f"of {count} passes (see Draws.shown if the objective shows first predictions)"
        agree(
            sum(part.loss_sum for part in parts), whole.loss_sum, f"its loss and that {what}", 1e-5
        )
        agree(sum(part.count for part in parts), whole.count, f"its count and that {what}")


def _part(objective: Objective, slots: Slots) -> LossParts:
    rows, keys = take((batch(), draws()), slots.index())
    parts: LossParts = objective(rows, replace(keys, slots=slots))
    return parts


@check(KIND)
def times_follow_the_schedule(subject: Subject) -> None:
    """t is the schedule's quantile of u, pdf its density there, unconditional the rows so"""
    objective = with_network(subject, Ignorant)
    parts = objective(batch(), draws())
    agree(parts.t, objective.schedule.quantile(draws().u), "t and quantile(u)", 1e-6)
    agree(parts.pdf, objective.schedule.pdf(parts.t), "pdf and the schedule's", 1e-6)
    require(not parts.unconditional.any(), "rows with given positions are marked unconditional")


@check(KIND)
def trains_through_forward(subject: Subject) -> None:
    """forward alone gives every parameter a gradient, and calls the network as a module"""
    objective = with_network(subject, Oracle).train()
    parts = objective(batch(), draws())
    parts.loss_sum.backward()
    network: Any = objective.network
    require(isinstance(network, Oracle), "its network is not the one it was given")
    require(
        network.outside > 0 and network.calls == network.outside,
        "the network's forward was called past its hooks; call the module itself",
    )
    for name, parameter in objective.named_parameters():
        require(parameter.grad is not None, f"{name} gets no gradient")
        finite(parameter.grad, f"the gradient of {name}")


@check(KIND)
def holds_its_parts(subject: Subject) -> None:
    """space, network and schedule are its submodules, so that one state_dict holds everything"""
    objective = subject.build()
    children = set(objective.children())
    for name in ("space", "network", "schedule"):
        require(getattr(objective, name, None) in children, f"{name} is no submodule of it")


@check(KIND)
@torch.no_grad()
def denoiser_reads_the_space(subject: Subject) -> None:
    """Its denoiser's lse and x0_mean are what the space reads of the query, row by row"""
    objective = with_network(subject, Oracle).eval()
    denoise, space, rows = objective.denoise(), objective.space, batch()
    x0 = space.embed(rows.ids)
    level = objective.schedule.level(objective.schedule.quantile(draws().u))
    x = space.corruption.corrupt(x0, level, draws().noise)
    read = space.corruption.input(x0, Level(torch.ones(ROWS), torch.zeros(ROWS)))
    conditioning = Conditioning.of(read, rows.attend & ~noised(), rows.attend)
    prediction = denoise(x, level, denoise.start(x), conditioning)
    expected = space.read(prediction.query)
    agree((prediction.x0_mean, prediction.lse), expected, "x0_mean and lse, and read", 1e-4)
    tokens = space.decode(x0, prediction.query)[noised()]
    agree(tokens, rows.ids[noised()], "the oracle's tokens and the denoiser's")
    again = denoise(x, level, copied(prediction.feedback), conditioning)
    require(again.query.shape == prediction.query.shape, "its feedback cannot be fed back")
