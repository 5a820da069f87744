"""Decoding runs that LLaDA's, Dream's and Fast-dLLM's authors recorded, again by the parts of
`masked`, at temperature 0.

LLaDA: 2502.09992; Dream: 2508.15487; Fast-dLLM: 2505.22618.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.candidates import Candidates, inverse
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.importer import Decoded, Taken
from dlmkit.core.objective import Objective
from dlmkit.core.order import Order
from dlmkit.core.quota import Quota
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.types import Ids, Index, Logits, Mask
from dlmkit_masked import configs
from dlmkit_masked.decoder import Decoder
from dlmkit_masked.draw import likely

Predict = Callable[[Ids], Logits]
"""The logits of each position's own token."""


class BatchMean(Quota):
    """Dream's: of the masks of all rows on average the level's share, cut to a whole number.

    A fault of the reference that its recorded runs have: a row depends on its batch, and a step may
    write nothing. `masked:schedule` with ``shape: level`` is what it means.
    """

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        step = candidates.step
        share = 1.0 - step.next.sigma[0] / step.here.sigma[0]
        count = int(candidates.masked.sum() / len(rank) * share)
        return (rank < count) & candidates.open, memory


@dataclass(frozen=True)
class Leftover(Quota):
    """Fast-dLLM's on Dream: of an even share of the masks and what earlier steps left over, those
    that are certain enough, and at least one."""

    threshold: float
    steps: int
    mask: int

    def init(self, x: Tensor) -> tuple[Index, Index]:
        masks = (x == self.mask).sum(dim=1)
        return masks // self.steps, torch.zeros_like(masks)

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        share, left = memory
        within = (rank < (share + left).clamp(min=1)[:, None]) & candidates.open
        sure = candidates.certainty.first >= math.log(self.threshold)
        chosen = within & (sure | (rank == 0))
        return chosen, (share, within.sum(dim=1) - chosen.sum(dim=1))


@dataclass(frozen=True)
class Even(Quota):
    """LLaDA's: the tokens of a block over its ``steps``, what does not go into them evenly over the
    first. Steps beyond the tokens write nothing, as does one that is spent on predicting the mask:
    `masked:schedule` counts what is masked and spends no step so."""

    tokens: int
    steps: int

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        index = candidates.step.index % self.steps
        count = self.tokens // self.steps + (index < self.tokens % self.steps).long()
        return (rank < count[:, None]) & candidates.open, memory


@dataclass(frozen=True)
class LastTwo(Quota):
    """Fast-dLLM's factor: where ``factor`` would leave one position alone, its code takes it too, a
    fault that its recorded runs have."""

    factor: Quota

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        chosen, memory = self.factor.accept(rank, candidates, memory)
        alone = candidates.open.sum(dim=1) - chosen.sum(dim=1) == 1
        return torch.where(alone[:, None], candidates.open, chosen), memory


@dataclass(frozen=True)
class InBlocks(Quota):
    """``quota`` in blocks of ``size`` behind ``first`` positions, of all rows at once.

    A block ends with its ``steps``, else where no row has a mask in it. What an ended one left
    masked may still be written.
    """

    quota: Quota
    first: int
    size: int
    steps: int | None = None

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        block = (torch.arange(rank.shape[1], device=rank.device) - self.first) // self.size
        if self.steps is None:
            now = block[candidates.open.any(dim=0)].min()
        else:
            now = candidates.step.index[0] // self.steps
        here = replace(candidates, open=candidates.open & (block <= now))
        within = rank.masked_fill(~here.open, rank.shape[1]).argsort(dim=1)
        return self.quota.accept(inverse(within), here, memory)


class FromRecord(Quota):
    """The positions that a run took by random numbers, which nothing here draws again."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.places = [(t["step"], t["row"], t["positions"]) for t in run["steps"]]

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        chosen = torch.zeros_like(candidates.open)
        for step, row, places in self.places:
            if step == int(candidates.step.index[0]):
                chosen[row, places] = True
        return chosen & candidates.open, memory


@dataclass(frozen=True)
class DecodingSettings:
    """How a run was decoded: by an order and a quota, in ``steps`` steps, of which the levels are
    those of the masked ``shares``, if any; at most, if it ends where no mask is left
    (``until_done``)."""

    order: str
    quota: Quota
    steps: int
    shares: Tensor | None = None
    until_done: bool = False


def part(objective: Objective, kind: str, name: str, **options: Any) -> Any:
    """The part ``name`` of `masked`, as a recipe builds it."""
    chosen = Part(use=f"masked:{name}", options=options)
    return Registry.load(third_party=False).build(kind, chosen, _context(objective))


def _context(objective: Objective, **more: Any) -> BuildContext:
    parts = {"space": objective.space, "schedule": objective.schedule}
    return BuildContext(length=0, vocab_size=objective.space.vocab_size, parts=parts, **more)


def decode(
    predict: Predict, ids: Ids, mask: int, objective: Objective, how: DecodingSettings
) -> Decoded:
    """``ids``, whose masks are written step by step."""
    order: Order = part(objective, "order", how.order)
    built = {"order": order, "quota": how.quota}
    context = _context(objective, build=lambda kind, _: built[kind])
    decoder = Decoder(configs.Decoder(draw=configs.Draw(temperature=0.0)), context)
    decoder.mask = mask
    generated = ids == mask
    # at the level 0 the decoder writes all that is left, and no reference does
    shares = torch.ones(how.steps + 1) if how.shares is None else how.shares
    noise = Noise.keyed(0, torch.arange(len(ids), device=ids.device), 0)
    state, taken, calls = decoder.init(ids), list[Taken](), 0

    def denoise(x: Tensor, level: Level, previous: Any) -> Prediction:
        logits = predict(x)
        return Prediction(x, logits, logits.logsumexp(dim=-1), x, ())

    for index in range(how.steps):
        here, after = (
            Level(1.0 - share, share)
            for share in shares[index : index + 2].to(ids.device)[:, None].expand(2, len(ids))
        )
        now = replace(
            Step.between(ids, here, after, noise, (), index, how.steps), generated=generated
        )
        before = ids
        ids, prediction, state = decoder.step(denoise, ids, now, state)
        calls += 1
        confidence = _confidence(how.order, prediction.query)
        for row in range(len(ids)):
            places = (ids[row] != before[row]).nonzero()[:, 0]
            sure = None if isinstance(how.quota, FromRecord) else confidence[row, places].tolist()
            taken.append(Taken(index, row, places.tolist(), ids[row, places].tolist(), sure))
        if how.until_done and not bool((ids == mask).any()):
            break
    return Decoded(ids, calls, taken)


def _confidence(order: str, logits: Logits) -> Tensor:
    """What the reference recorded of each position: p of the likeliest token, its lead over the
    runner-up's, or minus the entropy."""
    p = logits.double().softmax(dim=-1)
    if order == "entropy":
        entropy: Tensor = torch.special.entr(p).sum(dim=-1)
        return -entropy
    two = p.topk(2, dim=-1).values
    return two[..., 0] - two[..., 1] if order == "margin" else two[..., 0]


def likeliest(predict: Predict, top_p: float, top_k: int | None) -> Predict:
    """Logits of the likeliest tokens alone, first by their probability and then by their number:
    Dream is confident of what is left, and so by the draw that it does not make at temperature 0.
    """
    cuts = [configs.Draw(top_p=top_p), configs.Draw(top_k=top_k)]

    def cut(ids: Ids) -> Logits:
        whole = predict(ids)
        logits = whole.flatten(0, 1)
        for draw in cuts:
            logits = likely(logits, draw)
        # finite, as theirs are: nothing times minus infinity is not a number
        return logits.clamp(min=torch.finfo(logits.dtype).min).view_as(whole)

    return cut


def guided(predict: Predict, unconditional: Callable[[Ids], Ids], scale: float) -> Predict:
    """Logits pushed away from those of the row without its prompt: u + (scale + 1)(c - u)."""

    def both(ids: Ids) -> Logits:
        logits, without = predict(torch.cat((ids, unconditional(ids)))).chunk(2)
        return without + (scale + 1.0) * (logits - without)

    return both
