"""`dlmkit bench sampler`: every case recorded, run for real, scored and timed in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dlmkit.bench import device as machine
from dlmkit.bench import document
from dlmkit.bench.breakdown import step_breakdown
from dlmkit.bench.cases import FULL, BenchCase
from dlmkit.bench.exits import Choice, Recorded, record
from dlmkit.bench.flops import evaluation_flops
from dlmkit.bench.measure import Outcome, Work, against
from dlmkit.bench.pace import Pace, Say, paced
from dlmkit.bench.parts import dtype, kernel, parts_of, tracing
from dlmkit.bench.plan import SamplerPlan
from dlmkit.bench.quality import Quality
from dlmkit.bench.rows import (
    FIXED,
    ORACLE,
    REGRIDDED,
    CaseRow,
    MeasuredRow,
    agreement,
    compaction,
    disagreement,
    evaluations,
    verdict,
)
from dlmkit.bench.rules import RuleFamily
from dlmkit.bench.timing import interleaved
from dlmkit.bench.verdict import ExitVerdict, judge
from dlmkit.exact.intervals import binomial_cdf
from dlmkit.model import Model
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request

EPSILON, DELTA = 0.05, 0.05
"""A certificate says, at confidence 1 - delta over all rules, that at most this share of texts
differs from the full run: the exact binomial test over texts."""


@dataclass
class SamplerBench:
    """One run. ``say`` gets a line whenever something takes long."""

    model: Model
    plan: SamplerPlan
    say: Say

    def __post_init__(self) -> None:
        self.requests, self.bucket = self.plan.requests(self.model)
        self.families = [RuleFamily.of(self.model, text) for text in self.plan.rules]
        self.quality = Quality.of(self.model, self.say)
        device = self.model.assembly.context.device
        self.dtypes = {case.precision: dtype(self.model, case) for case in self.plan.lists.cases()}
        self.peaks = {
            str(dtype)[6:]: machine.matmul_peak(device, dtype)
            for dtype in dict.fromkeys(self.dtypes.values())
        }
        self.verdicts: list[tuple[BenchCase, ExitVerdict]] = []
        self.risk: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Everything, as one document."""
        with paced(self.say) as pace:
            return self._run(pace)

    def _run(self, pace: Pace) -> dict[str, Any]:
        cases, plan = self.plan.lists.cases(), self.plan
        recorded = {case: case.steps * (plan.texts + plan.calibration) for case in cases}
        runs = 1 + plan.rounds  # of every row
        likely = 1 + len(plan.rules) + len(plan.freeze) + 3 * plan.early_exit  # rows of a case
        pace.expect(
            sum(work + likely * runs * case.steps * plan.texts for case, work in recorded.items())
        )
        rows: list[CaseRow] = []
        for case, work in recorded.items():
            self.say(f"recording {case.name(FULL)}")
            rows += self._rows(case)
            pace.done(work)
        works = [row.case.steps * plan.texts for row in rows]
        pace.expect(sum(recorded.values()) + runs * sum(works))
        measured = []
        for row, work in zip(rows, works, strict=True):
            self.say(f"running {row.name}")
            measured.append(self._measure(row))
            pace.done(work)
        self.say(f"timing {len(rows)} rows, {plan.rounds} interleaved rounds")
        seconds = interleaved([row.run for row in rows], plan.rounds, lambda: pace.done(sum(works)))
        return self._document(measured, seconds)

    def _rows(self, case: BenchCase) -> list[CaseRow]:
        recorded = record(self.model, case, self.families, self.plan, self.requests, self.bucket)
        rows = [self._row(case, FULL, None, recorded, parts_of(self.model, case))]
        choices = [
            choice for family in self.families if (choice := self._choose(family, case, recorded))
        ]
        if self.plan.early_exit:
            rows += self._scheduled(case, recorded)
        for choice in choices:
            part = choice.family.at(choice.threshold)
            parts = parts_of(self.model, case, part)
            name = choice.family.name
            row = self._row(case, name, choice.threshold, recorded, parts)
            rows.append(replace(row, replayed=choice.replayed))
        for rule in self.plan.freeze:
            frozen = replace(case, freeze=rule)
            parts = parts_of(self.model, frozen)
            rows.append(self._row(frozen, f"freeze {rule}", None, recorded, parts))
        if self.plan.early_exit:
            rows += self._regridded(case, recorded, choices)
        return rows

    def _choose(self, family: RuleFamily, case: BenchCase, recorded: Recorded) -> Choice | None:
        choice, risk = recorded.choose(family)
        self.risk.append({"case": case.name(FULL), "rule": family.name, "points": risk})
        if choice is None:
            self.notes.append(
                f"{family.name} on {case.name(FULL)}: no threshold keeps the disagreement below "
                f"{100 * self.plan.bound:g} % of the calibration texts' tokens"
            )
            return None
        if choice.replayed.token_disagreement > self.plan.bound and choice.threshold is None:
            self.notes.append(
                f"{family.name} on {case.name(FULL)}: has no open number, and its disagreement of "
                f"{100 * choice.replayed.token_disagreement:.2f} % lies above the bound"
            )
        if self.plan.early_exit:
            judged = judge(
                family.name,
                choice.threshold,
                choice.replayed,
                recorded.oracle(),
                recorded.curves,
                rules=len(self.families),
            )
            self.verdicts.append((case, judged))
        return choice

    def _row(
        self,
        case: BenchCase,
        title: str,
        threshold: float | None,
        recorded: Recorded,
        parts: SamplingParts,
    ) -> CaseRow:
        return CaseRow(case, title, threshold, recorded, self._work(case, parts).run)

    def _work(self, case: BenchCase, parts: SamplingParts) -> Work:
        requests: Sequence[Request] = self.requests[: self.plan.texts]
        return Work(parts, requests, self.plan.seed, case.steps, case.batch_size, self.length)

    def _scheduled(self, case: BenchCase, recorded: Recorded) -> list[CaseRow]:
        """The best fixed exit and the oracle, run for real at steps known from the trace."""
        bare = parts_of(self.model, case)
        rows = []
        for name, replayed in ((FIXED, recorded.fixed()), (ORACLE, recorded.oracle())):

            def run(steps: torch.Tensor = replayed.steps) -> Outcome:
                return self._work(case, bare).ending(steps).run()

            rows.append(CaseRow(case, name, None, recorded, run, replayed))
        return rows

    def _regridded(
        self, case: BenchCase, recorded: Recorded, choices: Sequence[Choice]
    ) -> list[CaseRow]:
        """Full runs on coarser grids: of as many evaluations as each rule took on average."""
        step_evaluations = float(recorded.report.evaluations[-1]) / case.steps
        grids = {
            max(1, round(float(choice.replayed.evaluations.double().mean()) / step_evaluations))
            for choice in choices
        }
        rows = []
        for steps in sorted(grids - {case.steps}):
            coarse = replace(case, steps=steps)
            parts = parts_of(self.model, coarse)
            rows.append(self._row(coarse, REGRIDDED, None, recorded, parts))
        return rows

    def _measure(self, row: CaseRow) -> MeasuredRow:
        with machine.peak_memory(self.model.assembly.context.device) as memory:
            outcome = row.run()
        trace = row.recorded.report
        score = against(outcome, trace.full, trace.generated, int(trace.evaluations[-1]))
        decode = self.model.assembly.tokenizer.decode
        quality = self.quality.measure([decode(sample.ids) for sample in outcome.samples])
        return MeasuredRow(row, outcome, score, quality, memory.peak)

    def _document(
        self, measured: Sequence[MeasuredRow], seconds: Sequence[Sequence[float]]
    ) -> dict[str, Any]:
        flops = {
            m.row.base: evaluation_flops(
                parts_of(self.model, m.row.base), self.model.assembly.network, self.length
            )
            for m in measured
        }
        full = {
            m.row.base: min(times)
            for m, times in zip(measured, seconds, strict=True)
            if m.row.exit == FULL
        }
        entries = [
            self._entry(m, times, flops[m.row.base], full[m.row.base])
            for m, times in zip(measured, seconds, strict=True)
        ]
        return document.document(
            machine.describe(self.model.assembly.context.device),
            self.plan.protocol(self.model, self.peaks),
            entries,
            {
                "matmul_peak": self.peaks,
                "verdicts": [verdict(case, judged, measured) for case, judged in self.verdicts],
                "risk": self.risk,
                "notes": self.notes,
                "breakdown": self._breakdowns(),
                "compaction": compaction(measured),
            },
        )

    @property
    def length(self) -> int:
        """L."""
        return self.model.config.length

    def _breakdowns(self) -> list[dict[str, Any]]:
        needs = {name for family in self.families for name in family.needs}
        return [
            {
                "case": case.name(FULL),
                "seconds": step_breakdown(self.model, case, tracing(self.model, case, needs)),
            }
            for case in self.plan.lists.cases()[:4]
        ]

    def _entry(
        self, m: MeasuredRow, seconds: Sequence[float], flops: int, full: float
    ) -> dict[str, Any]:
        row, best = m.row, min(seconds)
        dtype = str(self.dtypes[row.case.precision])[6:]
        needed = int(m.outcome.evaluations.sum())
        extra = {
            **asdict(row.case),
            "exit": row.exit,
            "threshold": row.threshold,
            "dtype": dtype,
            "kernel": kernel(self.model, row.base),
            "texts": len(m.outcome.samples),
            **evaluations(m.outcome),
            **disagreement(m.score),
            "speedup": m.score.saving,
            "speedup_interval": list(m.score.saving_interval()),
            "speedup_wall": full / best,
            "speedup_best_fixed": row.recorded.fixed().saving,
            "speedup_oracle_exit": row.recorded.oracle().saving,
            "texts_per_second": len(m.outcome.samples) / best,
            "tokens_per_second": m.outcome.tokens / best,
            "tokens_per_evaluation": m.outcome.drawn / needed,
            "flops_per_evaluation": flops,
            "utilisation": needed * flops / (best * self.peaks[dtype]),
            "peak_memory_bytes": m.memory,
            "quality": m.quality,
            "certificate": self._certificate(m),
            "replay_agreement": agreement(m),
        }
        params = {key: value for key, value in asdict(row.case).items() if key != "exit"}
        group = row.base.name(FULL)
        return document.entry(group, row.name, {**params, "exit": row.exit}, seconds, extra)

    def _certificate(self, m: MeasuredRow) -> dict[str, Any] | None:
        """Whether the reported texts, which chose nothing, show the risk to be below epsilon."""
        if m.row.exit in (FULL, ORACLE, REGRIDDED):
            return None
        wrong = m.score.disagreeing()
        rules = max(1, len(self.families))
        p_value = binomial_cdf(int(wrong.sum()), len(wrong), EPSILON)
        return {
            "epsilon": EPSILON,
            "delta": DELTA,
            "rules": rules,
            "texts": len(wrong),
            "p_value": p_value,
            "holds": p_value <= DELTA / rules,
        }


def run(model: Model, plan: SamplerPlan, say: Say = lambda line: None) -> Mapping[str, Any]:
    """Measure ``plan`` on ``model``: the document."""
    return SamplerBench(model, plan, say).run()
