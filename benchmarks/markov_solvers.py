"""Samplers and grids on the exact test-bed: how far their texts are from the chain.

    python benchmarks/markov_solvers.py -n 500                       # the table of the plugin
    python benchmarks/markov_solvers.py --figure -n 20000            # figure 1: 16 against 128
    python benchmarks/markov_solvers.py --samplers dpm-3m:max_growth=2 --grids warped --nfe 16,32

Texts are drawn from the recipe `markov`, whose denoiser is exact, so what is measured is the
solver's own error. ``gap`` is the mean exact NLL of the texts minus the chain's entropy; ``paired``
is their NLL minus that of a converged solution of the same ODE from the same noise, which has a
far smaller interval for samplers without noise of their own. All in nats per token, with 95 %
intervals; evaluations of the network are counted, the final decode included. ``strange`` is the
share of tokens that are none of the chain's (padding, from a diverged solver), scored as its first.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmkit.model import Model, compose
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.short import parse_part, split
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate
from dlmkit_markov.metric import NORMAL, ExactScore, finite_sample_kl, pairs, sampled_kl

REFERENCE = ("dpm-2m", "sqrt-entropic", 128)
FIGURE = (("dpm-2m", "sqrt-entropic", 16), ("euler", "karras:rho=7", 128))
SAMPLERS = "euler,heun,dpm-2m,dpm-3m,unipc,ancestral,dpm-2m-sde,edm-churn"
GRIDS = "warped,sqrt-entropic,karras,log-uniform,arctan,linear"
BATCH = 500


def draw(model: Model, sampler: str, grid: str, nfe: int, n: int) -> tuple[Tensor, int]:
    """(the chain's tokens of ``n`` texts, evaluations per text), the latter at most ``nfe``."""
    build = model.assembly.build
    parts = replace(
        model.parts,
        sampler=build("sampler", parse_part(sampler)),
        grid=build("grid", parse_part(grid)),
    )
    cost = [int(parts.sampler.evaluations(torch.arange(1, s + 1) == s).sum()) for s in (1, 2)]
    steps = 1 + (nfe - cost[0]) // (cost[1] - cost[0])
    length = model.config.length
    samples = generate(
        parts, unconditional(n, length), seed=0, steps=steps, batch_size=BATCH, length=length
    )
    return torch.tensor([sample.ids for sample in samples]) - 1, samples[0].evaluations


def score(
    metric: ExactScore, ids: Tensor, reference: Tensor | None, finite: float
) -> dict[str, Any]:
    """The figures of one cell."""
    strange = ids < 0
    ids = ids.clamp(min=0)
    nll = metric.per_text(ids)
    counts = pairs(ids, len(metric.chain.initial), metric.blocks)
    kl, (spread, _) = sampled_kl(counts, metric.chain, len(ids))
    result: dict[str, Any] = {
        "strange": float(strange.double().mean()),
        "gap": _interval(nll - metric.chain.entropy(metric.length)),
        "transition_kl": {"mean": kl - finite, "half": NORMAL * spread},
    }
    if reference is not None:
        result["paired"] = _interval(nll - metric.per_text(reference))
        result["agreement"] = float((ids == reference).double().mean())
    return result


def _interval(values: Tensor) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "half": NORMAL * float(values.std()) / math.sqrt(len(values)),
    }


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """(sampler, grid, evaluations), those of one sampler together."""
    if options.figure:
        yield from FIGURE
        return
    for sampler in split(options.samplers, ","):
        for grid in split(options.grids, ","):
            yield from ((sampler, grid, int(nfe)) for nfe in options.nfe.split(","))


def table(entries: list[dict[str, Any]], key: str) -> str:
    """Rows of samplers and grids, columns of evaluations, in thousandths of a nat."""
    columns = sorted({entry["asked"] for entry in entries})
    head = f"| sampler | grid | {' | '.join(map(str, columns))} |"
    lines = [head, "|---" * (2 + len(columns)) + "|"]
    names = dict.fromkeys((entry["sampler"], entry["grid"]) for entry in entries)
    cells = {(e["sampler"], e["grid"], e["asked"]): e[key] for e in entries if key in e}
    for name in names:
        values = [cells.get((*name, column)) for column in columns]
        shown = [f"{1e3 * v['mean']:.1f} ± {1e3 * v['half']:.1f}" if v else "" for v in values]
        lines.append(f"| {' | '.join((*name, *shown))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=500, help="texts a cell")
    parser.add_argument("--samplers", default=SAMPLERS, help="short forms, separated by commas")
    parser.add_argument("--grids", default=GRIDS, help="short forms, separated by commas")
    parser.add_argument("--nfe", default="8,16,32,64", help="evaluations, separated by commas")
    parser.add_argument("--figure", action="store_true", help="figure 1 alone")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    recipe = load_recipe("markov").config
    model = compose(**recipe.model_dump(mode="json", by_alias=True))
    metric = model.assembly.build("metric", recipe.metric[0])
    metric.fit(model.assembly.data)
    finite = finite_sample_kl(metric.chain, options.n, metric.length, 5)
    reference = None if options.figure else draw(model, *REFERENCE, options.n)[0]
    entries = []
    for sampler, grid, nfe in cells(options):
        ids, evaluations = draw(model, sampler, grid, nfe, options.n)
        entry = {"sampler": sampler, "grid": grid, "asked": nfe, "evaluations": evaluations}
        entries.append({**entry, **score(metric, ids, reference, finite)})
        print(json.dumps(entries[-1]), file=sys.stderr, flush=True)
    for key in ("gap", "paired", "transition_kl"):
        if key in entries[0]:
            print(f"\n{key}, thousandths of a nat a token, n = {options.n}\n{table(entries, key)}")
    if options.figure:
        print(f"\n{verdict(*entries)}")
    if options.json:
        about = {"n": options.n, "entropy": metric.chain.entropy(metric.length), "cells": entries}
        options.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def verdict(few: dict[str, Any], many: dict[str, Any]) -> str:
    """Whether figure 1 is reached, in words."""
    bounds = {
        "gap, at most 0.02": (few["gap"]["mean"], 0.02),
        "gap, at most the other's": (few["gap"]["mean"], many["gap"]["mean"]),
        "transition KL, at most the other's": tuple(
            entry["transition_kl"]["mean"] for entry in (few, many)
        ),
    }
    return "\n".join(
        f"{'reached' if value <= bound else 'missed'}: {what}: {value:.4f} <= {bound:.4f}"
        for what, (value, bound) in bounds.items()
    )


if __name__ == "__main__":
    main()
