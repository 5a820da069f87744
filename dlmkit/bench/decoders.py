"""`dlmkit bench sampler --decoders`: the decoders of a masked model at equal evaluations.

Every rule of the shelf is run at several mean numbers of evaluations and compared with random order
on a coarser grid, the same model's cheapest way to spend fewer of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from dlmkit.bench.saving import Curve, Found, entropy, plain_row
from dlmkit.bench.shelf import PLAIN, Rule, oracle, rules
from dlmkit.core.tokens import MaskCorruption
from dlmkit.errors import RecipeError, UsageError
from dlmkit.evaluation.score import Scoring, scorer
from dlmkit.exact.intervals import RESAMPLES
from dlmkit.exits.quota import written
from dlmkit.model import Model, Run
from dlmkit.report import estimate, markdown
from dlmkit.sampling.requests import unconditional

Say = Callable[[str], None]

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Steps of the coarser grids, as far as a text has tokens; one token a step ends them."""

DRAWS = 16
"""Of the bound on a text's likelihood: they add less to its variance than texts differ by, and
scoring one token after the other would take as many passes as a text has tokens."""


@dataclass(frozen=True)
class DecoderPlan:
    """What to compare: mean ``evaluations`` of a text, ``texts``, and their seed.

    ``calibration`` are texts, of indices that are not reported on, of each run that looks for the
    number of a rule.
    """

    evaluations: tuple[int, ...] = (4, 8, 16, 32)
    texts: int = 256
    batch_size: int = 64
    seed: int = 0
    calibration: int = 32


class DecoderBench:
    """One comparison on ``model``, called ``name``. ``say`` gets a line a run."""

    def __init__(self, model: Model, name: str, plan: DecoderPlan, say: Say) -> None:
        if not isinstance(model.parts.space.corruption, MaskCorruption):
            raise UsageError(
                f"{name}: --decoders compares orders and quotas of masked models, and this "
                f"model has {type(model.parts.space.corruption).__name__}; try markov"
            )
        self.model, self.name, self.plan, self.say = model, name, plan, say
        self.length = model.config.length
        metrics = [model.assembly.build("metric", part) for part in model.config.metric]
        for metric in metrics:
            metric.fit(model.data)
        self.metrics = metrics
        self.exact = next((m for m in metrics if hasattr(m, "per_text")), None)
        self.judge = scorer(PLAIN.of(model).parts, Scoring(draws=DRAWS))
        self.scored: dict[tuple[int, ...], float] = {}

    def run(self) -> dict[str, Any]:
        """Everything, as one document."""
        plan, reference = self.plan, self.measured(PLAIN, None, self.length)
        steps = [n for n in GRID if n < self.length]
        curve = {n: self.measured(PLAIN, None, n) for n in steps}
        curve[self.length] = reference
        grid = Curve.of(curve, reference)
        rows = [
            plain_row(PLAIN.name, n, float(n), curve[n], reference)
            for n in plan.evaluations
            if n in curve
        ]
        measured: dict[str, list[Found]] = {}
        left_out: dict[str, str] = {}
        for rule in rules(self.model):
            try:
                results = self.at(rule)
            except RecipeError as error:
                left_out[rule.name] = str(error)
                self.say(f"{rule.name}: left out: {error}")
                continue
            measured[rule.name] = [result for _, result in results]
            for target, (setting, result) in zip(plan.evaluations, results, strict=True):
                rows.append(grid.row(rule.name, target, setting, result, reference))
                self.say(f"{rule.name}: {rows[-1].evaluations:.2f} evaluations")
        exact = oracle(self.model)
        if exact is not None:
            result = self.measured(exact, None, self.length)
            taken = round(float(result.evaluations.mean()))
            rows.append(grid.row(exact.name, taken, None, result, reference))
        verdicts = [
            grid.verdict(name, results, reference, len(measured))
            for name, results in measured.items()
        ]
        return {
            "format": "dlmkit-decoders",
            "model": self.name,
            "sha256": self.model.digest(),
            "protocol": {
                **asdict(plan),
                "length": self.length,
                "nats": "the text's own chain" if self.exact else self.judge.method,
                "reference": "random order, one token a step",
                "grid": steps,
                "resamples": RESAMPLES,
            },
            "rows": [asdict(row) for row in rows],
            "verdicts": [
                {**asdict(verdict), "gain": verdict.gain, "sentence": verdict.sentence}
                for verdict in verdicts
            ],
            "left_out": left_out,
        }

    def at(self, rule: Rule) -> list[tuple[float, Found]]:
        """Of every number of evaluations: the setting at which ``rule`` takes as many on average,
        and its run."""
        scale, targets = rule.scale, self.plan.evaluations
        if scale is None:
            return [(n, self.measured(rule, None, min(n, self.length))) for n in targets]
        tried: dict[float, float] = {}

        def mean(setting: float) -> float:
            asked = self.plan.calibration, self.plan.texts
            return float(self._drawn(rule.of(self.model, setting), self.length, *asked)[1].mean())

        settings = [scale.search(mean, target, tried) for target in targets]
        return [(setting, self.measured(rule, setting, self.length)) for setting in settings]

    def measured(self, rule: Rule, setting: float | None, steps: int) -> Found:
        """The texts of ``rule`` at ``setting``, measured."""
        ids, spent = self._drawn(rule.of(self.model, setting), steps, self.plan.texts, 0)
        texts = [self.model.assembly.tokenizer.decode(row) for row in ids]
        quality: dict[str, float] = {}
        for metric in self.metrics:
            quality = {**metric.measure(texts), **quality}
        return Found(spent, self._nats(ids, texts), entropy(ids), quality)

    def _drawn(
        self, model: Model, steps: int, count: int, first: int
    ) -> tuple[list[tuple[int, ...]], Tensor]:
        run = Run(self.plan.seed, steps, self.plan.batch_size)
        ids, spent = written(model, unconditional(count, self.length, first), run)
        return ids, spent.double()

    def _nats(self, ids: Sequence[tuple[int, ...]], texts: Sequence[str]) -> Tensor:
        if self.exact is not None:
            nats: Tensor = self.exact.per_text(self.exact.ids(texts)).double()
            return nats
        for row in ids:
            if row not in self.scored:  # rules often write the same text
                self.scored[row] = self.judge.keyed(row, 0) / len(row)
        return torch.tensor([self.scored[row] for row in ids], dtype=torch.float64)


def run(model: Model, name: str, plan: DecoderPlan, say: Say = lambda line: None) -> dict[str, Any]:
    """Compare the decoders of ``model``, called ``name``, by ``plan``: the document."""
    return DecoderBench(model, name, plan, say).run()


def lines(content: Mapping[str, Any]) -> list[str]:
    """The document as a table and one sentence a rule."""
    protocol = content["protocol"]
    extra = [name for name in ("impossible",) if name in content["rows"][0]["quality"]]
    head = ["order, quota", "setting", "evaluations", "gap, nats/token"]
    head += [*(f"{name} %" for name in extra), "entropy", "saved over the coarser grid %"]
    table = []
    for row in content["rows"]:
        quality, saved = row["quality"], row["saving"]
        shares = [[quality[name + end] for end in ("", "_low", "_high")] for name in extra]
        table.append(
            [
                row["rule"].replace(" | ", ", "),
                "" if row["setting"] is None else f"{row['setting']:.4g}",
                f"{row['evaluations']:.2f}",
                estimate(row["gap"], row["gap_interval"], 3),
                *(estimate(100 * v, (100 * low, 100 * high), 2) for v, low, high in shares),
                estimate(row["entropy"], row["entropy_interval"], 3),
                ""
                if saved is None
                else estimate(100 * saved, [100 * end for end in row["saving_interval"]], 0),
            ]
        )
    return [
        f"{content['model']}: {protocol['texts']} texts of {protocol['length']} tokens, seed "
        f"{protocol['seed']}; nats by {protocol['nats']}",
        "",
        *markdown(head, table).splitlines(),
        "",
        *(verdict["sentence"] for verdict in content["verdicts"]),
        *(f"{name}: left out: {why}" for name, why in content["left_out"].items()),
    ]
