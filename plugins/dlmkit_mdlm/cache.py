"""Predictions that compute a part of each row, with keys and values of the rest kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.cache import Cache, Window
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning, Incremental
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import IMPOSSIBLE, TokenSpace
from dlmkit.types import Ids, Index, Mask, Rows
from dlmkit_mdlm.objective import MaskedDenoise


class Asked(NamedTuple):
    """The positions to compute, the rows of which all are, and the rule's new memory."""

    positions: Mask
    whole: Rows
    memory: Any


class CacheRule(ABC):
    """Says what of each row is computed at a call. Pure: what it remembers is row-first."""

    exact: bool = False
    """Whether more may be computed than it asks for, to the same results."""

    @abstractmethod
    def start(self, x: Ids) -> Any:
        """The memory of rows that have not been computed."""

    @abstractmethod
    def ask(self, masked: Mask, generated: Mask, memory: Any) -> Asked:
        """What to compute of rows of which ``masked`` is left to write of ``generated``."""


class Finished(CacheRule):
    """Computes the first block that has a mask, and the one before it (BD3-LM, 2503.09573).

    That one is finished since the last call, or was: its keys and values are computed again, from
    its tokens, and are final then. A row that is further on than that, as one with a prompt is at
    its first call, is computed as a whole, once. The memory counts blocks that are final.
    """

    exact = True

    def __init__(self, block: int) -> None:
        self.block = block

    def start(self, x: Ids) -> Index:
        return torch.zeros_like(x[:, 0])

    def ask(self, masked: Mask, generated: Mask, memory: Index) -> Asked:
        block = torch.arange(masked.shape[1], device=masked.device) // self.block
        last = (masked.shape[1] - 1) // self.block
        now = torch.where(masked, block, last).amin(dim=1)
        first = (now - 1).clamp(0, max(0, last - 1))
        positions = (block >= first[:, None]) & (block <= first[:, None] + 1)
        return Asked(positions, first > memory, now)


class Windowed(CacheRule):
    """Computes the window and, unless ``dual``, what stands behind it; a whole row at a window's
    first step. The memory is where the window begins."""

    def __init__(self, window: Window, dual: bool) -> None:
        self.window, self.dual = window, dual

    def start(self, x: Ids) -> Index:
        return torch.full_like(x[:, 0], -1)

    def ask(self, masked: Mask, generated: Mask, memory: Index) -> Asked:
        now = self.window.now(masked, generated)
        begins = now.int().argmax(dim=1)
        positions = now if self.dual else now.cumsum(dim=1) > 0
        return Asked(positions, begins != memory, begins)


class _Settled(NamedTuple):
    tokens: Mask
    age: Index


class Delayed(CacheRule):
    """Computes what is masked or has been written since the last call, and at every
    ``refresh``-th call the whole row."""

    def __init__(self, refresh: int) -> None:
        self.refresh = refresh

    def start(self, x: Ids) -> _Settled:
        return _Settled(x < 0, torch.zeros_like(x[:, 0]))

    def ask(self, masked: Mask, generated: Mask, memory: _Settled) -> Asked:
        now = _Settled(~masked, (memory.age + 1) % self.refresh)
        return Asked(masked | ~memory.tokens, memory.age == 0, now)


def rule_of(cache: Cache, block: int | None) -> CacheRule:
    """What ``cache`` asks of a network with blocks of ``block`` positions, if it has any."""
    if cache.kind == "exact":
        assert block
        return Finished(block)
    if cache.kind == "delayed":
        return Delayed(cache.refresh)
    assert cache.window is not None
    return Windowed(cache.window, cache.kind == "dual")


class CacheMemory(NamedTuple):
    """Of each row, keys and values, and the memory of the rule."""

    memory: Tensor
    rule: Any


class CachedDenoise(MaskedDenoise):
    """Computes what ``rule`` asks for. Of masks that are not computed it says nothing.

    On an accelerator all rows are computed whole where one must be, if that changes none; the host
    waits for the shapes. What the network says of tokens that are written is not known.
    """

    network: Incremental

    def __init__(self, space: TokenSpace, network: Incremental, rule: CacheRule) -> None:
        super().__init__(space, network)
        self.rule = rule

    def start(self, x: Tensor) -> Any:
        return CacheMemory(self.network.memory(*x.shape), self.rule.start(x))

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        generated = conditioning.attend & ~conditioning.given
        positions, whole, rule = self.rule.ask(
            (x == self.mask) & generated, generated, previous.rule
        )
        if self.network.shift:  # a position's query comes from the one before
            positions = positions | F.pad(positions[:, 1:], (0, 1))
        if self.rule.exact and x.device.type != "cpu":
            whole = whole.any().expand(len(x))
        parts, memory = [], previous.memory
        for index in ((~whole).nonzero()[:, 0], whole.nonzero()[:, 0]):
            if len(index):
                asked = rows.take((x, conditioning, positions | whole[:, None], memory), index)
                at, part, extended = self._part(*asked)
                memory = extended if len(index) == len(x) else rows.put(memory, index, extended)
                parts.append(((index[:, None], at), part))
        return self._together(x, parts, CacheMemory(memory, rule))

    def _part(
        self, x: Ids, conditioning: Conditioning, asked: Mask, memory: Tensor
    ) -> tuple[Tensor, Prediction, Tensor]:
        """(positions (B, M), what is predicted there, the new keys and values).

        Rows that ask for fewer than others repeat their first: what comes last may be the query of
        the position before it.
        """
        count = asked.sum(dim=1, keepdim=True)
        order = asked.int().argsort(dim=1, descending=True, stable=True)
        place = torch.arange(-int(count.max()), 0, device=x.device)
        at = order.gather(1, (place + count).clamp(min=0))
        ids = x.gather(1, at)
        query, memory = self.network.extend(self.table(ids), conditioning, at, memory)
        return at, self.carried(ids, self.possible(query), ()), memory

    def _together(
        self, x: Ids, parts: list[tuple[tuple[Tensor, Tensor], Prediction]], kept: CacheMemory
    ) -> Prediction:
        """One prediction of whole rows: tokens that are written are certain."""
        like = parts[0][1]
        written = (x != self.mask)[..., None]
        x0 = torch.where(x == self.mask, 0, x)
        query = like.query.new_full((*x.shape, like.query.shape[-1]), IMPOSSIBLE)
        query.scatter_(-1, x0[..., None], torch.where(written, 0.0, IMPOSSIBLE).to(query.dtype))
        lse = like.lse.new_zeros(x.shape)
        for at, part in parts:
            query[at], lse[at], x0[at] = part.query, part.lse, part.x0_mean
        return Prediction(x0, query, lse, x0, kept)
