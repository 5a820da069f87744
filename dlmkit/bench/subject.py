"""The model under test, with its data, and its sampling parts for each case."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dlmkit.bench.cases import PRECISIONS, Case
from dlmkit.core.data import Data
from dlmkit.core.exits import BUILT_IN, ExitCriterion, refuse_noise
from dlmkit.model import Model, open_model
from dlmkit.plugin import Part
from dlmkit.recipe import short
from dlmkit.recipe.assemble import Assembly, assemble_sampling
from dlmkit.recipe.load import Resolved, resolve_text
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.training.environment import attention_used

TEST_BED = "markov"
"""The recipe of the exact test-bed."""


def default_model() -> str:
    """What is measured when no model is named: the first model that ships with dlmkit itself, or
    the exact test-bed where none does. Installing another package's model changes nothing.
    """
    registry = Registry.load()
    own = {plugin.name for plugin in registry.plugins if plugin.distribution == "dlmkit"}
    names = sorted(name for name in registry.models() if name.partition(":")[0] in own)
    return names[0] if names else TEST_BED


@dataclass(frozen=True)
class Subject:
    """A model with its data. ``name`` is how it was asked for."""

    name: str
    assembly: Assembly
    data: Data

    @property
    def config(self) -> RecipeConfig:
        """Its recipe, as overridden."""
        return self.assembly.config

    def dtype(self, case: Case) -> torch.dtype:
        """What most matmuls of ``case`` run in: its precision's, or that of the state."""
        chosen = self.parts(case).inference.dtype
        if chosen is not None:
            return chosen
        ids = torch.zeros(1, 1, dtype=torch.int64, device=self.assembly.context.device)
        dtype = self.assembly.space.embed(ids).dtype
        return dtype if dtype.is_floating_point else torch.float32

    def kernel(self, case: Case) -> str:
        """What runs the attention of ``case``, if it has any, and its vocabulary step."""
        space = self.parts(case).prepared().space
        return ", ".join([*attention_used(self.assembly.network), f"vocabulary {space.kernel}"])

    def fingerprint(self) -> str:
        """The sha256 that certificates name the model by."""
        return Model(None, self.assembly, assemble_sampling(self.assembly)).digest()

    def resolve(self, case: Case) -> RecipeConfig:
        """The recipe with the parts of ``case``, all of them checked."""
        words = short.overrides(case.sampler, case.grid, case.exit, case.freeze, [case.guidance])
        words += PRECISIONS[case.precision]
        text = Resolved(self.config, Path(self.name)).text()
        return resolve_text(text, self.name, words, self.assembly.registry).config

    def parts(self, case: Case, rule: Part | None = None) -> SamplingParts:
        """What samples ``case``; ``rule`` takes the place of its exit."""
        config = self.resolve(case)
        if rule is not None:
            config = config.model_copy(update={"exit": rule})
        return assemble_sampling(self.assembly, config)

    def tracing(self, case: Case, statistics: Collection[str]) -> SamplingParts:
        """What samples the full run of ``case`` while ``statistics`` are computed."""
        config = self.resolve(case.base)
        known = {part.use.rpartition(":")[2] for part in config.statistic} | set(BUILT_IN)
        more = [Part(use=name) for name in sorted(statistics) if name not in known]
        config = config.model_copy(update={"exit": None, "statistic": [*config.statistic, *more]})
        return assemble_sampling(self.assembly, config)

    def check_noise(self, rule: ExitCriterion) -> None:
        """Raise RecipeError for a threshold of ``rule`` that rounding would decide."""
        names = [name for name in rule.needs if name not in BUILT_IN]
        statistics = {name: self.build("statistic", Part(use=name)) for name in names}
        refuse_noise(rule, statistics, self.assembly.context.dtype)

    def build(self, kind: str, part: Part) -> Any:
        """A further part of this recipe."""
        return self.assembly.build(kind, part)


def open_subject(
    reference: str | None, overrides: Sequence[str] = (), device: torch.device | str = "cpu"
) -> Subject:
    """The model that ``reference`` means: a run, a checkpoint, or a recipe with nothing to train.

    None is :func:`default_model`. Raises UsageError for a recipe that would have to be trained,
    and what loading a model raises.
    """
    name = reference or default_model()
    model = open_model(name, overrides, device=device)
    data: Data = model.assembly.data or model.assembly.build("data", model.config.data)
    return Subject(name, replace(model.assembly, data=data), data)
