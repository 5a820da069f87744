"""Rows of `dlmkit bench sampler`, and what is written of a measured one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dlmkit.bench.cases import FULL, BenchCase, titled
from dlmkit.bench.exits import Recorded
from dlmkit.bench.measure import Outcome, barrier_row_steps, row_steps
from dlmkit.bench.verdict import ExitVerdict, sentence
from dlmkit.exits.replay import Replay
from dlmkit.sampling.slots import constant, halves

FIXED, ORACLE, REGRIDDED = "fixed", "oracle-exit", "regridded"
"""What the column ``exit`` says of baselines; else it is ``none`` or the rule's name."""


@dataclass(frozen=True)
class CaseRow:
    """One row of the table: a case, its name, and a function that runs it again."""

    case: BenchCase
    exit: str
    threshold: float | None
    recorded: Recorded
    run: Callable[[], Outcome]
    replayed: Replay | None = None

    @property
    def base(self) -> BenchCase:
        """The full run that it is compared with."""
        return self.recorded.case

    @property
    def name(self) -> str:
        """Unique in a run."""
        return self.case.name(titled(self.exit, self.threshold))


@dataclass(frozen=True)
class MeasuredRow:
    """A row, what came out, and what it took."""

    row: CaseRow
    outcome: Outcome
    score: Replay
    quality: dict[str, float]
    memory: int | None


def evaluations(outcome: Outcome) -> dict[str, Any]:
    """How many evaluations each text took, how many rows were computed, and where texts ended."""
    spent = outcome.evaluations.double()
    p50, p95 = torch.quantile(spent, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    counts = torch.bincount(outcome.steps)
    return {
        "evaluations_mean": float(spent.mean()),
        "evaluations_p50": p50,
        "evaluations_p95": p95,
        "evaluations_max": float(spent.max()),
        "row_evaluations": outcome.executed,
        "row_evaluations_needed": int(spent.sum()),
        "exit_steps": {str(step): int(n) for step, n in enumerate(counts.tolist()) if n},
    }


def disagreement(score: Replay) -> dict[str, Any]:
    """Shares of tokens and of rows that differ from the full run, with intervals."""
    return {
        "token_disagreement": score.token_disagreement,
        "token_disagreement_interval": list(score.token_interval()),
        "row_disagreement": score.row_disagreement(),
        "row_disagreement_interval": list(score.row_interval()),
    }


def agreement(m: MeasuredRow) -> float | None:
    """The share of tokens that the real run has in common with what the trace foretold."""
    if m.row.replayed is None:
        return None
    return float((m.score.ids == m.row.replayed.ids).double().mean())


def verdict(
    case: BenchCase, judged: ExitVerdict, measured: Sequence[MeasuredRow]
) -> dict[str, Any]:
    """``judged`` beside the coarser full run nearest to it in evaluations."""
    coarse = [
        (abs(float(m.score.evaluations.double().mean()) - judged.evaluations), m)
        for m in measured
        if m.row.base == case and m.row.exit in (REGRIDDED, FULL)
    ]
    _, nearest = min(coarse, key=lambda pair: pair[0])
    regridded = nearest.row.case.steps, nearest.score.token_disagreement
    return {
        "case": case.name(FULL),
        **asdict(judged),
        "interval": list(judged.interval),
        "gain": judged.gain,
        "regridded_steps": regridded[0],
        "regridded_disagreement": regridded[1],
        "sentence": sentence(judged, None if regridded[0] == case.steps else regridded),
    }


def compaction(measured: Sequence[MeasuredRow]) -> list[dict[str, Any]]:
    """Row steps needed per row step executed, by batch size, counted for each way to halt."""
    curves = []
    for m in measured:
        steps = m.outcome.steps.tolist()
        if m.row.exit in (FULL, REGRIDDED) or len(set(steps)) == 1:
            continue
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size <= len(steps)]
        points = [
            {
                "batch": size,
                "barrier": sum(steps) / barrier_row_steps(steps, size),
                "constant": sum(steps) / row_steps(steps, size, constant),
                "halves": sum(steps) / row_steps(steps, size, halves),
            }
            for size in sizes
        ]
        curves.append({"case": m.row.base.name(FULL), "exit": m.row.exit, "points": points})
    return curves
