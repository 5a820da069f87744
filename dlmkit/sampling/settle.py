"""Exit rules asked of every position: which tokens of a row are settled before the row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.denoise import Prediction
from dlmkit.core.exits import ExitCriterion, at_positions
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.slots import State
from dlmkit.types import Mask, PerPosition, PerRow, Query

REASON = "every position settled"
"""Why a row ended whose last open position was settled."""


def settled(
    rule: ExitCriterion,
    parts: SamplingParts,
    state: State,
    prediction: Prediction,
    statistics: Mapping[str, PerRow],
) -> tuple[Mask, Any]:
    """(open positions at which ``rule`` holds now, its new memory)."""
    length = state.asked.ids.shape[1]
    values = {
        name: _by_position(name, parts, state, prediction, statistics, length)
        for name in rule.needs
    }
    holds, memory = at_positions(rule, values, state.settling)
    return holds & state.generated, memory


def settle(parts: SamplingParts, state: State, settles: Mask, query: Query) -> State:
    """``state`` with the positions ``settles`` given from now on: their likeliest tokens."""
    likeliest = parts.space.decode(state.x, query)
    asked = replace(
        state.asked,
        ids=torch.where(settles, likeliest, state.asked.ids),
        given=state.asked.given | settles,
    )
    return replace(
        state,
        asked=asked,
        generated=asked.attend & ~asked.given,
        conditioning=parts.known(parts.clean(asked.ids), asked),
    )


def _by_position(
    name: str,
    parts: SamplingParts,
    state: State,
    prediction: Prediction,
    statistics: Mapping[str, PerRow],
    length: int,
) -> PerPosition:
    """A statistic at every position; one that rows alone have is the same at all of theirs."""
    if name not in parts.statistics:
        return statistics[name][:, None].expand(-1, length)
    statistic = parts.statistics[name]
    before = prediction if state.before is None else state.before
    value = statistic.per_position(parts.space, prediction, before)
    if statistic.needs_before:
        value = rows.where(state.position > 0, value, torch.full_like(value, torch.inf))
    return value
