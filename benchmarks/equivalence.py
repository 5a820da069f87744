"""Is one way of sampling equivalent to another? Two one-sided tests on paired texts.

    python benchmarks/equivalence.py MODEL [-n 2000] [--sampler S --grid G --steps 32]
        [--reference-sampler euler --reference-grid warped --reference-steps 200] [--json FILE]

Text i of both runs starts from the same noise, and both runs' text i are kept or left out together:
the gap in nats a token (exact likelihood for the test-bed and the grammar, the n-gram judge's
otherwise) by bootstrap over texts, the gap in entropy of the pooled tokens and token pairs by
jackknife. They are equivalent if the 95 % bounds of each gap lie within 0.02 nats. For the grammar,
agreement stands beside it with exact intervals (which take sentences as independent).
"""

from __future__ import annotations

import argparse
from typing import Any

import figures
from likelihoods import agreement, decoded, entropy_gap, nll_gap, scorer

from dlmkit.bench.cases import Case
from dlmkit.bench.measure import Outcome
from dlmkit.exact.intervals import clopper_pearson
from dlmkit.model import Model


def measure(options: argparse.Namespace, subject: Model) -> dict[str, Any]:
    """The figure, printed."""
    sampler, grid = figures.own(subject)
    cases = {
        "tested": Case(
            options.sampler or sampler,
            options.grid or grid,
            options.steps,
            options.batch_size,
        ),
        "reference": Case(
            options.reference_sampler,
            options.reference_grid,
            options.reference_steps,
            options.batch_size,
        ),
    }
    runs = {
        name: figures.work(subject, case, options.count, options.seed).run()
        for name, case in cases.items()
    }
    return compare(subject, cases, runs)


def compare(subject: Model, cases: dict[str, Case], runs: dict[str, Outcome]) -> dict[str, Any]:
    """The tests of ``runs``, printed."""
    score = scorer(subject)
    texts = {name: decoded(subject, run) for name, run in runs.items()}
    scores = {name: score(own) for name, own in texts.items()}
    found: dict[str, Any] = {}
    for name, case in cases.items():
        sums = scores[name].sum(dim=0)
        found[name] = {
            "case": case.name(),
            "evaluations": float(runs[name].evaluations.double().mean()),
            "nll": float(sums[0] / sums[1]),
            "agreement": told(agreement(subject, texts[name])),
        }
        print(f"{name}: {case.name()}: {found[name]['evaluations']:.1f} evaluations, "
              f"NLL {found[name]['nll']:.4f}, agreement {found[name]['agreement']}")  # fmt: skip
    gaps = {
        "nll": nll_gap(scores["tested"], scores["reference"]),
        "entropy_1": entropy_gap(runs["tested"], runs["reference"], 1),
        "entropy_2": entropy_gap(runs["tested"], runs["reference"], 2),
    }
    for name, gap in gaps.items():
        print(f"{name} gap: {gap.words()}")
    found["gaps"] = {
        name: {"value": gap.value, "low": gap.interval.low, "high": gap.interval.high}
        for name, gap in gaps.items()
    }
    found["equivalent"] = all(gap.equivalent for gap in gaps.values())
    found["no_worse"] = gaps["nll"].no_worse and all(
        gaps[name].interval.low > -0.02 for name in ("entropy_1", "entropy_2")
    )
    words = {(True, True): "equivalent", (False, True): "equivalent or better"}
    print("verdict:", words.get((found["equivalent"], found["no_worse"]), "not shown"))
    return found


def told(counts: tuple[int, int] | None) -> dict[str, float] | None:
    """A share with its exact interval."""
    if counts is None:
        return None
    low, high = clopper_pearson(*counts)
    return {"share": counts[0] / max(counts[1], 1), "low": low, "high": high}


if __name__ == "__main__":
    made = figures.parser(__doc__, 2000)
    made.add_argument("--sampler", help="default: the recipe's")
    made.add_argument("--grid", help="default: the recipe's")
    made.add_argument("--steps", type=int, default=32)
    made.add_argument("--reference-sampler", default="euler")
    made.add_argument("--reference-grid", default="warped")
    made.add_argument("--reference-steps", type=int, default=200)
    raise SystemExit(figures.run(made, measure))
