"""From a resolved recipe to the objects it means. The only file here that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dlmkit import files
from dlmkit.core.cache import Cache, Kind
from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import BUILT_IN, ExitCriterion, Statistic, refuse_noise
from dlmkit.core.masking import Masking
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.objective import Objective
from dlmkit.core.room import reckoned, without_memory
from dlmkit.core.sampler import Sampler
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.core.start import text_starts
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.recipe.schema import RecipeConfig, SampleConfig
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.threads import follow_load

_MODEL = ("space", "schedule", "network", "masking", "objective")


@dataclass(frozen=True)
class Assembly:
    """A recipe's parts. ``objective`` is the module that holds space, schedule and network.

    ``context`` is what further parts (samplers, metrics, trackers) are built with; ``data`` is
    None if the model was assembled for sampling alone.
    """

    config: RecipeConfig
    registry: Registry
    context: BuildContext
    tokenizer: Tokenizer
    data: Data | None
    space: EmbeddingSpace
    schedule: NoiseSchedule
    network: ScoreNetwork
    masking: Masking
    objective: Objective

    def with_data(self, data: Data) -> Assembly:
        """This assembly once its recipe's text has been read."""
        return replace(self, data=data, context=_extended(self.context, "data", data))

    def build(self, kind: str, part: Part) -> Any:
        """A further part of this recipe."""
        return self.registry.build(kind, part, self.context)


def assemble(
    config: RecipeConfig,
    registry: Registry,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    with_data: bool = True,
    start: bool = True,
    tokenizer: Tokenizer | None = None,
    fill: Callable[[Objective], None] | None = None,
) -> Assembly:
    """Build data, space, schedule, network, masking and objective, in this order.

    Initial weights are a function of ``config.seed``: they are drawn on the CPU, in ``dtype``, from
    torch's global generator, which is seeded here. Those that start from the text are then given
    it, unless there is none, ``folder`` holds weights that will take their place, or ``start`` is
    False. Without data, the ``tokenizer`` or that of ``folder`` gives the vocabulary.

    With ``fill`` the objective is built without memory for its weights, which ``fill`` gives it.
    """
    follow_load()  # here, since all that computes is built here
    context = BuildContext(
        length=config.length,
        seed=config.seed,
        device=torch.device(device),
        dtype=dtype,
        attention=config.attention,
        folder=folder,
    )
    data: Data | None = registry.build("data", config.data, context) if with_data else None
    if data is not None:
        tokenizer = data.tokenizer
    tokenizer = tokenizer or _saved_tokenizer(folder)
    context = replace(context, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id)
    if data is not None:
        context = _extended(context, "data", data)
    torch.manual_seed(config.seed)
    with _default_dtype(dtype), without_memory() if fill else nullcontext():
        for kind in _MODEL:
            with reckoned(f"{kind} {getattr(config, kind).use}"):
                part = registry.build(kind, getattr(config, kind), context)
            context = _extended(context, kind, part)
    objective = context.part("objective")
    if data is not None and folder is None and start:
        for part in text_starts(objective):
            part.start_from(data)
    if fill is None:
        objective.to(context.device)
    else:
        fill(objective)
    context.part("network").probe()
    parts = {kind: context.part(kind) for kind in _MODEL}
    return Assembly(config, registry, context, tokenizer, data, **parts)


def _saved_tokenizer(folder: Path | None) -> Tokenizer:
    if folder is None:
        raise UsageError("a model without data needs the folder that its tokenizer is saved in")
    return Tokenizer.load(folder)


def _extended(context: BuildContext, kind: str, part: Any) -> BuildContext:
    return replace(context, parts={**context.parts, kind: part})


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def assemble_sampling(assembly: Assembly, config: RecipeConfig | None = None) -> SamplingParts:
    """What the sampling loop needs of ``assembly``, chosen by ``config`` (default: its own).

    ``statistics`` holds the recipe's, by short name, and those beside them that its exit rules
    need and some plugin provides. Raises RecipeError for a threshold that rounding would
    decide and, like PluginError, for a way to run the network that does not work here.
    """
    config = config or assembly.config
    inference = _inference(assembly, config.sample)
    exit_rule: ExitCriterion | None = None
    if config.exit is not None:
        exit_rule = assembly.build("exit", config.exit)
    freeze: ExitCriterion | None = None
    if config.freeze is not None:
        freeze = assembly.build("exit", config.freeze)
    rules = [rule for rule in (exit_rule, freeze) if rule is not None]
    statistics = _statistics(assembly, config, *rules)
    for rule in rules:
        refuse_noise(rule, statistics, inference.dtype or assembly.context.dtype)
    sampler, denoise = assembly.build("sampler", config.sampler), assembly.objective.denoise()
    if config.freeze is not None and sampler.accepts is not None:
        raise RecipeError(
            f"freeze: {config.sampler.use} says itself which positions settle; write the rule as "
            f"sampler.with.{sampler.accepts}"
        )
    if not sampler.gaps and (config.exit or config.freeze or config.guidance):
        raise RecipeError(
            f"exit, freeze and guidance: {config.sampler.use} writes from left to right and knows "
            "nothing of what stands further on: leave them out"
        )
    if config.sample.cache != "none":
        denoise = _keeping(config.sample.cache, denoise, sampler, assembly.network, config)
    return SamplingParts(
        space=assembly.space,
        schedule=assembly.schedule,
        denoise=denoise,
        sampler=sampler,
        grid=assembly.build("grid", config.grid),
        exit=exit_rule,
        freeze=freeze,
        statistics=statistics,
        guidance=tuple(assembly.build("guidance", part) for part in config.guidance),
        inference=inference,
        stop=frozenset(_token(assembly.tokenizer, token) for token in config.sample.stop),
    )


def _keeping(
    kind: Kind, denoise: Denoise, sampler: Sampler, network: ScoreNetwork, config: RecipeConfig
) -> Denoise:
    """``denoise`` with the cache ``kind``. Raises RecipeError where it could not give texts, or an
    exact one others than without."""
    window = sampler.window
    block, exact = getattr(network, "block", None), kind == "exact"
    if exact and block and (window is None or not window.aligned or window.size % block):
        raise RecipeError(
            f"sample.cache: exact needs a sampler that writes block after block, counted from a "
            f"row's first position, and {config.sampler.use} does not: take mdlm:unmasking with "
            f"window: {block} or a multiple of it, or masked:decoder with that and window_from: row"
        )
    if kind in ("prefix", "dual") and window is None:
        raise RecipeError(
            f"sample.cache: {kind} is computed anew window after window, and {config.sampler.use} "
            "has none: take masked:decoder with window: 32, say"
        )
    if kind in ("exact", "dual") and (
        config.exit or config.freeze or config.guidance or config.statistic
    ):
        raise RecipeError(
            f"sample.cache: {kind} predicts what is being written alone, and exit, freeze, "
            "statistic and guidance read whole rows: leave them out, or sample.cache"
        )
    return denoise.keeping(Cache(kind, window, config.sample.refresh))


def _token(tokenizer: Tokenizer, token: str) -> int:
    number: int | None = tokenizer.backend.token_to_id(token)
    if number is None:
        raise RecipeError(f"sample.stop: the tokenizer has no token {files.quoted(token)}")
    return number


def _inference(assembly: Assembly, config: SampleConfig) -> Inference:
    inference = Inference(
        dtype=torch.bfloat16 if config.precision == "bf16" else None,
        compile=config.compile,
        cuda_graphs=config.cuda_graphs,
        int8=config.int8,
    )
    inference.check(assembly.network, assembly.context.device)
    return inference


def _statistics(
    assembly: Assembly, config: RecipeConfig, *rules: ExitCriterion
) -> Mapping[str, Statistic]:
    parts: dict[str, Part] = {}
    for part in config.statistic:
        name = part.use.rpartition(":")[2]
        if name in parts or name in BUILT_IN:
            raise RecipeError(f"statistic: two statistics go by the name {name!r}")
        parts[name] = part
    for name in chain.from_iterable(rule.needs for rule in rules):
        if name not in BUILT_IN:
            parts.setdefault(name, Part(use=name))
    return {name: assembly.build("statistic", part) for name, part in parts.items()}
