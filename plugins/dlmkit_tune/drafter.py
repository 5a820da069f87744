"""A decoder of next tokens with mask slots beside its row, in which alone its adapters act."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.types import Embedded, Ids, Logits
from dlmkit_hf import lora
from dlmkit_hf.models import HfDecoder, Keeping, Places, Seen
from dlmkit_tune import configs

Starts = Int[Tensor, "B N"]
Slots = Float[Tensor, "B N K V"]


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


class Drafter(HfDecoder):
    """A causal decoder that stays as it is, and its adapted self in mask slots.

    A block of K + 1 tokens begins at position n, and the decoder itself says the first of them, at
    n - 1. Slots at n to n + K - 1 read the mask, see the tokens before n and each other, and say
    the tokens at n + 1 to n + K: shifted by one, as next-token training left it. Adapters that act
    in slots alone are the gated LoRA of "Your LLM Knows the Future" (2507.11851); a clean row that
    all noised blocks share is BD3-LM's (2503.09573).
    """

    def __init__(self, config: configs.Drafter, context: BuildContext) -> None:
        super().__init__(config, context)
        self.slots = config.slots
        self.adapted = False  # weights that tokens go through as well take no adapter in

    def logits(self, x: Embedded, seen: Seen | None, positions: Places | None = None) -> Logits:
        """Those of the decoder itself."""
        with lora.acting_from(self.model, None):
            return super().logits(x, seen, positions)

    def base_name(self, name: str) -> str | None:
        return lora.base_name(name)

    def draft(
        self, tokens: Embedded, at: Ids, slot: Float[Tensor, "D"], starts: Starts, memory: Tensor
    ) -> tuple[Logits, Slots, Tensor]:
        """The decoder's own logits (B, M, V) at ``tokens`` (B, M, D), which stand ``at`` (B, M);
        those of the slots, which read ``slot``, of blocks that begin at ``starts`` (B, N); and
        ``memory`` (:meth:`memory`) with the keys and values of ``tokens``.

        Of tokens before ``tokens``, and before blocks, it must hold them already.
        """
        (rows, count), blocks = at.shape, starts.shape[1]
        memory = memory.clone() if count else memory
        behind = starts[..., None] + torch.arange(self.slots, device=at.device)
        places = torch.cat((at, behind.flatten(1)), dim=1)
        x = torch.cat((tokens, slot.expand(rows, blocks * self.slots, -1)), dim=1)
        seen = self._sees(at, starts, memory.shape[3])
        with lora.acting_from(self.model, count):
            out: Tensor = self.model(
                inputs_embeds=x * self.scale,
                attention_mask=self.mask(seen, x.dtype),
                position_ids=places.clamp(max=memory.shape[3] - 1),
                past_key_values=Beside(memory, at),
                use_cache=True,
            ).logits
        return out[:, :count], out[:, count:].unflatten(1, (blocks, self.slots)), memory

    def _sees(self, at: Ids, starts: Starts, length: int) -> Bool[Tensor, "B 1 Q R"]:
        """What tokens and slots see of the row, and behind it of all slots: (B, 1, M', L + NK)."""
        (rows, count), device = at.shape, at.device
        end = torch.cat((at + 1, starts.repeat_interleave(self.slots, dim=1)), dim=1)
        before = torch.arange(length, device=device) < end[..., None]
        block = torch.arange(starts.shape[1], device=device).repeat_interleave(self.slots)
        same_block = torch.zeros(rows, end.shape[1], len(block), dtype=torch.bool, device=device)
        same_block[:, count:] = block[:, None] == block
        return torch.cat((before, same_block), dim=2)[:, None]
