"""What a run of the bench measures, and the protocol that makes two runs comparable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from dlmkit.bench import device as machine
from dlmkit.bench.cases import Lists
from dlmkit.model import Model
from dlmkit.sampling.requests import Request
from dlmkit.types import Index


@dataclass(frozen=True)
class SamplerPlan:
    """``model`` is how it was asked for. ``texts`` are reported on, and ``calibration`` others
    choose thresholds and fixed exits.

    ``bound`` is the share of differing tokens that a threshold may cost on the calibration
    texts. ``given`` are percentages of a text that are given as its beginning, one after the
    other; each is a bucket of its own. ``rules`` halt texts; ``freeze`` settle single positions,
    and come with their thresholds, since that changes the neighbours and cannot be replayed.
    """

    model: str
    lists: Lists
    texts: int
    calibration: int
    seed: int = 0
    rounds: int = 3
    early_exit: bool = False
    rules: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    bound: float = 0.01
    given: tuple[int, ...] = (0,)

    def requests(self, model: Model) -> tuple[list[Request], Index]:
        """The texts asked for, those reported on first, and the bucket of each.

        What is given is the beginning of held-out text.
        """
        length, count = model.config.length, self.texts + self.calibration
        bucket = torch.arange(count) % len(self.given)
        if self.given == (0,):
            return [Request.free(row, length) for row in range(count)], bucket
        held_out = model.data.validation(count).ids.tolist()
        kept = [length * share // 100 for share in self.given]
        requests = [
            Request.prompt(row, held_out[row % len(held_out)][: kept[row % len(kept)]], length)
            for row in range(count)
        ]
        return requests, bucket

    def protocol(self, model: Model, peaks: dict[str, float]) -> dict[str, Any]:
        """Everything that must be equal for times and figures of two runs to be compared."""
        facts = asdict(self)
        facts.pop("lists")
        info = machine.describe(model.assembly.context.device)
        return {
            "model_sha256": model.digest(),
            "length": model.config.length,
            "vocabulary": model.assembly.tokenizer.vocab_size,
            "device": machine.measured(info),
            "threads": info["threads"],
            "metrics": [part.use for part in model.config.metric],
            "dtypes": sorted(peaks),
            "score": "token and row disagreement with the full run of the same sampler, grid and "
            "steps from the same noise",
            **{k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()},
        }
