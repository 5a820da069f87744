"""Blocks drafted by mask slots: what they learn, and what they say behind a row that is begun."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.cache import Cache
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import MASKING, Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import IMPOSSIBLE, TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.types import Ids, Index, Logits
from dlmkit_mdlm.objective import MaskedDenoise
from dlmkit_tune import configs
from dlmkit_tune.drafter import Drafter, Slots


class Drafting(RecipeObjective):
    """Cross-entropy of what slots say, of all blocks of a row, which begin at every position.

    Everything in a block is masked. The clean row goes through the decoder once, without gradient;
    its keys and values serve all blocks. With ``soft`` a slot learns the decoder's own distribution
    of its token given the tokens before it, and not the token: its mean over the tokens that the
    slot does not see is what the slot can know.
    """

    space: TokenSpace
    network: Drafter

    def __init__(self, config: configs.Drafting, context: BuildContext) -> None:
        super().__init__(context)
        if not isinstance(self.network, Drafter):
            raise RecipeError("objective: tune:drafting trains network tune:drafter")
        self.soft = config.soft

    def denoise(self) -> DraftDenoise:
        return DraftDenoise(self.space, self.network)

    def said(self, ids: Ids) -> tuple[Logits, Float[Tensor, "B L K V"]]:
        """What the decoder says of the token behind every position, (B, L, V), and the slots of the
        block that begins there, (B, L, K, V), each given the row's token before its own if it is
        to know that."""
        space, network = self.space, self.network
        at = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        slot, none = space.table.weight[space.corruption.mask], slice(0, 0)
        with torch.no_grad():
            memory = network.memory(*ids.shape)
            x = space.table(ids)
            tokens, _, memory = network.draft(x, at, slot, at[:, none], memory)
        _, slots, _ = network.draft(x[:, none], at[:, none], slot, at, memory)
        place = at[0, :, None] + torch.arange(network.slots, device=ids.device)
        before = x[:, place.clamp(max=ids.shape[1] - 1)]
        return self.denoise().possible(tokens), network.say(slots, before)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.given(batch, draws.noise.fork(MASKING))
        tokens, slots = self.said(batch.ids)
        length = batch.ids.shape[1]
        ahead = torch.arange(1, self.network.slots + 1, device=given.device)
        place = torch.arange(length, device=given.device)[:, None] + ahead
        counted = (place < length) & (batch.attend & ~given)[:, place.clamp(max=length - 1)]
        place = place.clamp(max=length - 1)
        log_q = slots.float().log_softmax(dim=-1)
        if self.soft:
            p = tokens.float().softmax(dim=-1)[:, place - 1]
            entropy = -(p * log_q).sum(dim=-1)
        else:
            entropy = -log_q.gather(-1, batch.ids[:, place][..., None])[..., 0]
        totals = torch.where(counted, entropy, 0.0).sum(dim=(1, 2))
        count = counted.sum(dim=(1, 2))
        t = self.schedule.quantile(draws.u)
        return LossParts(
            loss_sum=totals.sum(),
            count=count.sum().to(totals.dtype),
            per_row=totals.detach() / count.clamp(min=1),
            t=t,
            pdf=self.schedule.pdf(t),
            unconditional=~given.any(dim=1) & (count > 0),
        )


class Drafts(NamedTuple):
    """What was said of the row ``x`` (B, L), of which the first ``end`` tokens are written.

    ``tokens`` is what the decoder says of the tokens at ``end`` - K to ``end``, given those before
    each, and ``slots`` what the slots know of the blocks that begin there.
    """

    x: Ids
    end: Index
    tokens: Float[Tensor, "B N V"]
    slots: Slots
    memory: Tensor


class DraftDenoise(MaskedDenoise):
    """Predicts the token behind the written beginning of a row, as the decoder itself does; of
    masks behind that it says nothing.

    Its feedback is :class:`Drafts`: the same forward pass says what the decoder thinks of the last
    K tokens, and what would follow if the row ended before any of them.
    """

    network: Drafter
    caches = False

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> DraftDenoise:
        other = super().prepared(space, network)
        assert isinstance(other, DraftDenoise)
        if not isinstance(other.network, Drafter):
            raise RecipeError(
                "sample.precision: bf16, and tune:drafter runs in its weights' own precision: "
                "leave the key out"
            )
        return other

    def start(self, x: Tensor) -> Any:
        count = self.network.slots + 1
        size, like = self.space.query_dim, self.table.weight
        tokens = like.new_zeros(len(x), count, size)
        slots = like.new_zeros(len(x), count, count - 1, self.network.dim)
        memory = self.network.memory(*x.shape)
        return Drafts(torch.full_like(x, -1), x[:, 0] * 0, tokens, slots, memory)

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        length, slots = x.shape[1], self.network.slots
        attend = conditioning.attend
        masked = (x == self.mask) & attend & ~conditioning.given
        end = torch.where(masked.any(dim=1), masked.int().argmax(dim=1), attend.sum(dim=1))
        kept = (x == previous.x).long().cumprod(dim=1).sum(dim=1) if self.caches else 0 * end
        back = torch.arange(-slots, 1, device=x.device)
        count = max(slots + 1, int((end - torch.minimum(kept, end)).amax()))
        at = end[:, None] + torch.arange(-count, 0, device=x.device)
        at, starts = at.clamp(0, length - 1), (end[:, None] + back).clamp(min=0)
        read = conditioning.at(at).shown(self.table(x.gather(1, at)))
        slot = self.table.weight[self.mask]
        tokens, drafted, memory = self.network.draft(read, at, slot, starts, previous.memory)
        tokens = self.possible(tokens[:, -slots - 1 :])
        return self._next(x, Drafts(x, end, tokens, drafted, memory))

    def _next(self, x: Ids, said: Drafts) -> Prediction:
        """Of rows of which the decoder says the token behind what is written, which may be none."""
        (count, length), logits = x.shape, said.tokens[:, -1]
        row, end = torch.arange(count, device=x.device), said.end
        written = (x != self.mask)[..., None]
        x0 = F.pad(torch.where(x == self.mask, 0, x), (0, 1))
        query = logits.new_full((count, length + 1, logits.shape[1]), IMPOSSIBLE)
        certain = torch.where(written, 0.0, IMPOSSIBLE).to(query.dtype)
        query[:, :length].scatter_(-1, x0[:, :length, None], certain)
        lse = logits.new_zeros(x0.shape)
        query[row, end], x0[row, end], lse[row, end] = (
            logits,
            logits.argmax(-1),
            logits.logsumexp(-1),
        )
        query, x0, lse = query[:, :length], x0[:, :length], lse[:, :length]
        return Prediction(x0, query, lse, x0, said)

    def keeping(self, cache: Cache) -> Denoise:
        if cache.kind != "exact":
            return super().keeping(cache)
        other = copy.copy(self)
        other.caches = True
        return other

    def reusing(self, counted: Denoise) -> Denoise:
        return counted
