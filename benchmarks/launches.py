"""Kernel launches, host waits and copies of a sampling step and of a training step, by part.

    python benchmarks/launches.py [--recipe NAME ...] [--sites] [--json FILE]

Counted on the pretend accelerator (`dlmkit.testing.pretend`), so on any machine and exactly: an
operation of eager torch is one launch, attention by a fused kernel too. A sampling step is one in
the middle of a run, in which no text starts or ends; the last step of three texts that end together
stands beside it. With --sites every line that launches, waits or copies is listed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dlmkit.testing import pretend
from dlmkit.testing.pretend import DeviceCounts, Site

pretend.set_up()  # before the first backward pass

import torch  # noqa: E402

from dlmkit.model import load_model  # noqa: E402
from dlmkit.recipe.assemble import assemble  # noqa: E402
from dlmkit.recipe.load import load_recipe  # noqa: E402
from dlmkit.registry.lookup import Registry  # noqa: E402
from dlmkit.sampling.requests import unconditional  # noqa: E402
from dlmkit.sampling.runner import stream  # noqa: E402
from dlmkit.training.loop import Learner, train  # noqa: E402
from dlmkit.training.parallel import Single  # noqa: E402

STEPS = 6
SAMPLING = {
    "euler": ("sampler.use=euler",),
    "ancestral": ("sampler.use=ancestral",),
    "heun": ("sampler.use=heun",),
    "ancestral, entropy exit": ("exit.use=entropy", "exit.with.threshold=0.1"),
}
RECIPES = ("ddlm_small", "ddlm_grammar")
PARTS = {
    "attention": ("core/attention.py",),
    "network": ("network.py",),
    "vocabulary": ("core/vocabulary.py", "/space.py"),
    "noise": ("dlmkit/noise.py", "training/draws.py", "masking.py"),
    "schedule": ("/schedule.py", "/schedules.py"),
    "sampler, statistics": ("dlmkit_samplers/", "core/exits.py", "core/embedding.py"),
    "objective": ("objective.py", "core/denoise.py", "/denoise.py"),
    "optimiser, average": ("training/ema.py", "training/parallel.py", "optimiser.py"),
    "loop": ("dlmkit/sampling/", "dlmkit/training/", "dlmkit/rows.py"),
}
"""By the file of the innermost line that is not torch's; the first that fits."""


def main() -> None:
    """Count, print, and write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--recipe", action="append", help="recipes to train; default: two")
    options.add_argument("--sites", action="store_true", help="list every line")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write the counts")
    given = options.parse_args()
    counted: dict[str, DeviceCounts] = {}
    with pretend.accelerator() as device:
        for name, overrides in SAMPLING.items():
            middle, end = sampling(device, overrides)
            counted |= {f"sample: {name}": middle, f"sample: {name}, last step": end}
        for name in given.recipe or RECIPES:
            counted[f"train: {name}"] = training(device, name)
    report = {name: tabulated(counts) for name, counts in counted.items()}
    show(report)
    if given.sites:
        for name, counts in counted.items():
            print(f"\n{name}: {counts}")
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def sampling(device: torch.device, overrides: Iterable[str]) -> tuple[DeviceCounts, DeviceCounts]:
    """(a step in the middle, the last step) of three texts of the model that ships."""
    model = load_model("ddlm-mini", list(overrides), device=device)
    length = model.config.length
    steps = counts_of_items(
        stream(
            model.parts,
            unconditional(3, length),
            seed=0,
            steps=STEPS,
            batch_size=3,
            length=length,
            width=model.parts.inference.width,
        )
    )
    return steps[STEPS // 2], steps[STEPS - 1]


def training(device: torch.device, name: str) -> DeviceCounts:
    """The last of a few steps of a recipe."""
    registry = Registry.load(third_party=False)
    config = load_recipe(name, [f"train.steps={STEPS}", "train.batch_size=8"], registry).config
    assembly = assemble(config, registry, device=device)
    processes = Single(device)
    learner = Learner.begin(assembly.objective.train(), config.train, processes)
    assert assembly.data is not None
    data = assembly.data.stream(config.seed, config.train.batch_size)
    return counts_of_items(train(learner, data, config.train, config.seed, processes))[STEPS - 1]


def counts_of_items(running: Iterator[Any]) -> list[DeviceCounts]:
    """The counts of every item."""
    counts: list[DeviceCounts] = []
    while True:
        with pretend.counted(sites=True) as seen:
            item = next(running, None)
        if item is None:
            return counts
        counts.append(seen)


def part(site: Site) -> str:
    """Where a count belongs."""
    if site.file == "backward":
        return "backward pass"
    if site.function.endswith("_Run._apply"):
        return "optimiser, average"
    for name, files in PARTS.items():
        if any(file in site.file for file in files):
            return name
    return "other"


def tabulated(counts: DeviceCounts) -> dict[str, Any]:
    """Totals, and launches by part."""
    parts: Counter[str] = Counter()
    for site, count in (counts.sites or Counter()).items():
        if site.kind == "launch":
            parts[part(site)] += count
    totals = {"launches": counts.launches, "waits": counts.waits, "copies": counts.copies}
    return {**totals, "parts": dict(parts.most_common())}


def show(report: dict[str, dict[str, Any]]) -> None:
    """One case a line."""
    for name, counts in report.items():
        parts = ", ".join(f"{part} {count}" for part, count in counts["parts"].items())
        print(
            f"{name}: {counts['launches']} launches ({parts}), {counts['waits']} waits, "
            f"{counts['copies']} copies"
        )


if __name__ == "__main__":
    main()
