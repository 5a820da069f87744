"""What the sampling loop is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dlmkit import devices
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import ExitCriterion, Statistic
from dlmkit.core.grid import Grid
from dlmkit.core.guidance import Guidance
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import Sampler
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.requests import RowTemplate
from dlmkit.types import Ids


@dataclass(frozen=True)
class SamplingParts:
    """One of each kind that sampling needs.

    ``denoise`` is the bare denoiser of the objective. The loop wraps it by a counter and then by
    ``guidance``, the first innermost, so that every evaluation of the network is counted.
    ``statistics`` are computed at every step under their recipe names (``samplers:entropy``
    without its plugin: ``entropy``); an exit finds there what it ``needs``. ``freeze`` is an exit
    rule too, asked of every position: one at which it holds is given its likeliest token. ``stop``
    are the ids of the tokens that end a text.
    """

    space: EmbeddingSpace
    schedule: NoiseSchedule
    denoise: Denoise
    sampler: Sampler
    grid: Grid
    exit: ExitCriterion | None = None
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    freeze: ExitCriterion | None = None
    guidance: tuple[Guidance, ...] = ()
    inference: Inference = field(default_factory=Inference)
    stop: frozenset[int] = frozenset()

    @property
    def device(self) -> torch.device:
        """Where the space's tensors live; the CPU if it has none."""
        return devices.of(self.space)

    @property
    def dtype(self) -> torch.dtype:
        """That of x and of the levels; of the levels alone where x is discrete."""
        clean = self.clean(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        return _level_dtype(clean)

    @torch.no_grad()
    def clean(self, ids: Ids) -> Tensor:
        """x0 of ``ids``, in single precision at least."""
        clean = self.space.embed(ids)
        narrow = clean.is_floating_point() and clean.dtype.itemsize < 4
        return clean.float() if narrow else clean

    def known(self, clean: Tensor, asked: RowTemplate) -> Conditioning:
        """Conditioning on the given positions of ``clean``."""
        ones = torch.ones_like(asked.row, dtype=_level_dtype(clean))
        read = self.space.corruption.input(clean, Level(ones, torch.zeros_like(ones)))
        return Conditioning.of(read, asked.given, asked.attend)

    @property
    def kernel(self) -> str:
        """What the vocabulary step of a run is computed by, and why by nothing faster."""
        return self.space.prepared(self.inference.dtype).kernel

    def prepared(self) -> SamplingParts:
        """The parts of one run, whose weights stay as they are until it ends.

        What depends on weights alone (normalised tables, layers in another precision) is
        computed here.
        """
        space = self.space.prepared(self.inference.dtype)
        return replace(
            self, space=space, denoise=self.denoise.prepared(space, self.inference.network)
        )


def _level_dtype(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.float32
