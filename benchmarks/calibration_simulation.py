"""How often a calibrated threshold breaks its promise, where the true risk is known.

    python benchmarks/calibration_simulation.py --runs 500

Each run draws fresh texts, chooses a threshold, and looks up its true risk. A method that holds
its promise chooses one above epsilon in at most a share delta of the runs.
"""

from __future__ import annotations

import argparse
import sys

from risk import PICKERS, RiskCurve, most_violations, simulate

from dlmkit.cli.output import columns, result

CASES = (
    ("exact binomial", 1.0),
    ("Hoeffding-Bentkus", 1.0),
    ("Hoeffding-Bentkus", 0.2),
    ("best empirical", 1.0),
    ("best empirical", 0.2),
    ("wrong tail", 1.0),
    ("tokens as trials", 1.0),
    ("tokens as trials", 0.2),
)
"""(method, spread): at 1 a failed text is wrong throughout, at 0.2 in 20 to 100 % of its tokens,
and the loss is that share."""


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a method that must hold its promise did not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--texts", type=int, default=206, help="a quarter orders the thresholds")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    most = most_violations(options.runs, options.delta)
    rows, broken = [("method", "loss", "violations", "chose none", "mean true risk")], False
    for name, spread in CASES:
        found = simulate(
            RiskCurve(spread=spread),
            PICKERS[name],
            texts=options.texts,
            epsilon=options.epsilon,
            delta=options.delta,
            runs=options.runs,
            seed=options.seed,
        )
        broken |= found.violations > most and name in ("exact binomial", "Hoeffding-Bentkus")
        share = f"{found.violations} ({found.violations / found.runs:.1%})"
        kind = "0 or 1" if spread == 1.0 else "fraction"
        rows.append((name, kind, share, str(found.none), f"{found.mean_risk:.4f}"))
    result(columns(rows))
    result(
        f"{options.runs} recalibrations on {options.texts} texts, epsilon {options.epsilon:g}, "
        f"delta {options.delta:g}: at most {most:.0f} violations are delta plus 3 standard errors"
    )
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
