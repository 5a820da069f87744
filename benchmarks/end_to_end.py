"""End to end: texts per second at equivalent quality, against Euler-200 written the usual way.

    python benchmarks/end_to_end.py MODEL [-n 2000] [--timed 256] [--steps 8,16,32] [--json FILE]

"Plain" is the usual program: one batch of all timed texts, every step for all of them, the softmax
over the whole vocabulary and its product with the embeddings as two tensors, Euler's update, no
exit. Its texts come from the same noise. The fewest steps of --plain-steps and of --steps whose
texts are equivalent to plain Euler-200 or better (see equivalence.py; -n texts) are found first;
then plain Euler-200, plain Euler at its fewest steps and dlmkit's loop are timed in interleaved
rounds on --timed texts. Without an equivalent number of steps no speed is printed for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import figures
import torch
from likelihoods import Scores, decoded, entropy_gap, nll_gap, scorer

from dlmkit.bench.cases import Case, numbers
from dlmkit.bench.measure import Outcome
from dlmkit.bench.parts import parts_of
from dlmkit.bench.timing import interleaved, summary
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.model import Model
from dlmkit.noise import Noise
from dlmkit.sampling.levels import levels
from dlmkit.sampling.opening import INITIAL
from dlmkit.sampling.snapshot import Sample

REFERENCE = 200


@torch.no_grad()
def plain(subject: Model, count: int, steps: int, seed: int, grid: str) -> Outcome:
    """Euler written the usual way; the texts of dlmkit's own Euler, but for rounding."""
    parts = parts_of(subject, Case("euler", grid, steps, count))
    space, network = parts.space, subject.assembly.network
    device, length = parts.device, subject.config.length
    table = levels(parts, steps)
    rows = torch.arange(count, device=device)
    like = space.embed(torch.zeros(count, length, dtype=torch.int64, device=device))
    at = [Level(*(v[k].to(like).expand(count) for v in table)) for k in range(steps + 1)]
    x = space.corruption.prior(like, at[0], Noise.keyed(seed, rows, 0).fork(INITIAL))
    attend = torch.ones(count, length, dtype=torch.bool, device=device)
    nothing = Conditioning.of(like, ~attend, attend)
    previous = parts.denoise.start(x)
    for here, there in pairwise(at):
        query = network(space.corruption.input(x, here), here, nothing, previous)
        logits = space.logits(query)
        previous = space.expect(logits.softmax(dim=-1))
        ratio = there.like(x).sigma / here.like(x).sigma
        mean = there.like(x).alpha * previous
        x = mean + ratio * (x - here.like(x).alpha * previous)
    ids = logits.argmax(dim=-1).tolist()
    samples = (Sample(i, tuple(row), steps, steps, None) for i, row in enumerate(ids))
    return Outcome(tuple(samples), steps * count)


def fewest(
    steps: Sequence[int],
    run: Callable[[int], Outcome],
    reference: Outcome,
    scores: Scores,
    score: Callable[[Outcome], Scores],
    name: str,
) -> int | None:
    """The first of ``steps`` that is equivalent to the reference or better."""
    for number in sorted(steps):
        outcome = run(number)
        gaps = [entropy_gap(outcome, reference, order) for order in (1, 2)]
        nll = nll_gap(score(outcome), scores)
        kept = nll.no_worse and all(gap.interval.low > -0.02 for gap in gaps)
        print(f"{name}, {number} steps: NLL gap {nll.words()}", flush=True)
        if kept:
            return number
    return None


def measure(options: argparse.Namespace, subject: Model) -> dict[str, Any]:
    """The figure, printed."""
    own_sampler, own_grid = figures.own(subject)
    sampler, grid = options.sampler or own_sampler, options.grid or own_grid
    seed, plain_grid = options.seed, options.plain_grid
    judge = scorer(subject)
    score = lambda outcome: judge(decoded(subject, outcome))  # noqa: E731

    def usual(number: int, count: int) -> Outcome:
        return plain(subject, count, number, seed, plain_grid)

    def ours(number: int, count: int) -> Outcome:
        case = Case(sampler, grid, number, options.batch_size)
        return figures.work(subject, case, count, seed).run()

    reference = usual(REFERENCE, options.count)
    scores = score(reference)
    asked = {
        "plain": (numbers("--plain-steps", options.plain_steps), usual),
        "dlmkit": (numbers("--steps", options.steps), ours),
    }
    chosen = {
        name: fewest(steps, lambda k, r=run: r(k, options.count), reference, scores, score, name)
        for name, (steps, run) in asked.items()
    }
    runs: dict[str, Callable[[], Outcome]] = {
        f"plain {REFERENCE}": lambda: usual(REFERENCE, options.timed)
    }
    for name, steps in chosen.items():
        if steps is not None:
            runs[name] = lambda k=steps, r=asked[name][1]: r(k, options.timed)
    for run in runs.values():
        run()
    seconds = {
        name: summary(own)
        for name, own in zip(runs, interleaved([*runs.values()], options.rounds), strict=True)
    }
    found: dict[str, Any] = {"sampler": sampler, "grid": grid, "steps": chosen, "seconds": seconds}
    print(f"{options.timed} texts, {figures.threads()}:")
    for name, own_seconds in seconds.items():
        rate = options.timed / own_seconds["min"]
        speed_up = seconds[f"plain {REFERENCE}"]["min"] / own_seconds["min"]
        found[f"{name} speed-up"] = speed_up
        print(f"{name} ({chosen.get(name, REFERENCE)} steps): {rate:.3g} texts/s, {speed_up:.2f}x")
    for name, steps in chosen.items():
        if steps is None:
            print(f"{name}: no number of steps tried is equivalent, so no speed is given")
    return found


if __name__ == "__main__":
    made = figures.parser(__doc__, 2000)
    made.add_argument("--timed", type=int, default=256, help="texts of a timed run")
    made.add_argument("--steps", default="8,12,16,24,32", help="dlmkit's, fewest first")
    made.add_argument("--plain-steps", default="16,24,32,48,64,96,128", help="plain Euler's")
    made.add_argument("--plain-grid", default="warped")
    made.add_argument("--sampler", help="default: the recipe's")
    made.add_argument("--grid", help="default: the recipe's")
    made.add_argument("--rounds", type=int, default=5)
    raise SystemExit(figures.run(made, measure))
