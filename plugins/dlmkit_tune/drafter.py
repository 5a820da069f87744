"""A decoder of next tokens with mask slots beside its row, in which alone its adapters act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.tokens import IMPOSSIBLE, TokenSpace
from dlmkit.types import Embedded, Ids, Logits
from dlmkit_hf import lora
from dlmkit_hf.models import HfDecoder, Keeping, Places, Seen
from dlmkit_tune import configs

Starts = Int[Tensor, "B N"]
Slots = Float[Tensor, "B N K D"]
"""What the decoder's head reads at the slots of blocks."""


class Beside(Keeping):
    """Keys and values of tokens are kept; those of slots stand behind them, for one pass."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        count = self.positions.shape[1]
        kept = self.memory[:, layer_idx].transpose(2, 3).unbind(1)
        if count:  # memory that nothing is written to needs no gradient
            kept = super().update(key_states[:, :, :count], value_states[:, :, :count], layer_idx)
        k, v = kept
        behind = key_states[:, :, count:], value_states[:, :, count:]
        return torch.cat((k, behind[0]), dim=2), torch.cat((v, behind[1]), dim=2)


class Following(nn.Module):
    """What a slot knows, once the token before its own is known as well; at first unchanged.

    Two layers on both, the sampler module of 2507.11851; here added to what the slot knows.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * dim, dim), nn.Linear(dim, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(
        self, slots: Float[Tensor, "*shape D"], before: Float[Tensor, "*shape D"]
    ) -> Tensor:
        x = torch.cat((slots, before.to(slots.dtype).expand_as(slots)), dim=-1).unflatten(
            -1, (2, -1)
        )
        x = F.rms_norm(x, x.shape[-1:]).flatten(-2)
        out: Tensor = slots + self.outer(F.silu(self.inner(x)))
        return out


class Drafter(HfDecoder):
    """A causal decoder that stays as it is, and its adapted self in mask slots.

    A block of K + 1 tokens begins at position n, and the decoder itself says the first of them, at
    n - 1. Slots at n to n + K - 1 read the mask, see the tokens before n and each other, and say
    the tokens at n + 1 to n + K: shifted by one, as next-token training left it. Adapters that act
    in slots alone are the gated LoRA of "Your LLM Knows the Future" (2507.11851); a clean row that
    all noised blocks share is BD3-LM's (2503.09573). What a slot says may depend on the token
    before its own (``sequential``), drawn meanwhile: only the head is computed after it.
    """

    def __init__(self, config: configs.Drafter, context: BuildContext) -> None:
        super().__init__(config, context)
        space: TokenSpace = context.part("space")
        self.slots, self.unsaid = config.slots, space.corruption.mask
        self.following = Following(self.dim) if config.sequential else None
        self.adapted = False  # weights that tokens go through as well take no adapter in

    def logits(self, x: Embedded, seen: Seen | None, positions: Places | None = None) -> Logits:
        """Those of the decoder itself."""
        with lora.acting_from(self.model, None):
            return super().logits(x, seen, positions)

    def base_name(self, name: str) -> str | None:
        return None if name.startswith("following.") else lora.base_name(name)

    def draft(
        self, tokens: Embedded, at: Ids, slot: Float[Tensor, "D"], starts: Starts, memory: Tensor
    ) -> tuple[Logits, Slots, Tensor]:
        """The decoder's own logits (B, M, V) at ``tokens`` (B, M, D), which stand ``at`` (B, M);
        what :meth:`say` reads of the slots, which read ``slot``, of blocks that begin at ``starts``
        (B, N); and ``memory`` (:meth:`memory`) with the keys and values of ``tokens``.

        Of tokens before ``tokens``, and before blocks, it must hold them already.
        """
        (rows, count), blocks = at.shape, starts.shape[1]
        memory = memory.clone() if count else memory
        behind = starts[..., None] + torch.arange(self.slots, device=at.device)
        places = torch.cat((at, behind.flatten(1)), dim=1)
        x = torch.cat((tokens, slot.expand(rows, blocks * self.slots, -1)), dim=1)
        seen = self._sees(at, starts, memory.shape[3])
        with lora.acting_from(self.model, count), self._read_by_head(count) as read:
            out: Tensor = self.model(
                inputs_embeds=x * self.scale,
                attention_mask=self.mask(seen, x.dtype),
                position_ids=places.clamp(max=memory.shape[3] - 1),
                past_key_values=Beside(memory, at),
                use_cache=True,
            ).logits
        return out, read[0].unflatten(1, (blocks, self.slots)), memory

    def say(
        self, slots: Float[Tensor, "*shape D"], before: Float[Tensor, "*shape D"]
    ) -> Float[Tensor, "*shape V"]:
        """The logits of ``slots``, given the tokens ``before`` theirs, which stand in a block at
        the place of each."""
        if self.following is not None:
            slots = self.following(slots, before)
        head: nn.Module = self.model.get_output_embeddings()
        logits: Tensor = head(slots)
        if self.unsaid < logits.shape[-1]:
            logits[..., self.unsaid] = IMPOSSIBLE
        return logits

    @contextmanager
    def _read_by_head(self, count: int) -> Iterator[list[Tensor]]:
        """The head reads the first ``count`` positions alone; what it would read of the others is
        in the list."""
        others: list[Tensor] = []

        def apart(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            others.append(given[0][:, count:])
            return (given[0][:, :count],)

        hook = self.model.get_output_embeddings().register_forward_pre_hook(apart)
        try:
            yield others
        finally:
            hook.remove()

    def _sees(self, at: Ids, starts: Starts, length: int) -> Bool[Tensor, "B 1 Q R"]:
        """What tokens and slots see of the row, and behind it of all slots: (B, 1, M', L + NK)."""
        (rows, count), device = at.shape, at.device
        end = torch.cat((at + 1, starts.repeat_interleave(self.slots, dim=1)), dim=1)
        before = torch.arange(length, device=device) < end[..., None]
        block = torch.arange(starts.shape[1], device=device).repeat_interleave(self.slots)
        same_block = torch.zeros(rows, end.shape[1], len(block), dtype=torch.bool, device=device)
        same_block[:, count:] = block[:, None] == block
        return torch.cat((before, same_block), dim=2)[:, None]
