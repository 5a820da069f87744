"""Score networks: what a trained transformer (or anything else) must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, Ids, Mask, Query


@dataclass(frozen=True)
class Conditioning:
    """What is known of each row, row-first.

    ``given`` marks positions whose token is known, ``clean`` holds their clean embedding (zero
    elsewhere), and ``attend`` is False at padding, which nothing attends to. ``segments`` numbers
    the texts of rows that hold several: a network that provides ``segments`` lets none of them see
    another. None: a row is one text. ``step`` is where a sampler's step begins and ends, for
    guidance and for networks that read it; None outside of steps.
    """

    given: Mask
    clean: Embedded
    attend: Mask
    segments: Ids | None = None
    step: tuple[Level, Level] | None = None

    @staticmethod
    def of(x0: Embedded, given: Mask, attend: Mask, segments: Ids | None = None) -> Conditioning:
        """Conditioning on ``x0`` at the ``given`` positions."""
        return Conditioning(given, torch.where(given[..., None], x0, 0.0), attend, segments)

    def at(self, positions: Ids) -> Conditioning:
        """What is known of the ``positions`` (B, M)."""
        clean = self.clean.gather(1, positions[..., None].expand(-1, -1, self.clean.shape[2]))
        return Conditioning(
            self.given.gather(1, positions), clean, self.attend.gather(1, positions)
        )

    def shown(self, x: Embedded) -> Embedded:
        """``x``, but at given positions their clean embeddings."""
        read: Embedded = torch.where(self.given[..., None], self.clean.to(x.dtype), x)
        return read

    def dropped(self, unknown: Tensor | float = 0.0) -> Conditioning:
        """The same rows without their clean embeddings, as classifier-free guidance needs.

        At given positions the network reads ``unknown``, the corruption's.
        """
        clean = torch.where(self.given[..., None], unknown, 0.0).to(self.clean.dtype)
        return replace(self, clean=clean.expand_as(self.clean))


class ScoreNetwork(nn.Module, ABC):
    """Noisy rows in, one query vector per position out.

    One that says ``reads_level = False`` puts out the same at every level.
    """

    reads_level: bool = True
    adapted: bool = False
    """Whether its weights are another model's, with adapters beside them."""
    base: str | None = None
    """By which name or folder it was given that model, of which all that is fixed here is read
    again wherever it is built; None: there is none, or it was given by other ways."""

    @abstractmethod
    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        """``x`` is the space's input at ``level``; ``previous`` the last predicted x0, or zero.

        Rows are independent of each other, and no position depends on padding.
        """

    @abstractmethod
    def shard_units(self) -> Sequence[nn.Module]:
        """The blocks that a sharded run wraps one by one, in the order they run."""

    def trunk(self) -> nn.Module | None:
        """The module whose output, (B, L, width), the head reads, so that it stands for what the
        network knows of a position: the last block, unless a network says otherwise."""
        units = self.shard_units()
        return units[-1] if units else None

    def dense_layers(self) -> Sequence[nn.Linear]:
        """The linear layers with most of the work, which read (B, L, ...) and may run in int8."""
        modules = (module for unit in self.shard_units() for module in unit.modules())
        return [module for module in modules if isinstance(module, nn.Linear)]

    def probe(self) -> None:
        """Raise what only running the network shows to be wrong, such as attention that does not
        see what it was asked to. Called once, when it has been built; most have nothing to say."""

    def base_name(self, name: str) -> str | None:
        """What a model without adapters calls the tensor ``name`` of this one's ``state_dict()``;
        None: it has no such tensor."""
        return name

    def merge(self) -> Mapping[str, Any]:
        """Put adapters into the weights that they adapt, in place; returns the options that build
        a network without them."""
        return {}

    def save(self, folder: Path) -> None:
        """Write into ``folder``, a checkpoint's, what building needs beside options and weights.

        The network that is built from the checkpoint finds it in ``context.folder``. Most write
        nothing.
        """


class Incremental(ScoreNetwork):
    """One that can compute some positions of a row from kept keys and values of the others.

    Where it ``reads_level``, it cannot. ``block`` is the positions of a block if a position sees
    its own block and those before it alone: keys and values of finished blocks are final then.
    """

    block: int | None = None
    shift: bool = False
    """Whether a position's query is put out by the position before it."""

    @abstractmethod
    def memory(self, count: int, length: int) -> Tensor:
        """Keys and values of ``count`` rows of ``length`` positions of which nothing is known:
        (count, layers, 2, length, heads, channels)."""

    @abstractmethod
    def extend(
        self, x: Embedded, conditioning: Conditioning, positions: Ids, memory: Tensor
    ) -> tuple[Query, Tensor]:
        """The queries of ``x`` (B, M, D) at ``positions`` (B, M), ascending, which see each other
        and what ``memory`` holds of the rest; and ``memory`` with their keys and values.

        ``conditioning`` is that of whole rows. Queries are those of :meth:`forward`, to rounding,
        if ``memory`` holds what that would compute.
        """
