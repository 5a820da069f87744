"""Published models on the toy grammar at equal parameters and tokens: quality by evaluations.

    python benchmarks/models.py --out runs/models              # the table of plugins/README.md
    python benchmarks/models.py --out runs/models --models mdlm,cdcd --tokens 200000

Every model is trained by `dlmkit train`, its recipe's network made equal to the others', and its
moving average is sampled by its recipe's own sampler. What is in ``--out`` already is not done
again, and training goes on where it was stopped. One thread. Of each cell: nats a word under a
4-gram judge of the training text (`text:ngram-judge`), and the share of sentences that fit a
pattern of the grammar, agreement ignored (`grammar:grammar`). For plaid and mdlm the bound on the
negative log-likelihood is that of held-out rows, in nats a token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.objective import Batch, Draws
from dlmkit.model import Model, load_model
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.training.draws import stratified

BATCH, LENGTH = 32, 32
NETWORK = ("network.with.width=64", "network.with.blocks=3", "network.with.heads=2")
MODELS: Mapping[str, tuple[str, ...]] = {
    "plaid": ("plaid_grammar",),
    "ssd": ("ssd_grammar",),
    "langflow": ("langflow_grammar",),
    "mdlm": ("mdlm_grammar",),
    "flm": ("flm_grammar",),
    "flm-posterior": ("flm_grammar", "space.with.reads=posterior"),
    "sflm": ("sflm_grammar",),
    "elf": ("elf_grammar",),
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
METRICS = (
    Part(use="grammar:grammar", options={"floor": 0.01}),
    Part(use="text:ngram-judge", options={"order": 4, "unit": "tokens"}),
)


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


def draw(name: str, folder: Path, texts: int, evaluations: Sequence[int]) -> dict[str, Any]:
    """Texts of one model by the evaluations asked for, and what else is known of it."""
    model = load_model(folder)
    assembly = model.assembly
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in assembly.objective.parameters()),
        "sampler": model.config.sampler.use,
        "points": {},
    }
    if name in BOUNDS:
        data = assembly.build("data", model.config.data)
        found["bound"] = bound(model, data.validation(HELD_OUT))
    for steps in evaluations:
        drawn = model.sample(texts, steps=steps, batch_size=min(texts, 64))
        spent = sorted({text.evaluations for text in drawn})
        found["points"][str(steps)] = {"evaluations": spent, "texts": [t.text for t in drawn]}
    return found


def score(results: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Add both metrics to every point of ``results``; returns those of held-out rows."""
    registry = Registry.load()
    context = BuildContext(length=LENGTH)
    data = registry.build("data", Part(use="grammar:grammar"), context)
    metrics = [registry.build("metric", part, context) for part in METRICS]
    for metric in metrics:
        metric.fit(data)
    for found in results.values():
        for point in found["points"].values():
            for metric in metrics:
                point.update(metric.measure(point["texts"]))
    held_out = list(islice(data.texts("validation"), rows))
    return {name: value for m in metrics for name, value in m.measure(held_out).items()}


def table(results: Mapping[str, Any], evaluations: Sequence[int], truth: float) -> str:
    """Rows of models, columns of evaluations: nats a word by the judge, and valid sentences."""
    titles = ["model", "parameters", *(f"{n} evaluations" for n in evaluations), "bound"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, found in results.items():
        points = [found["points"][str(n)] for n in evaluations]
        cells = [f"{p['nll_per_token']:.2f} / {100.0 * p['valid']:.0f} %" for p in points]
        own = f"{found['bound']:.2f}" if "bound" in found else ""
        lines.append(f"| {name} | {found['parameters']:,} | {' | '.join(cells)} | {own} |")
    return "\n".join([*lines, "", f"the grammar itself: {truth:.2f} / 100 %"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    parser.add_argument("--tokens", type=int, default=1_024_000, help="tokens of training")
    parser.add_argument("--texts", type=int, default=128, help="texts a cell")
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
            train(name, options.tokens, folder)
            known = {"asked": asked, **draw(name, folder, options.texts, evaluations)}
            file.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        results[name] = known
        last = known["points"][str(evaluations[-1])]["texts"]
        print("\n".join([f"{name}:", *last[:3]]), file=sys.stderr, flush=True)
    truth = score(results, options.texts)
    print(table(results, evaluations, truth["nll_per_token"]))
    if options.json:
        about = {"tokens": options.tokens, "texts": options.texts, "models": results}
        options.json.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
