"""`dlmkit bench sampler --decoders`: orders and quotas of a masked model at equal evaluations.

Every rule is run at several mean numbers of evaluations and compared with random order on a
coarser grid, the same model's cheapest way to spend fewer of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.tokens import MaskCorruption
from dlmkit.errors import UsageError
from dlmkit.evaluation.score import Scoring, scorer
from dlmkit.exact.intervals import Interval, percentile, resamplings
from dlmkit.exits.quota import DECODER, decoded, knob
from dlmkit.model import Model, Run
from dlmkit.plugin import Config, Part
from dlmkit.report import markdown
from dlmkit.sampling.requests import unconditional

Say = Callable[[str], None]

RANDOM, SCHEDULE = "masked:random", "masked:schedule"
NATURAL = {"masked:entropy-bound": "masked:entropy"}
"""The order of a quota that was published with one; others are run by confidence."""
CONFIDENCE = "masked:confidence"
GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Steps of the coarser grids, as far as a text has tokens; one token a step ends them."""
RESAMPLES = 2000
TRIES = 8
"""Runs that look for the number of a quota that takes so many evaluations."""
CALIBRATION = 128
"""Texts of each of those runs, of indices that are not reported on."""


@dataclass(frozen=True)
class Plan:
    """What to compare: mean ``evaluations`` of a text, ``texts``, and their seed."""

    evaluations: tuple[int, ...] = (4, 8, 16, 32)
    texts: int = 256
    batch_size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Rule:
    """An order with a quota. ``knob`` is the quota's number that sets its pace, None: the grid."""

    order: str
    quota: str
    knob: str | None = None

    @property
    def name(self) -> str:
        """As tables show it."""
        order, quota = (name.removeprefix("masked:") for name in (self.order, self.quota))
        return f"{order} | {quota}"


@dataclass(frozen=True)
class Found:
    """One run: of every text its evaluations, nats a token, entropy and ids."""

    evaluations: Float[Tensor, "B"]
    nats: Float[Tensor, "B"]
    entropy: Float[Tensor, "B"]
    quality: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A rule at one mean number of evaluations. ``saving`` is 1 - evaluations / those of random
    order on the coarser grid whose texts have the same likelihood gap."""

    rule: str
    target: int
    setting: float | None
    evaluations: float
    gap: float
    gap_interval: Interval
    entropy: float
    entropy_interval: Interval
    saving: float | None
    saving_interval: Interval | None
    quality: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """``saving`` over the coarser grid in the geometric mean over the numbers of evaluations, its
    interval holding for all ``rules`` together; None: every run is as good as one token a step."""

    rule: str
    saving: float
    interval: Interval
    entropy_fell: bool
    rules: int

    @property
    def gain(self) -> bool:
        """Whether it saves evaluations for certain, and not by writing less varied texts."""
        return round(100.0 * self.interval.low, 1) > 0.0 and not self.entropy_fell

    @property
    def sentence(self) -> str:
        """One plain line."""
        saving, low, high = (round(100.0 * v, 1) + 0.0 for v in (self.saving, *self.interval))
        numbers = f"{saving:.1f} % of evaluations, 95 % interval {low:.1f} to {high:.1f}"
        if self.gain:
            return f"{self.rule}: worth {numbers} over random order on a coarser grid"
        less = "; its texts are less varied than the model's" if self.entropy_fell else ""
        return f"{self.rule}: no gain over random order on a coarser grid ({numbers}{less})"


class Bench:
    """One comparison on ``model``, called ``name``. ``say`` gets a line a run."""

    def __init__(self, model: Model, name: str, plan: Plan, say: Say) -> None:
        if not isinstance(model.parts.space.corruption, MaskCorruption):
            raise UsageError(
                f"{name}: --decoders compares orders and quotas of masked models, and this "
                f"model has {type(model.parts.space.corruption).__name__}; try markov_masked"
            )
        self.model, self.name, self.plan, self.say = model, name, plan, say
        self.length = model.config.length
        metrics = [model.assembly.build("metric", part) for part in model.config.metric]
        for metric in metrics:
            metric.fit(model.data)
        self.metrics = metrics
        self.exact = next((m for m in metrics if hasattr(m, "per_text")), None)
        self.judge = scorer(self._decoded(RANDOM, Part(use=SCHEDULE)).parts, Scoring(block=1))
        self.rules = self._rules()

    def run(self) -> dict[str, Any]:
        """Everything, as one document."""
        plan, reference = self.plan, self._run(RANDOM, Part(use=SCHEDULE), self.length)
        steps = [n for n in GRID if n < self.length]
        curve = {n: self._run(RANDOM, Part(use=SCHEDULE), n) for n in steps}
        curve[self.length] = reference
        grid = Curve.of(curve, reference)
        rows = [self._coarser(n, curve[n], reference) for n in plan.evaluations if n in curve]
        verdicts = []
        for rule in self.rules:
            measured = []
            for target in plan.evaluations:
                setting, found = self._at(rule, target)
                measured.append(found)
                row = grid.row(rule, target, setting, found, reference)
                self.say(f"{rule.name}: {row.evaluations:.2f} evaluations, gap {row.gap:.4f}")
                rows.append(row)
            verdicts.append(grid.verdict(rule.name, measured, reference, len(self.rules)))
        oracle = self._oracle()
        rows += [] if oracle is None else [grid.row(*oracle, reference)]
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
                "calibration": CALIBRATION,
            },
            "rows": [asdict(row) for row in rows],
            "verdicts": [
                {**asdict(verdict), "gain": verdict.gain, "sentence": verdict.sentence}
                for verdict in verdicts
            ],
        }

    def _rules(self) -> list[Rule]:
        """Every order with the schedule, and every other quota with the order it is made for."""
        registry = self.model.assembly.registry
        orders = [e.qualified for e in registry.components("order")]
        rules = [Rule(order, SCHEDULE) for order in orders if order != RANDOM]
        for entry in registry.components("quota"):
            pace = knob(entry.component.config)
            if entry.qualified != SCHEDULE and pace is not None:
                order = NATURAL.get(entry.qualified, CONFIDENCE)
                rules.append(Rule(order, entry.qualified, pace))
        return rules

    def _decoded(self, order: str, quota: Part) -> Model:
        options = {"order": Part(use=order), "quota": quota}
        return decoded(self.model, Part(use=DECODER, options=options))

    def _drawn(
        self, order: str, quota: Part, steps: int, count: int, first: int
    ) -> tuple[list[tuple[int, ...]], Tensor]:
        run = Run(self.plan.seed, steps, self.plan.batch_size)
        requests = unconditional(count, self.length, first)
        samples = self._decoded(order, quota).run(requests, run)
        spent = torch.tensor([sample.evaluations for sample in samples], dtype=torch.float64)
        return [tuple(sample.ids) for sample in samples], spent

    def _run(self, order: str, quota: Part, steps: int) -> Found:
        ids, spent = self._drawn(order, quota, steps, self.plan.texts, 0)
        texts = [self.model.assembly.tokenizer.decode(row) for row in ids]
        quality: dict[str, float] = {}
        for metric in self.metrics:
            quality = {**metric.measure(texts), **quality}
        return Found(spent, self._nats(ids, texts), entropy(ids), quality)

    def _nats(self, ids: Sequence[Sequence[int]], texts: Sequence[str]) -> Tensor:
        if self.exact is not None:
            found: Tensor = self.exact.per_text(self.exact.ids(texts)).double()
            return found
        return torch.tensor(
            [self.judge.nats(list(row), 0, 0) / len(row) for row in ids], dtype=torch.float64
        )

    def _at(self, rule: Rule, target: int) -> tuple[float, Found]:
        """The setting at which ``rule`` takes ``target`` evaluations on average, and its run."""
        if rule.knob is None:
            return target, self._run(rule.order, Part(use=rule.quota), min(target, self.length))
        config = self.model.assembly.registry.find("quota", rule.quota).component.config
        scale = Scale.of(config, rule.knob)

        def mean(setting: float) -> float:
            part = self._quota(rule, setting)
            spent = self._drawn(rule.order, part, self.length, CALIBRATION, self.plan.texts)[1]
            return float(spent.mean())

        setting = scale.search(mean, target)
        return setting, self._run(rule.order, self._quota(rule, setting), self.length)

    @staticmethod
    def _quota(rule: Rule, setting: float) -> Part:
        assert rule.knob is not None
        return Part(use=rule.quota, options={rule.knob: setting})

    def _coarser(self, steps: int, found: Found, reference: Found) -> Row:
        row = _row("random | schedule", steps, float(steps), found, reference)
        return replace(row, saving=None, saving_interval=None)

    def _oracle(self) -> tuple[Rule, int, None, Found] | None:
        """The quota that the data says is exact, if it says so: of a chain, one token a gap."""
        registry = self.model.assembly.registry
        name = getattr(self.model.data, "oracle_quota", None)
        if name is None:
            return None
        rule = Rule(RANDOM, registry.find("quota", name).qualified)
        found = self._run(rule.order, Part(use=rule.quota), self.length)
        return rule, round(float(found.evaluations.mean())), None, found


@dataclass(frozen=True)
class Curve:
    """Evaluations of random order against its likelihood gap, and how both vary over texts."""

    evaluations: Float[Tensor, "N"]
    gaps: Float[Tensor, "R N"]

    @staticmethod
    def of(runs: Mapping[int, Found], reference: Found) -> Curve:
        """From the runs by their steps. Row 0 is of all texts, the others of resampled ones."""
        each = torch.stack([found.nats - reference.nats for found in runs.values()], dim=1)
        spent = torch.stack([found.evaluations.mean() for found in runs.values()])
        # more evaluations are never worse: what says so is noise
        gaps = (_weights(len(each)) @ each).flip(1).cummax(dim=1).values.flip(1).clamp(min=0.0)
        return Curve(spent, gaps)

    def equal(self, gap: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """Evaluations at which random order has the same gap, interpolated in its logarithm."""
        log_cost = self.evaluations.log()
        cost = torch.full_like(gap, float(log_cost[-1]))
        for k in range(len(log_cost) - 1):
            high, low = self.gaps[:, k], self.gaps[:, k + 1]
            share = ((high - gap) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
            inside = (gap <= high) & (gap >= low)
            here = log_cost[k] + share * (log_cost[k + 1] - log_cost[k])
            cost = torch.where(inside, torch.minimum(cost, here), cost)
        return torch.where(gap > self.gaps[:, 0], log_cost[0], cost).exp()

    def _ratio(self, found: Found, reference: Found) -> Float[Tensor, "R"]:
        """log of evaluations over those of the coarser grid at the same gap."""
        weights = _weights(len(found.nats))
        gap = (weights @ (found.nats - reference.nats)).clamp(min=0.0)
        return (weights @ found.evaluations).log() - self.equal(gap).log()

    def row(
        self, rule: Rule, target: int, setting: float | None, found: Found, reference: Found
    ) -> Row:
        """The measured row of a rule."""
        saving = 1.0 - self._ratio(found, reference).exp()
        row = _row(rule.name, target, setting, found, reference)
        interval = percentile(saving[1:], 0.95)
        return replace(row, saving=float(saving[0]), saving_interval=interval)

    def verdict(
        self, name: str, measured: Sequence[Found], reference: Found, rules: int
    ) -> Verdict:
        """Over all runs of one rule."""
        ratios = torch.stack([self._ratio(found, reference) for found in measured]).mean(dim=0)
        saving = 1.0 - ratios.exp()
        fell = [
            percentile(_weights(len(f.entropy))[1:] @ (f.entropy - reference.entropy), 0.95).high
            < -0.01
            for f in measured
        ]
        interval = percentile(saving[1:], 1.0 - 0.05 / rules)
        return Verdict(name, float(saving[0]), interval, any(fell), rules)


def _row(name: str, target: int, setting: float | None, found: Found, reference: Found) -> Row:
    weights = _weights(len(found.nats))
    gaps, entropies = weights @ (found.nats - reference.nats), weights @ found.entropy
    return Row(
        rule=name,
        target=target,
        setting=setting,
        evaluations=float(found.evaluations.mean()),
        gap=float(gaps[0]),
        gap_interval=percentile(gaps[1:], 0.95),
        entropy=float(entropies[0]),
        entropy_interval=percentile(entropies[1:], 0.95),
        saving=None,
        saving_interval=None,
        quality=found.quality,
    )


def entropy(ids: Sequence[Sequence[int]]) -> Float[Tensor, "B"]:
    """The entropy of the tokens of each text by how often it has them, in nats."""
    found = []
    for row in ids:
        share = torch.tensor(row).unique(return_counts=True)[1].double() / len(row)
        found.append(-(share * share.log()).sum())
    return torch.stack(found)


@cache
def _weights(texts: int) -> Float[Tensor, "R B"]:
    """Shares of each text: all equal in the first row, bootstrap draws in the others.

    The same in every call, so runs are compared text by text.
    """
    drawn = torch.stack(list(resamplings(texts, RESAMPLES)))
    counts = torch.zeros(RESAMPLES, texts, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return torch.cat((torch.ones(1, texts, dtype=torch.float64), counts)) / texts


@dataclass(frozen=True)
class Scale:
    """Where a quota's number may lie: (low, high), or above ``low`` if high is infinite."""

    low: float
    high: float

    @staticmethod
    def of(config: type[Config], knob: str) -> Scale:
        """By the bounds that its Config declares."""
        low, high = 0.0, math.inf
        for bound in config.model_fields[knob].metadata:
            if isinstance(bound, Gt | Ge):
                low = float(bound.gt if isinstance(bound, Gt) else bound.ge)  # type: ignore[arg-type]
            if isinstance(bound, Lt | Le):
                high = float(bound.lt if isinstance(bound, Lt) else bound.le)  # type: ignore[arg-type]
        return Scale(low, high)

    def at(self, u: float) -> float:
        """The setting at ``u``, any real number: rising, and fine near both ends."""
        if math.isinf(self.high):
            return self.low + math.exp(u)
        return self.low + (self.high - self.low) / (1.0 + math.exp(-u))

    def search(self, mean: Callable[[float], float], target: float) -> float:
        """The setting whose mean is nearest to ``target``, by bisection: the mean is monotonic."""
        low, high = -9.0, 12.0
        ends = {u: mean(self.at(u)) for u in (low, high)}
        rising = ends[high] > ends[low]
        tried = dict(ends)
        for _ in range(TRIES):
            u = 0.5 * (low + high)
            tried[u] = mean(self.at(u))
            if (tried[u] < target) == rising:
                low = u
            else:
                high = u
        return self.at(min(tried, key=lambda u: abs(tried[u] - target)))


def run(model: Model, name: str, plan: Plan, say: Say = lambda line: None) -> dict[str, Any]:
    """Compare the decoders of ``model``, called ``name``, by ``plan``: the document."""
    return Bench(model, name, plan, say).run()


def lines(content: Mapping[str, Any]) -> list[str]:
    """The document as a table and one sentence a rule."""
    protocol = content["protocol"]
    extra = [name for name in ("impossible",) if name in content["rows"][0]["quality"]]
    head = ["order, quota", "setting", "evaluations", "gap, nats/token"]
    head += [*(f"{name} %" for name in extra), "entropy", "saved over the coarser grid %"]
    table = []
    for row in content["rows"]:
        quality = row["quality"]
        cells = [row["rule"].replace(" | ", ", ")]
        cells.append("" if row["setting"] is None else f"{row['setting']:.4g}")
        cells.append(f"{row['evaluations']:.2f}")
        cells.append(_with_interval(row["gap"], row["gap_interval"], 3))
        for name in extra:
            ends = [100 * quality[f"{name}_low"], 100 * quality[f"{name}_high"]]
            cells.append(_with_interval(100 * quality[name], ends, 2))
        cells.append(_with_interval(row["entropy"], row["entropy_interval"], 3))
        saved = row["saving"]
        between = [100 * value for value in row["saving_interval"] or ()]
        cells.append("" if saved is None else _with_interval(100 * saved, between, 0))
        table.append(cells)
    return [
        f"{content['model']}: {protocol['texts']} texts of {protocol['length']} tokens, seed "
        f"{protocol['seed']}; nats by {protocol['nats']}",
        "",
        *markdown(head, table).splitlines(),
        "",
        *(verdict["sentence"] for verdict in content["verdicts"]),
    ]


def _with_interval(value: float, ends: Sequence[float], digits: int) -> str:
    value, low, high = (round(number, digits) + 0.0 for number in (value, *ends))  # no minus zero
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
