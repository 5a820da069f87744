"""The ablations of recipes/ablations, trained one after the other, and their table.

    python benchmarks/ablations.py --out ablations.json
    python benchmarks/ablations.py --out ablations.json --only grammar/t_max_10 --only kjv/base
    python benchmarks/ablations.py --out words.json --text words --judge FOLDER
    python benchmarks/ablations.py --out ablations.json --table

Every recipe trains on one thread. What is finished lies in the JSON file and is not run again, so
the script may be stopped at any time. Each row holds, on held-out text and at the same noise
levels for all: the cross-entropy of unconditional rows and the context gain; the cross-entropy of
the noised positions with half of a row given as a prefix, at random, or in runs; and the recipe's
metrics of unconditional samples, also under a language model if one judges: the only column that
compares vocabularies. The base is trained with several seeds: their range says which
differences mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dlmkit.core.masking import Masking
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level
from dlmkit.errors import DlmkitError
from dlmkit.exact.context_gain import Frequencies, context_gain
from dlmkit.model import Model
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import Resolved, load_recipe
from dlmkit.registry.lookup import Registry

RECIPES = Path(__file__).resolve().parent.parent / "recipes" / "ablations"
LEVELS = {
    "grammar": (3.0, 5.0, 7.0, 10.0),
    "kjv": (1.0, 1.75, 3.0, 5.0),
    "words": (1.5, 2.5, 4.0, 7.0),
}
"""Noise levels of the held-out losses, where most is learned: 256, 32 and 64 channels a token."""
GIVEN = {"prefix": "cdcd:prefix", "random": "cdcd:random", "span": "ddlm:span"}
ROWS = 64
COLUMNS = {
    "grammar": ("valid", "correct", "nll", "template_distance"),
    "kjv": ("nll_per_character", "entropy_1", "entropy_4", "real_words"),
    "words": ("judge_nll_per_character", "nll_per_character", "entropy_4", "real_words"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the tables. Returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        done = json.loads(options.out.read_text()) if options.out.exists() else {}
        registry = Registry.load()
        for name, seed in () if options.table else cases(options):
            resolved = load_recipe(str(RECIPES / f"{name}.yaml"), [f"seed={seed}"], registry)
            key, mark = f"{name}@{seed}", hashlib.sha256(resolved.text().encode()).hexdigest()
            if done.get(key, {}).get("recipe") != mark:
                done[key] = {
                    "recipe": mark,
                    **ablation(resolved, registry, LEVELS[name.partition("/")[0]], options.judge),
                }
                keep(options.out, done)
                print(key, json.dumps(done[key]["summary"]), file=sys.stderr)
    except DlmkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n\n".join(table(text, done) for text in options.text or COLUMNS))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, required=True, help="JSON file of results, read and kept")
    made.add_argument("--text", action="append", choices=COLUMNS, help="repeatable; default: all")
    made.add_argument("--only", action="append", help="TEXT/RECIPE; repeatable; default: all")
    made.add_argument("--judge", metavar="FOLDER|NAME", help="a causal language model, for ar-nll")
    made.add_argument("--base-seeds", type=int, default=2, help="seeds that the base is run with")
    made.add_argument("--table", action="store_true", help="train nothing, print what is there")
    return made


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """(TEXT/RECIPE, seed) of every run that is asked for, the base of each text first."""
    for text in options.text or COLUMNS:
        paths = sorted((RECIPES / text).glob("*.yaml"), key=lambda p: (p.stem != "base", p.stem))
        for name in (f"{text}/{path.stem}" for path in paths):
            if options.only is None or name in options.only:
                seeds = options.base_seeds if name.endswith("/base") else 1
                yield from ((name, seed) for seed in range(seeds))


def keep(path: Path, done: Mapping[str, Any]) -> None:
    """Write the results, complete or not at all."""
    work = path.with_name(f".{path.name}.new")
    work.write_text(json.dumps(done, indent=1) + "\n")
    os.replace(work, path)


def ablation(
    resolved: Resolved, registry: Registry, sigmas: Sequence[float], judge: str | None
) -> dict[str, Any]:
    """Train one recipe and measure its averaged weights, also by a language model if named."""
    torch.set_num_threads(1)
    assembly = assemble(resolved.config, registry)
    model = Model(None, assembly, assemble_sampling(assembly))
    began = time.process_time()
    records = list(model.train())
    seconds = time.process_time() - began
    held_out = model.data.validation(ROWS)
    measured = {
        "tokens": sum(record.tokens for record in records),
        "cpu_seconds": round(seconds, 1),
        "levels": unconditional(model, held_out, sigmas),
        "given": {name: conditional(model, held_out, sigmas, use) for name, use in GIVEN.items()},
        "metrics": metrics(model, judge),
    }
    return {**measured, "summary": summary(measured)}


def unconditional(model: Model, held_out: Batch, sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """Cross-entropy and context gain at each level."""
    assembly = model.assembly
    counted = Frequencies.count(model.data, 200_000)
    reports = context_gain(
        model.parts.denoise,
        assembly.space,
        assembly.schedule,
        held_out,
        Frequencies(counted.unigram, None),
        levels=torch.tensor(sigmas),
    )
    return [report.record() for report in reports]


@torch.no_grad()
def conditional(model: Model, held_out: Batch, sigmas: Sequence[float], use: str) -> list[float]:
    """Cross-entropy of the noised half of each row at each level, in nats per token."""
    assembly, rows = model.assembly, torch.arange(len(held_out.ids))
    masking: Masking = assembly.build("masking", Part(use=use))
    given = half(masking, held_out, Noise.keyed(1, rows, 0))
    x0 = assembly.space.embed(held_out.ids)
    conditioning = Conditioning.of(x0, given, held_out.attend)
    losses = []
    for index, sigma in enumerate(sigmas):
        level = Level(torch.ones(len(rows)), torch.full((len(rows),), sigma))
        x = assembly.space.corruption.corrupt(x0, level, Noise.keyed(2, rows, index))
        denoise = model.parts.denoise
        first = denoise(x, level, denoise.start(x), conditioning)
        second = denoise(x, level, first.feedback, conditioning)
        logits = assembly.space.logits(second.query).transpose(1, 2)
        nats = F.cross_entropy(logits, held_out.ids, reduction="none")
        losses.append(nats[held_out.attend & ~given].mean().item())
    return losses


def half(masking: Masking, batch: Batch, noise: Noise) -> torch.Tensor:
    """Masks of ``masking`` that give half of each row: of many draws, the one nearest to half."""
    draws = torch.stack([masking.draw(batch.attend, noise.fork(k)) for k in range(64)])
    distance = (draws.sum(dim=2) - batch.attend.sum(dim=1) / 2).abs()
    best = distance.argmin(dim=0)
    return draws[best, torch.arange(len(batch.ids))]


def metrics(model: Model, judge: str | None) -> dict[str, float]:
    """The recipe's metrics of its own number of unconditional samples, and the judge's."""
    assembly, numbers = model.assembly, {}
    texts = [text.text for text in model.sample(model.config.sample.measured, seed=7)]
    parts = [("", part) for part in model.config.metric]
    if judge is not None:
        parts.append(("judge_", Part(use="metrics:ar-nll", options={"judge": judge})))
    for before, part in parts:
        metric = assembly.build("metric", part)
        metric.fit(assembly.data)
        numbers.update({before + name: value for name, value in metric.measure(texts).items()})
    return numbers


def summary(measured: Mapping[str, Any]) -> dict[str, float]:
    """The columns of the table that every text has: means over the levels, in nats per token."""
    losses = [level["model"] for level in measured["levels"]]
    gains = [level["context_free"] - level["model"] for level in measured["levels"]]
    means = {name: sum(values) / len(values) for name, values in measured["given"].items()}
    return {"loss": sum(losses) / len(losses), "gain": sum(gains) / len(gains), **means}


def table(text: str, done: Mapping[str, Any]) -> str:
    """All finished runs of one text, in Markdown."""
    names = ("loss", "gain", *GIVEN, *COLUMNS[text])
    lines = [f"| {text} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, measured in sorted(done.items()):
        if key.startswith(f"{text}/"):
            numbers = {**measured["summary"], **measured["metrics"]}
            cells = " | ".join(f"{numbers.get(name, float('nan')):.3f}" for name in names)
            lines.append(f"| {key.removeprefix(f'{text}/')} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
