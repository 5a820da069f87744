"""The likelihood of one text's end given its beginning, as benchmarks and perplexities need it.

A score depends on the model, the text, the seed and a key alone: a pass of the network holds
draws of one text only, so neither the texts beside it nor their order nor the number of processes
can move a bit of it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import MaskCorruption
from dlmkit.errors import UsageError
from dlmkit.evaluation import likelihood
from dlmkit.noise import Noise
from dlmkit.plugin import Config, Size
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, template

ORDER, COUNT = 0x11D3, 0x11D4
"""Domains of the noise, beside those of :mod:`dlmkit.evaluation.likelihood`."""


class Scoring(Config):
    """How a text is scored."""

    draws: Size = Field(
        128, ge=2, multiple_of=2, description="draws of the bound, for a text or for each block"
    )
    block: Size | None = Field(
        None,
        description="of masked models: tokens are scored in blocks of so many, left to right, what "
        "is behind a block being masked; 1 is exact and draws nothing (default: one block)",
    )
    previous: likelihood.Previous = Field(
        "unrolled",
        description="of continuous models: the previous prediction, zero or a first pass's",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of the draws")
    rows: Size = Field(
        32,
        description="draws of a text in one pass of the network: rounding depends on it, so it is "
        "a part of the protocol",
    )


def key(*ids: Sequence[int]) -> int:
    """A number below 2^62 that stands for these token ids, the same on every machine."""
    words = "|".join(" ".join(map(str, part)) for part in ids)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 2


class Scorer(ABC):
    """Scores texts under one model."""

    def __init__(self, parts: SamplingParts, options: Scoring) -> None:
        self.parts = parts.prepared()
        self.options = options

    @abstractmethod
    def nats(self, ids: Sequence[int], first: int, key: int) -> float:
        """-log p(ids from ``first`` on | ids before it), or a bound on it from above on average.

        ``key`` picks the draws. At least one token must be scored.
        """

    def keyed(self, ids: Sequence[int], first: int) -> float:
        """:meth:`nats`, its draws keyed by the tokens themselves."""
        return self.nats(ids, first, key(ids[:first], ids[first:]))

    @abstractmethod
    def greedy(self, ids: Sequence[int], first: int) -> bool:
        """Whether the likeliest token, one at a time from left to right, is always the text's."""

    @property
    @abstractmethod
    def method(self) -> str:
        """What :meth:`nats` is, in words."""


def scorer(parts: SamplingParts, options: Scoring) -> Scorer:
    """What scores by a model of ``parts``.

    Raises UsageError for a corruption of which no bound is known, and for options that the model
    has no use for.
    """
    corruption = parts.space.corruption
    if isinstance(corruption, MaskCorruption):
        if "previous" in options.model_fields_set:
            raise UsageError(
                f"previous: {options.previous} is of continuous models; a masked one reads no "
                "previous prediction"
            )
        return MaskedScorer(parts, options)
    if isinstance(corruption, GaussianCorruption):
        if options.block is not None:
            raise UsageError(
                f"block: {options.block} is of masked models; a continuous one is scored by the "
                "bound of all its tokens"
            )
        return GaussianScorer(parts, options)
    raise UsageError(
        "likelihood: a bound is known of masked tokens and of Gaussian corruption, and this model "
        f"has {type(corruption).__name__}"
    )


@dataclass(frozen=True)
class Views:
    """What a masked model is shown of one text. ``weight`` counts a view's masked tokens of its
    block; ``masked`` are all that it does not show."""

    masked: Bool[Tensor, "K L"]
    counted: Bool[Tensor, "K L"]
    weight: Float[Tensor, "K"]


class MaskedScorer(Scorer):
    """Of a masked model: the bound of any order, block after block.

    Of a block of n tokens, k are masked, k being uniform from 1 to n and stratified over the
    draws, and which ones is uniform. n / k times their cross-entropy is on average the negative
    log-likelihood of uncovering the block in random order, one token at a time: a bound on the
    model's own (2502.09992, equation 6; 2110.02037). A block of one token needs no draw.
    """

    def __init__(self, parts: SamplingParts, options: Scoring) -> None:
        super().__init__(parts, options)
        corruption = self.parts.space.corruption
        assert isinstance(corruption, MaskCorruption)
        self.mask = corruption.mask

    @property
    def method(self) -> str:
        if self.options.block == 1:
            return "exact, one token at a time from left to right"
        block = "the text" if self.options.block is None else f"blocks of {self.options.block}"
        return f"bound by {self.options.draws} keyed draws of {block}"

    @torch.no_grad()
    def nats(self, ids: Sequence[int], first: int, key: int) -> float:
        size = len(ids) - first
        block = min(self.options.block or size, size)
        blocks = [
            self._views(len(ids), start, min(start + block, len(ids)), key)
            for start in range(first, len(ids), block)
        ]
        fields = ("masked", "counted", "weight")
        joined = (torch.cat([getattr(views, name) for views in blocks]) for name in fields)
        return self._cross_entropy(ids, first, Views(*joined))

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], first: int) -> bool:
        text = torch.tensor(ids, device=self.parts.device)
        for start in range(first, len(ids)):
            views = self._views(len(ids), start, start + 1, 0)
            at = views.counted.nonzero(as_tuple=True)
            if int(self._logits(ids, first, views.masked, at).argmax()) != int(text[start]):
                return False
        return True

    def _views(self, length: int, start: int, stop: int, key: int) -> Views:
        """The views of the block of ``start`` to ``stop``; everything behind it is masked."""
        size, device = stop - start, self.parts.device
        place = torch.arange(length, device=device)
        behind = place >= stop
        if size == 1:
            counted = (place == start)[None]
            return Views(
                counted | behind, counted, torch.ones(1, dtype=torch.float64, device=device)
            )
        draws = self.options.draws
        row = torch.tensor([key], device=device)
        noise = Noise.keyed(self.options.seed, row, start)
        u = noise.fork(COUNT).uniform(0, (draws,), torch.float64)[0]
        stratum = (torch.arange(draws, device=device) + u) / draws
        count = 1 + (stratum * size).long().clamp(max=size - 1)
        rank = noise.fork(ORDER).uniform(0, (draws, size), torch.float64)[0].argsort(dim=1)
        counted = torch.zeros(draws, length, dtype=torch.bool, device=device)
        counted[:, start:stop] = rank.argsort(dim=1) < count[:, None]
        return Views(counted | behind, counted, size / count.double() / draws)

    def _cross_entropy(self, ids: Sequence[int], first: int, views: Views) -> float:
        text = torch.tensor(ids, device=self.parts.device)
        terms = []
        for rows in torch.arange(len(views.masked)).split(self.options.rows):
            at = views.counted[rows].nonzero(as_tuple=True)
            logs = self._logits(ids, first, views.masked[rows], at).double().log_softmax(dim=-1)
            of_views = torch.zeros(len(rows), dtype=torch.float64, device=text.device)
            nats = of_views.index_add(0, at[0], -logs.gather(-1, text[at[1]][:, None])[:, 0])
            terms.append(views.weight[rows] * nats)
        return float(torch.cat(terms).sum())

    def _logits(
        self, ids: Sequence[int], first: int, masked: Bool[Tensor, "K L"], at: tuple[Tensor, ...]
    ) -> Float[Tensor, "M V"]:
        """Of the positions ``at`` alone: of a text of L tokens, scored by one, L of L^2."""
        parts, count = self.parts, len(masked)
        asked = template([Request.prompt(0, ids[:first], len(ids))] * count, len(ids), parts.device)
        text = torch.tensor(ids, device=parts.device).expand(count, -1)
        x = torch.where(masked, self.mask, text)
        level = self._level(masked.sum(dim=1), len(ids) - first)
        denoise = parts.denoise
        conditioning = parts.known(parts.clean(text), asked)
        query = denoise(x, level, denoise.start(x), conditioning).query
        return parts.space.logits(query[at][None])[0]

    def _level(self, masked: Int[Tensor, "K"], scored: int) -> Level:
        """That at which as many tokens are masked, within the schedule's times."""
        schedule = self.parts.schedule
        share = masked.double() / scored
        t = schedule.inverse(share / (1.0 - share).clamp(min=1e-12))
        level = schedule.level(t.clamp(schedule.t_min, schedule.t_max))
        return Level(level.alpha.to(self.parts.dtype), level.sigma.to(self.parts.dtype))


class GaussianScorer(Scorer):
    """Of a continuous model: the variational bound of :func:`dlmkit.evaluation.likelihood.bound`,
    the beginning of the text being given."""

    def __init__(self, parts: SamplingParts, options: Scoring) -> None:
        super().__init__(parts, options)
        self.subject = likelihood.GaussianModel(parts.denoise, parts.space, parts.schedule)

    @property
    def method(self) -> str:
        return f"bound by {self.options.draws} keyed draws, {self.options.previous} predictions"

    @torch.no_grad()
    def nats(self, ids: Sequence[int], first: int, key: int) -> float:
        asked = template([Request.prompt(0, ids[:first], len(ids))], len(ids), self.parts.device)
        text = torch.tensor([list(ids)], device=self.parts.device)
        bound = likelihood.MonteCarloBound(
            draws=self.options.draws,
            previous=self.options.previous,
            seed=self.options.seed,
            batch_size=self.options.rows,
        )
        return likelihood.conditional(self.subject, text, asked.given, key, bound)

    def greedy(self, ids: Sequence[int], first: int) -> bool:
        """Never: a continuous model decides all tokens together."""
        return False
