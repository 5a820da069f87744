"""Which positions are given: none, a prefix, a random subset, or a mix (CDCD, section 4.5)."""

from __future__ import annotations

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.masking import Masking, lowest, uniform_count
from dlmkit.noise import Noise
from dlmkit.types import Mask
from dlmkit_cdcd import configs


class NoMasking(Masking):
    """Every row is unconditional."""

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        return torch.zeros_like(attend)


class PrefixMasking(Masking):
    """The first k tokens are given, k uniform."""

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        return attend & (attend.cumsum(dim=1) <= uniform_count(attend, noise)[:, None])


class RandomMasking(Masking):
    """A random subset of k tokens is given, k uniform."""

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        order = noise.uniform(1, (attend.shape[1],), torch.float64)
        return lowest(order, attend, uniform_count(attend, noise))


class MixedMasking(Masking):
    """Each row draws which of several maskings it uses."""

    def __init__(self, config: configs.Mix, context: BuildContext) -> None:
        self.parts: list[Masking] = [context.build("masking", part) for part in config.parts]
        weights = torch.tensor(config.weights or [1.0] * len(self.parts), dtype=torch.float64)
        self.edges: list[float] = (weights / weights.sum()).cumsum(0)[:-1].tolist()

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        choice = noise.uniform(0, dtype=torch.float64)[:, None]
        given, *others = (part.draw(attend, noise.fork(i)) for i, part in enumerate(self.parts))
        for edge, drawn in zip(self.edges, others, strict=True):
            given = torch.where(choice >= edge, drawn, given)
        return given
