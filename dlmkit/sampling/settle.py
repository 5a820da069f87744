"""Exit rules asked of every position: which tokens of a row are settled before the row is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.denoise import Prediction
from dlmkit.core.exits import ExitCriterion
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.slots import Slots
from dlmkit.types import Mask, PerPosition, PerRow

REASON = "every position settled"
"""Why a row ended whose last open position was settled."""


def settled(
    rule: ExitCriterion,
    parts: SamplingParts,
    slots: Slots,
    prediction: Prediction,
    statistics: Mapping[str, PerRow],
) -> tuple[Mask, Any]:
    """(open positions at which ``rule`` holds now, its new memory).

    To the rule every position is a row of its own: B L of them, with the position's statistics.
    """
    length = slots.template.ids.shape[1]
    values = {
        name: _by_position(name, parts, slots, prediction, statistics, length)
        for name in rule.needs
    }
    holds, memory = rule(rows.merge(values), rows.merge(slots.settling))
    return holds.view(-1, length) & slots.generated, rows.part(memory, length)


def _by_position(
    name: str,
    parts: SamplingParts,
    slots: Slots,
    prediction: Prediction,
    statistics: Mapping[str, PerRow],
    length: int,
) -> PerPosition:
    """A statistic at every position; one that rows alone have is the same at all of theirs."""
    if name not in parts.statistics:
        return statistics[name][:, None].expand(-1, length)
    statistic = parts.statistics[name]
    before = prediction if slots.before is None else slots.before
    value = statistic.per_position(parts.space, prediction, before)
    if statistic.needs_before:
        value = rows.where(slots.position > 0, value, torch.full_like(value, torch.inf))
    return value
