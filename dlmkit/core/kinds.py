"""The interface that a component of each kind builds."""

from __future__ import annotations

from collections.abc import Mapping

from dlmkit.core.data import Data
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import ExitCriterion, Statistic
from dlmkit.core.grid import Grid
from dlmkit.core.guidance import Guidance
from dlmkit.core.masking import Masking
from dlmkit.core.metric import Metric
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.order import Order
from dlmkit.core.quota import Quota
from dlmkit.core.remask import Remask
from dlmkit.core.sampler import Sampler
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.core.tracker import Tracker

INTERFACES: Mapping[str, type] = {
    "schedule": NoiseSchedule,
    "space": EmbeddingSpace,
    "network": ScoreNetwork,
    "objective": Objective,
    "masking": Masking,
    "sampler": Sampler,
    "order": Order,
    "quota": Quota,
    "remask": Remask,
    "grid": Grid,
    "exit": ExitCriterion,
    "guidance": Guidance,
    "statistic": Statistic,
    "data": Data,
    "metric": Metric,
    "tracker": Tracker,
}
"""Of every kind in :data:`dlmkit.plugin.KINDS`, the class that its parts are instances of."""
