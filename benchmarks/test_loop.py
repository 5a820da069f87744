"""The sampling loop on the exact test-bed: full runs, halting with refill, samplers and slots.

    python -m pytest benchmarks/test_loop.py --benchmark-json FILE

32 texts of 24 tokens on 16 steps. Row evaluations are in each case's `extra_info`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlmkit.bench.cases import Case
from dlmkit.bench.measure import Outcome, Work
from dlmkit.bench.parts import parts_of
from dlmkit.model import Model, open_model
from dlmkit.sampling.requests import unconditional

pytest.importorskip("pytest_benchmark", reason="pip install 'dlmkit[test]'")

TEXTS, STEPS = 32, 16


@pytest.fixture(scope="module")
def subject() -> Model:
    return open_model("markov")


def work(subject: Model, sampler: str = "dpm-2m", slots: int = 16) -> Work:
    parts = parts_of(subject, Case(sampler, "sqrt-entropic", STEPS, slots))
    length = subject.config.length
    return Work(parts, unconditional(TEXTS, length), 0, STEPS, slots, length)


def timed(benchmark: Any, run: Any) -> Outcome:
    outcome: Outcome = benchmark.pedantic(run, warmup_rounds=1, rounds=5)
    benchmark.extra_info.update(
        row_evaluations=outcome.executed,
        evaluations_mean=float(outcome.evaluations.double().mean()),
        threads=torch.get_num_threads(),
    )
    return outcome


@pytest.mark.parametrize("slots", [1, 8, 32])
def test_full_run(benchmark: Any, subject: Model, slots: int) -> None:
    assert timed(benchmark, work(subject, slots=slots).run).executed == TEXTS * STEPS


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm-2m", "dpm-2m-sde"])
def test_sampler(benchmark: Any, subject: Model, sampler: str) -> None:
    timed(benchmark, work(subject, sampler).run)


def test_halting_with_refill(benchmark: Any, subject: Model) -> None:
    """Texts halt after 1 to 16 steps: half of the row steps are left, and half of the time."""
    whole = work(subject)
    when = 1 + torch.arange(TEXTS) % STEPS
    assert timed(benchmark, whole.ending(when).run).executed == int(when.sum())
