"""How far the score of a text turns from one step to the next."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.embedding import GaussianCorruption
from dlmkit.sampling.levels import levels
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.snapshot import Snapshot
from dlmkit.types import Index, Mask, PerRow


class ScoreAngles:
    """Angles between the scores of successive steps (2305.10818 looks at them, by its
    reviews; our definition).

    A text's score is (x0 - x / alpha) / (sigma / alpha)^2 at all of its generated positions, one
    vector: the model's own prediction, guidance left out, read where each step came from. Its
    length plays no part in the angle. Scores are kept on the CPU until their text ends.
    """

    def __init__(self, parts: SamplingParts, steps: int) -> None:
        self.alpha = levels(parts, steps).alpha.cpu()
        self._before: dict[int, Tensor] = {}

    @staticmethod
    def exist(parts: SamplingParts) -> bool:
        """Whether this model has a score of this form: its noise is Gaussian."""
        return isinstance(parts.space.corruption, GaussianCorruption)

    def __call__(self, step: Snapshot, live: Index, point: Index, generated: Mask) -> PerRow:
        """Degrees, for the slots ``live`` that stepped from the grid's ``point``.

        Infinite at the first step, as every statistic is that compares two. ``generated``
        marks the positions of these texts that are neither given nor padding.
        """
        x0, x = (v[live].cpu().double() for v in (step.prediction.x0_mean, step.origin))
        scores = torch.where(generated[..., None], x0 - x / self.alpha[point, None, None], 0.0)
        angles = []
        for row, at, score in zip(step.row[live].tolist(), point.tolist(), scores, strict=True):
            before = self._before.pop(row, None)
            angles.append(torch.inf if before is None else float(angle(before, score)))
            if at + 1 < len(self.alpha) - 1:
                self._before[row] = score
        return torch.tensor(angles, dtype=step.prediction.x0_mean.dtype)


def angle(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The angle between two vectors in degrees, exact also where it is small (Kahan's form)."""
    left, right = a * b.norm(), b * a.norm()
    return torch.rad2deg(2.0 * torch.atan2((left - right).norm(), (left + right).norm()))
