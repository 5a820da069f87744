"""Block after block, with the keys and values of finished blocks kept (BD3-LM, 2503.09573)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import BlockCausal, Conditioning
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import IMPOSSIBLE
from dlmkit.types import Ids, Index
from dlmkit_mdlm.objective import MaskedDenoise


class Kept(NamedTuple):
    """Of each row, keys and values, and of how many blocks, from the first, they are final."""

    memory: Tensor
    blocks: Index


class _Part(NamedTuple):
    """The prediction at ``positions`` (B, M) of each row; some may lie behind its end."""

    positions: Index
    prediction: Prediction


class BlockDenoise(MaskedDenoise):
    """Computes the first block of each row that has a mask, and the one before it.

    That one is finished since the last call, or was: its keys and values are computed again, from
    its tokens, and are final then. A row that is further on than that, as one with a prompt is at
    its first call, is computed as a whole, once. On an accelerator all rows are, where one must:
    the host waits once a call.
    """

    network: BlockCausal

    def start(self, x: Tensor) -> Any:
        memory = self.network.memory(len(x), self._size * self._count(x))
        return Kept(memory, torch.zeros_like(x[:, 0]))

    @property
    def _size(self) -> int:
        assert self.network.block is not None
        return self.network.block

    def _count(self, x: Tensor) -> int:
        return -(-x.shape[1] // self._size)

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        count = self._count(x)
        open = (x == self.mask) & ~conditioning.given & conditioning.attend
        block = torch.arange(x.shape[1], device=x.device) // self._size
        now = torch.where(open, block, count - 1).amin(dim=1)
        least = min(2, count)
        first = (now - 1).clamp(0, count - least)
        whole = first > previous.blocks
        if x.device.type != "cpu":
            whole = whole.any().expand(len(x))
        parts, memory = [], previous.memory
        for index, blocks in (((~whole).nonzero()[:, 0], least), (whole.nonzero()[:, 0], count)):
            if not len(index):
                continue
            asked = rows.take((x, conditioning, memory), index)
            at = first[index] if blocks == least else torch.zeros_like(index)
            part, extended = self._part(*asked, at * self._size, blocks * self._size)
            memory = extended if len(index) == len(x) else rows.put(memory, index, extended)
            parts.append((index, part))
        return self._together(x, parts, Kept(memory, now))

    def _part(
        self, x: Tensor, conditioning: Conditioning, memory: Tensor, start: Index, size: int
    ) -> tuple[_Part, Tensor]:
        length, padded = x.shape[1], memory.shape[3]
        positions = start[:, None] + torch.arange(size, device=x.device)
        at = positions.clamp(max=length - 1)
        ids, given = x.gather(1, at), conditioning.given.gather(1, at)
        clean = conditioning.clean.gather(1, at[..., None].expand(-1, -1, self.space.dim))
        read = self.table(ids)
        read = torch.where(given[..., None], clean.to(read.dtype), read)
        seen = F.pad(conditioning.attend, (0, padded - length))
        query, memory = self.network.extend(read, start, seen, memory)
        prediction = self.carried(ids, self.possible(query), ())
        return _Part(positions, prediction), memory

    def _together(self, x: Ids, parts: list[tuple[Tensor, _Part]], kept: Kept) -> Prediction:
        """One prediction of whole rows: tokens that are written are certain, and nothing is said
        of masks that no part holds."""
        length, like = x.shape[1], parts[0][1].prediction
        padded = F.pad(x, (0, kept.memory.shape[3] - length))
        written = (padded != self.mask)[..., None]
        x0 = torch.where(padded == self.mask, 0, padded)
        query = like.query.new_full((*padded.shape, like.query.shape[-1]), IMPOSSIBLE)
        query.scatter_(-1, x0[..., None], torch.where(written, 0.0, IMPOSSIBLE).to(query.dtype))
        lse = like.lse.new_zeros(padded.shape)
        own = lse.clone()
        for index, part in parts:
            at = index[:, None], part.positions
            query[at] = part.prediction.query
            lse[at], x0[at] = part.prediction.lse, part.prediction.x0_mean
            assert part.prediction.own is not None
            own[at] = part.prediction.own
        query, lse, x0, own = (whole[:, :length] for whole in (query, lse, x0, own))
        return Prediction(x0, query, lse, x0, kept, own=own)
