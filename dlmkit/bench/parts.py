"""How each case samples the model under test."""

from __future__ import annotations

from collections.abc import Collection

import torch

from dlmkit.bench.cases import PRECISIONS, BenchCase
from dlmkit.core.exits import BUILT_IN
from dlmkit.model import Model
from dlmkit.plugin import Part
from dlmkit.recipe import short
from dlmkit.recipe.assemble import assemble_sampling
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.training.environment import attention_used

TEST_BED, MASKED_TEST_BED = "markov", "markov_masked"
"""The recipes of the exact test-bed: of continuous and of masked models."""


def default_model() -> str:
    """What is measured when no model is named: the first model that ships with dlmkit itself, or
    the exact test-bed where none does. Installing another package's model changes nothing.
    """
    registry = Registry.load()
    ours = {plugin.name for plugin in registry.plugins if plugin.distribution == "dlmkit"}
    names = sorted(name for name in registry.models() if name.partition(":")[0] in ours)
    return names[0] if names else TEST_BED


def under(model: Model, case: BenchCase) -> Model:
    """``model`` sampled as ``case`` says, all parts of it checked."""
    words = short.overrides(case.sampler, case.grid, case.exit, case.freeze, [case.guidance])
    return model.with_(*words, *PRECISIONS[case.precision])


def parts_of(model: Model, case: BenchCase, rule: Part | None = None) -> SamplingParts:
    """What samples ``case``; ``rule`` takes the place of its exit."""
    changed = under(model, case)
    if rule is None:
        return changed.parts
    return assemble_sampling(changed.assembly, changed.config.model_copy(update={"exit": rule}))


def tracing(model: Model, case: BenchCase, statistics: Collection[str]) -> SamplingParts:
    """What samples the full run of ``case`` while ``statistics`` are computed."""
    full = under(model, case.base)
    known = {part.use.rpartition(":")[2] for part in full.config.statistic} | set(BUILT_IN)
    more = [Part(use=name) for name in sorted(statistics) if name not in known]
    changed = {"exit": None, "statistic": [*full.config.statistic, *more]}
    return assemble_sampling(full.assembly, full.config.model_copy(update=changed))


def dtype(model: Model, case: BenchCase) -> torch.dtype:
    """What most matmuls of ``case`` run in: its precision's, or that of the state."""
    parts = parts_of(model, case)
    if parts.inference.dtype is not None:
        return parts.inference.dtype
    state = parts.space.embed(torch.zeros(1, 1, dtype=torch.int64, device=parts.device)).dtype
    return state if state.is_floating_point else torch.float32


def kernel(model: Model, case: BenchCase) -> str:
    """What runs the attention of ``case``, if it has any, and its vocabulary step."""
    space = parts_of(model, case).prepared().space
    return ", ".join([*attention_used(model.assembly.network), f"vocabulary {space.kernel}"])
