"""Published models on the toy grammar at equal parameters and tokens: quality by evaluations.

    python benchmarks/models.py --out runs/models              # the table of plugins/README.md
    python benchmarks/models.py --out runs/models --models mdlm,cdcd --tokens 200000

Every model is trained by `dlmkit train`, its recipe's network made equal to the others', and its
moving average is sampled by its recipe's own sampler. What is in ``--out`` already is not done
again, and training goes on where it was stopped. One thread. Of each cell: the share of sentences
that the grammar could have written, agreement included, and their exact nats a word, that of
invalid ones floored (`grammar:grammar`). For plaid and mdlm the bound on the negative
log-likelihood is that of held-out rows, in nats a token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dlmkit.core.objective import Batch, Draws
from dlmkit.models import Model, load_model
from dlmkit.noise import Noise
from dlmkit.training.draws import stratified

BATCH, LENGTH = 32, 32
NETWORK = ("network.with.width=64", "network.with.blocks=3", "network.with.heads=2")
MODELS: Mapping[str, tuple[str, ...]] = {
    "plaid": ("plaid_grammar",),
    "ssd": ("ssd_grammar",),
    "langflow": ("langflow_grammar",),
    "mdlm": ("mdlm_grammar",),
    "cdcd": (
        "ddlm_grammar",
        "schedule.use=cdcd:time-warp",
        "schedule.with.t_min=0.4",
        "schedule.with.t_max=50.0",
        "masking.use=cdcd:none",
        "sampler.use=samplers:euler",
    ),
    "ddlm": ("ddlm_grammar",),
}
"""Of each model its recipe, and what else is set."""
BOUNDS = ("plaid", "mdlm")
HELD_OUT = 512


def train(name: str, tokens: int, folder: Path) -> None:
    """Train ``name`` in ``folder`` as a user would, or go on."""
    recipe, *own = MODELS[name]
    steps = max(1, tokens // (BATCH * LENGTH))
    never = [f"train.{what}_every={steps}" for what in ("validate", "sample")]
    sets = [
        *own,
        *NETWORK,
        *never,
        f"train.steps={steps}",
        f"train.batch_size={BATCH}",
        f"length={LENGTH}",
        "train.threads=1",
        "train.checkpoint_every=100",
        "metric=[]",
        "sample.count=1",
        "sample.steps=8",
    ]
    options = [part for item in sets for part in ("--set", item)]
    command = ["dlmkit", "train", recipe, "--out", str(folder), "--resume", "auto", *options]
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)


@torch.no_grad()
def bound(model: Model, batch: Batch) -> float:
    """The objective of ``batch`` in nats a token: of plaid and mdlm, a bound on its own."""
    slots = torch.arange(len(batch.ids))
    u = stratified(0, 0, len(slots), torch.device("cpu"))
    parts = model.assembly.objective(batch, Draws(u, Noise.keyed(1, slots, 0)))
    return float(parts.loss_sum / parts.count)


def measure(name: str, folder: Path, texts: int, evaluations: list[int]) -> dict[str, Any]:
    """All figures of one model."""
    model = load_model(folder)
    assembly, config = model.assembly, model.config
    data = assembly.build("data", config.data)
    metric = assembly.registry.build("metric", _grammar(), assembly.context)
    metric.fit(data)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in assembly.objective.parameters()),
        "sampler": config.sampler.use,
        "points": {},
    }
    if name in BOUNDS:
        found["bound"] = bound(model, data.validation(HELD_OUT))
    for steps in evaluations:
        drawn = model.sample(texts, steps=steps, batch_size=min(texts, 64))
        spent = {text.evaluations for text in drawn}
        words = [text.text for text in drawn]
        point = {"evaluations": sorted(spent), **metric.measure(words)}
        found["points"][str(steps)] = point
        found["texts"] = words[:4]
    return found


def _grammar() -> Any:
    from dlmkit.plugin import Part

    return Part(use="grammar:grammar", options={"floor": 0.01})


def table(results: Mapping[str, Any], evaluations: list[int]) -> str:
    """Rows of models, columns of evaluations: correct sentences and nats a word."""
    titles = ["model", "parameters", *(f"{n} evaluations" for n in evaluations), "bound"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, found in results.items():
        points = [found["points"][str(n)] for n in evaluations]
        cells = [f"{100.0 * p['correct']:.0f} % / {p['nll']:.2f}" for p in points]
        own = f"{found['bound']:.2f}" if "bound" in found else ""
        lines.append(f"| {name} | {found['parameters']:,} | {' | '.join(cells)} | {own} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    parser.add_argument("--tokens", type=int, default=1_024_000, help="tokens of training")
    parser.add_argument("--texts", type=int, default=256, help="texts a cell")
    parser.add_argument("--evaluations", default="8,16,32,64", help="of the network, a text")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.models.split(",")
    unknown = sorted(set(names) - set(MODELS))
    if unknown:
        parser.error(f"unknown models {unknown}; there are {', '.join(MODELS)}")
    evaluations = [int(n) for n in options.evaluations.split(",")]
    results = {}
    for name in names:
        asked = [options.tokens, options.texts, evaluations]
        folder, file = options.out / name, options.out / f"{name}.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        if known.get("asked") != asked:
            began = time.perf_counter()
            train(name, options.tokens, folder)
            known = {"asked": asked, **measure(name, folder, options.texts, evaluations)}
            file.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        results[name] = known
        print(f"{name}: {known['texts'][0]}", file=sys.stderr, flush=True)
    print(table(results, evaluations))
    if options.json:
        about = {"tokens": options.tokens, "texts": options.texts, "models": results}
        options.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
