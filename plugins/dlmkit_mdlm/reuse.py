"""A prediction is used again while no token changes: MDLM's cached sampler (2406.07524)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlmkit import rows
from dlmkit.core.denoise import Denoise, Prediction, Spent, Wrapped
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.types import Ids, Mask


class Known(NamedTuple):
    """What each row was at its last evaluation, and the prediction; nothing before the first."""

    x: Ids
    given: Mask
    prediction: Prediction
    spent: Spent


class Reusing(Wrapped):
    """``inner``, which does not read the level, asked for the rows of which a token changed.

    On an accelerator all rows are asked for where one changed: batches keep their shape, and the
    host waits once.
    """

    def __init__(self, inner: Denoise, table: nn.Embedding, query_dim: int) -> None:
        super().__init__(inner)
        self.table, self.query_dim = table, query_dim

    def start(self, x: Tensor) -> Known:
        query = self.table.weight.new_zeros(*x.shape, self.query_dim)
        nothing = Prediction(x, query, query[..., 0], x, self.inner.start(x), log_p=query[..., 0])
        return Known(x, x < 0, nothing, Spent(torch.zeros_like(x[:, 0])))

    def __call__(
        self, x: Tensor, level: Level, previous: Known, conditioning: Conditioning
    ) -> Prediction:
        known, given = previous, conditioning.given
        changed = ((x != known.x) | (given != known.given)).any(dim=1) | (known.spent[0] == 0)
        if x.device.type != "cpu":
            changed = changed.any().expand(len(x))
        index = changed.nonzero()[:, 0]
        prediction = known.prediction
        if len(index):
            asked = rows.take((x, level, prediction.feedback, conditioning), index)
            answer = self.inner(*asked)
            prediction = answer if len(index) == len(x) else rows.put(prediction, index, answer)
        known = Known(x, given, prediction, Spent(known.spent[0] + changed))
        return replace(prediction, feedback=known)
