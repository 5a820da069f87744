"""What a run does with its averaged weights between steps: validation by noise level, and samples.

Both call a denoiser that looks at the stop flag before every evaluation, so that a run reacts
within one evaluation wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import Denoise, Prediction, Wrapped
from dlmkit.core.metric import Metric
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Objective
from dlmkit.core.schedule import Level
from dlmkit.exact.context_gain import Frequencies, context_gain
from dlmkit.recipe.assemble import Assembly, assemble_sampling
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate
from dlmkit.training.signals import Stopped

_COUNTED = 500_000  # training tokens behind the context-free denoiser

Stop = Callable[[], bool]


class Polling(Wrapped):
    """``inner``, but an evaluation raises Stopped once ``stop()`` holds."""

    def __init__(self, inner: Denoise, stop: Stop) -> None:
        super().__init__(inner)
        self.stop = stop

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        if self.stop():
            raise Stopped
        return super().__call__(x, level, previous, conditioning)


@dataclass(frozen=True)
class Evaluator:
    """Validates and samples ``objective``, a recipe's model with averaged weights."""

    assembly: Assembly
    objective: Objective
    parts: SamplingParts
    held_out: Batch
    frequencies: Frequencies
    stop: Stop

    @staticmethod
    def of(assembly: Assembly, objective: Objective, stop: Stop) -> Evaluator:
        """An evaluator of ``objective``, a copy of the assembly's. Needs the assembly's data."""
        assert assembly.data is not None
        model = replace(
            assembly,
            objective=objective,
            space=objective.space,
            schedule=objective.schedule,
            network=objective.network,
        )
        parts = assemble_sampling(model)
        parts = replace(parts, denoise=Polling(parts.denoise, stop))
        held_out = assembly.data.validation(assembly.config.train.validation_rows)
        device = assembly.context.device
        held_out = rows.to(held_out, device)
        return Evaluator(
            model, objective, parts, held_out, Frequencies.count(assembly.data, _COUNTED), stop
        )

    def validate(self) -> dict[str, Any]:
        """Cross-entropy on held-out rows at fixed noise levels, whatever the schedule warps.

        ``loss`` is the mean over the levels in nats per token, ``gain`` that of the context gain;
        ``levels`` holds one report per level. Rows are unconditional and self-conditioned.
        """
        reports = context_gain(
            self.parts.denoise,
            self.objective.space,
            self.objective.schedule,
            self.held_out,
            self.frequencies,
            seed=self.assembly.config.seed,
        )
        levels = [report.record() for report in reports]
        loss, gain = ([level[key] or 0.0 for level in levels] for key in ("model", "gain"))
        return {
            "loss": sum(loss) / len(levels),
            "gain": sum(gain) / len(levels),
            "levels": levels,
        }

    def sample(self) -> list[str]:
        """The recipe's ``sample.count`` texts, by its sampler; text i is the same every time."""
        return self._texts(self.assembly.config.sample.count)

    def measure(self) -> dict[str, Any]:
        """The recipe's metrics of ``sample.measured`` texts, under each metric's qualified name."""
        assert self.assembly.data is not None
        texts, measured = self._texts(self.assembly.config.sample.measured), {}
        for part in self.assembly.config.metric:
            metric: Metric = self.assembly.build("metric", part)
            metric.fit(self.assembly.data)
            measured[part.use] = dict(metric.measure(texts))
        return {"texts": len(texts), "metrics": measured}

    def _texts(self, count: int) -> list[str]:
        config = self.assembly.config
        with torch.no_grad():
            samples = generate(
                self.parts,
                unconditional(count, config.length),
                seed=config.seed,
                steps=config.sample.steps,
                batch_size=config.sample.batch_size,
                length=config.length,
            )
        return [self.assembly.tokenizer.decode(sample.ids) for sample in samples]
