"""Measures what training takes at its peak, in a process that does nothing else.

A program: ``peak.py RECIPE LAYOUT``. Prints {"peak": bytes, "estimate": bytes} of each process,
the peak being that of three steps over what the imports and a tiny run before them took.
"""

import json
import os
import sys
from pathlib import Path

from launched import start, wait

SMALL = (
    "network.with.width=24", "network.with.heads=2", "network.with.blocks=1", "train.batch_size=4",
    "train.steps=1",
)  # fmt: skip


def memory(key: str) -> int:
    """Bytes of this process now (VmRSS), or at its peak since ``restart`` (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def restart() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(recipe: str, layout: str, result: Path) -> None:
    import torch

    from dlmkit.recipe.load import load_recipe
    from dlmkit.registry.lookup import Registry
    from dlmkit.training import dry
    from dlmkit.training.parallel import Single, world

    torch.set_num_threads(1)
    registry = Registry.load(third_party=False)
    tiny = load_recipe(recipe, SMALL, registry)
    steps(tiny, registry, Single(torch.device("cpu")))
    resolved = load_recipe(recipe, (f"train.parallel={layout}",), registry)
    with world(layout) as processes:
        before = memory("VmRSS")
        restart()
        steps(resolved, registry, processes)
        peak = memory("VmHWM") - before
        report = dry.report(resolved, registry, processes)
    result.write_text(json.dumps({"peak": peak, "estimate": report.memory_bytes}))


def steps(resolved, registry, processes) -> None:
    """All steps of the recipe; nothing is saved."""
    from dlmkit.recipe.assemble import assemble
    from dlmkit.training.loop import Learner, train

    config = resolved.config
    assembly = assemble(config, registry)
    stream = assembly.data.stream(config.seed, config.train.batch_size)
    learner = Learner.begin(assembly.objective, config.train, processes)
    for _ in train(learner, stream, config.train, config.seed, processes):
        pass


if __name__ == "__main__":
    import dlmkit.training.dry
    import dlmkit.training.run  # noqa: F401

    recipe, layout, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    size = 1 if layout == "alone" else 2

    def work(words: list[str]) -> int:
        rank = os.environ.get("RANK", "0")
        measure(recipe, "ddp" if layout == "alone" else layout, folder / f"{rank}.json")
        return 0

    codes = wait(start(size, [], work))
    assert codes == [0] * size, codes
    print(json.dumps([json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]))
