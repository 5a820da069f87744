"""Objectives that turn a decoder of next tokens into one of masked tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.objective import MASKING, Batch, Draws, LossParts
from dlmkit.core.options import Nothing
from dlmkit.core.tokens import masked_share, masking_rate
from dlmkit.errors import RecipeError
from dlmkit.types import Mask, PerPosition
from dlmkit_hf.models import HfDecoder
from dlmkit_mdlm.objective import MaskedBound, MaskedDenoise
from dlmkit_tune import configs

ATTENTION, TIME, COVERED = range(16, 19)


class Adapting(MaskedBound):
    """MDLM's bound of a decoder whose attention opens while it trains.

    What stands ahead of a position is seen by chance, position by position and anew in every row,
    and the chance rises linearly with the step (DiffuLLaMA, 2410.17891, section 3.2). Outside
    training attention is open.
    """

    network: HfDecoder

    def __init__(self, config: configs.Adapting, context: BuildContext) -> None:
        super().__init__(config, context)
        self.anneal = config.anneal

    def trained(self, batch: Batch, draws: Draws) -> MaskedDenoise:
        denoise = self.denoise()
        if self.anneal is not None and draws.step is not None:
            length = batch.ids.shape[1]
            drawn = draws.noise.fork(ATTENTION).uniform(0, (length, length))
            opened = drawn < draws.risen(self.anneal)
            denoise.network = self.network.annealed(opened)
        return denoise


class Blocks(MaskedBound):
    """BD3-LM's bound (2503.09573, equation 8) of a decoder that attends block by block.

    A row goes through the network twice, at once: noised, and clean. A block of the noised half
    sees itself and the clean blocks before it, and a clean one what attention lets it see; so each
    block is predicted from clean ones, as when a text is written block by block. Every block has a
    time of its own; those of a row are spread evenly. Where the network's logits are shifted by
    one, the first of a block are those of the last clean position before it.
    """

    network: HfDecoder

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        super().__init__(config, context)
        if not isinstance(self.network, HfDecoder):
            raise RecipeError("objective: tune:blocks trains network hf:decoder")

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.given(batch, draws.noise.fork(MASKING))
        length, size = batch.ids.shape[1], self.network.block
        block = torch.arange(length, device=batch.ids.device) // size
        count = int(-(-length // size))
        spread = torch.arange(count, device=batch.ids.device) / count
        u = (draws.u[:, None] + spread[_shuffled(draws, count)]) % 1.0
        t = self.schedule.quantile(u.flatten())
        share = masked_share(self.schedule.level(t)).view(u.shape)[:, block]
        weight = (masking_rate(self.schedule, t) / self.schedule.pdf(t)).view(u.shape)[:, block]
        covered = draws.noise.fork(COVERED).uniform(0, (length,)) < share
        masked = covered & batch.attend & ~given
        entropy = self._entropy(batch, masked, block)
        totals = torch.where(masked, weight * entropy, 0.0).sum(dim=1)
        first = self.schedule.quantile(draws.u)
        return LossParts.of(totals, given, batch.attend, first, self.schedule.pdf(first))

    def _entropy(self, batch: Batch, masked: Mask, block: Int[Tensor, "L"]) -> PerPosition:
        network, mask = self.network, self.space.corruption.mask
        noised = torch.where(masked, mask, batch.ids)
        both = torch.cat((noised, batch.ids), dim=1)
        places = torch.arange(batch.ids.shape[1], device=both.device)[None].expand(len(both), -1)
        seen = _seen(block, batch.attend)
        logits = network.logits(self.space.table(both), seen, torch.cat((places, places), dim=1))
        hidden, clean = logits.chunk(2, dim=1)
        if network.shift:
            before = torch.cat((hidden[:, :1], hidden[:, :-1]), dim=1)
            last = torch.cat((clean[:, :1], clean[:, :-1]), dim=1)
            starts = (places % network.block == 0) & (places > 0)
            hidden = torch.where(starts[..., None], last, before)
        hidden = hidden.float()
        if mask < hidden.shape[-1]:
            hidden = hidden.index_fill(
                -1, torch.tensor([mask], device=hidden.device), torch.finfo(hidden.dtype).min
            )
        return F.cross_entropy(hidden.transpose(1, 2), batch.ids, reduction="none")


def _shuffled(draws: Draws, count: int) -> Tensor:
    """An order of ``count`` blocks for each row."""
    order: Tensor = draws.noise.fork(TIME).uniform(0, (count,)).argsort(dim=1)
    return order


def _seen(block: Int[Tensor, "L"], attend: Mask) -> Bool[Tensor, "B 1 M M"]:
    """What the noised and the clean half (M = 2 L) see: (B, 1, M, M)."""
    before, same = block[:, None] > block, block[:, None] == block
    rule = torch.cat(
        (
            torch.cat((same, before), dim=1),
            torch.cat((torch.zeros_like(same), before | same), dim=1),
        )
    )
    keys = torch.cat((attend, attend), dim=1)
    return (rule & keys[:, None, :])[:, None]
