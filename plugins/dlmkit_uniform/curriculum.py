"""DUO's curriculum: the uniform state is the argmax of a Gaussian (2506.10892, section 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.schedule import Level
from dlmkit.core.tokens import masked_share
from dlmkit.noise import Noise
from dlmkit.types import Ids, Probabilities

HOTTEST, COLDEST = 0.1, 0.01
"""The temperature at the curriculum's first and last step (DUO's code)."""


class Softened:
    """One-hot vectors in Gaussian noise whose argmax has the law of the uniform state.

    ``signal`` times the one-hot vector over noise of variance 1 keeps the token likeliest with the
    chance that is tabulated here (equations 10 and 11).
    """

    def __init__(self, vocab_size: int, points: int = 2048) -> None:
        self.vocab_size = vocab_size
        self.signals = torch.linspace(0.0, 14.0, points, dtype=torch.float64)
        z = torch.linspace(-9.0, 9.0, 2048, dtype=torch.float64)
        density = torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
        right = [
            torch.trapezoid(
                density * torch.exp((vocab_size - 1) * torch.special.log_ndtr(z + s)), z
            )
            for s in self.signals
        ]
        self.chances = torch.stack(right)

    def signal(self, share: Tensor) -> Tensor:
        """What leaves 1 - ``share`` + ``share`` / V of the tokens the likeliest, [B]."""
        wanted = 1.0 - share.double() * (1.0 - 1.0 / self.vocab_size)
        chances, signals = (table.to(share.device) for table in (self.chances, self.signals))
        above = torch.searchsorted(chances, wanted).clamp(1, len(chances) - 1)
        low, high = chances[above - 1], chances[above]
        part = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
        return torch.lerp(signals[above - 1], signals[above], part)

    def latent(self, ids: Ids, level: Level, noise: Noise) -> Tensor:
        """The noisy vectors, (B, L, V), of norm and noise of variance 1; by the same ``noise`` at
        every level."""
        signal = self.signal(masked_share(level)).float()[:, None, None]
        w = signal * F.one_hot(ids, self.vocab_size)
        w = w + noise.normal(0, (ids.shape[1], self.vocab_size))
        return torch.rsqrt(1.0 + signal.square()) * w

    def draw(
        self, ids: Ids, level: Level, noise: Noise, risen: float | Tensor
    ) -> tuple[Ids, Probabilities]:
        """(the likeliest tokens, the softmax at the temperature of a ``risen`` share of steps)."""
        w = self.latent(ids, level, noise)
        temperature = HOTTEST * (COLDEST / HOTTEST) ** risen
        return w.argmax(dim=-1), (w / temperature).softmax(dim=-1)
