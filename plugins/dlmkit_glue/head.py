"""A linear head on a denoiser's features at one noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.denoise import Denoise
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, Objective
from dlmkit.core.schedule import Level
from dlmkit.errors import UsageError
from dlmkit.noise import Noise
from dlmkit.types import Ids, Mask
from dlmkit_glue.encode import by_length, padded
from dlmkit_glue.tasks import Task

READING = 0x61E5
"""The domain of the noise that rows are read under; apart from training's and sampling's."""

SCALE = 5.0
"""The largest label of a regression task: the head learns labels / 5."""


class HeadObjective(Objective):
    """Cross-entropy of the labels (squared error of numbers) by a head on ``objective``'s network.

    Features are what the network's head reads, the output of ``trunk()``, averaged over the row's
    tokens and layer-normalised. A row is read noised as a whole at ``sigma``, the ratio
    sigma / alpha; at 0 every token is given, and the level is the schedule's lowest. The head
    starts at zero. A row's index stands before its tokens (see :class:`Epochs`), and ``labels``
    holds the labels.
    """

    labels: Tensor

    def __init__(self, objective: Objective, task: Task, sigma: float, labels: Tensor) -> None:
        super().__init__()
        self.inner, self.sigma, self.regression = objective, sigma, task.regression
        self.space, self.network = objective.space, objective.network
        self.schedule = objective.schedule
        self.register_buffer("labels", labels, persistent=False)
        ids = torch.zeros(1, 2, dtype=torch.int64, device=labels.device)
        with torch.no_grad():
            noise = Noise.keyed(0, torch.zeros(1, dtype=torch.int64, device=labels.device), 0)
            width = self._pooled(ids, torch.ones_like(ids, dtype=torch.bool), noise).shape[-1]
        linear = nn.Linear(width, task.classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.head = nn.Sequential(nn.LayerNorm(width), linear).to(labels.device)

    def denoise(self) -> Denoise:
        return self.inner.denoise()

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        wanted = self.labels[batch.ids[:, 0]]
        scores = self.scores(batch.ids[:, 1:], batch.attend[:, 1:], draws.noise)
        if self.regression:
            losses = (scores[:, 0] - wanted / SCALE).square()
        else:
            losses = F.cross_entropy(scores.float(), wanted.long(), reduction="none")
        t = self._time(len(losses), losses.device)
        return LossParts(
            loss_sum=losses.sum(),
            count=torch.full((), float(len(losses)), device=losses.device),
            per_row=losses.detach(),
            t=t,
            pdf=torch.ones_like(t),
            unconditional=torch.zeros_like(t, dtype=torch.bool),
        )

    def scores(self, ids: Ids, attend: Mask, noise: Noise) -> Tensor:
        """What the head says, (B, classes)."""
        out: Tensor = self.head(self._pooled(ids, attend, noise))
        return out

    def _pooled(self, ids: Ids, attend: Mask, noise: Noise) -> Tensor:
        space, rows = self.space, len(ids)
        x0, level = space.embed(ids), self.schedule.level(self._time(rows, ids.device))
        if self.sigma == 0.0:
            ones = torch.ones(rows, device=ids.device)
            clean, x, given = space.corruption.input(x0, Level(ones, 0.0 * ones)), x0, attend
        else:
            x = space.corruption.corrupt(x0, level, noise.fork(READING))
            clean = torch.zeros_like(x[..., :1]).expand(*ids.shape, space.dim)
            given = torch.zeros_like(attend)
        read = space.corruption.input(x, level)
        known = Conditioning.of(clean.to(read.dtype), given, attend)
        h = features(self.network, read, level, known, torch.zeros_like(read))
        return torch.where(attend[..., None], h, 0.0).sum(1) / attend.sum(1, keepdim=True)

    def _time(self, rows: int, device: torch.device) -> Tensor:
        if self.sigma == 0.0:
            return torch.full((rows,), self.schedule.t_min, device=device)
        ratio = torch.full((rows,), self.sigma, device=device)
        return self.schedule.inverse(ratio)


def features(network: ScoreNetwork, *inputs: Any) -> Tensor:
    """What the trunk of ``network`` puts out for ``inputs``, (B, L, width).

    Raises UsageError for a network that has none.
    """
    trunk, outputs = network.trunk(), []
    if trunk is None:
        raise UsageError(
            f"{type(network).__name__} has no trunk() to take features from: "
            "take --way infill, or another model"
        )
    handle = trunk.register_forward_hook(lambda module, given, out: outputs.append(out))
    try:
        network(*inputs)
    finally:
        handle.remove()
    out = outputs[-1]
    h: Tensor = out if isinstance(out, Tensor) else out[0]
    return h


@torch.no_grad()
def predict(
    objective: HeadObjective, rows: Sequence[Sequence[int]], pad: int, seed: int, size: int = 64
) -> Tensor:
    """The label of every row as float64. The noise is keyed by (``seed``, row)."""
    said = torch.zeros(len(rows), dtype=torch.float64)
    device = objective.labels.device
    for chosen in by_length(rows, size):
        batch, index = padded([rows[i] for i in chosen], pad), torch.tensor(chosen)
        noise = Noise.keyed(seed, index.to(device), 0)
        scores = objective.scores(batch.ids.to(device), batch.attend.to(device), noise).cpu()
        said[index] = (
            scores[:, 0].double() * SCALE if objective.regression else (scores.argmax(1).double())
        )
    return said
