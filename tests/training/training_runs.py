"""Running the program and reading what a run wrote."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dlmkit.cli.app import main
from dlmkit.training.checkpoint import checkpoint_name

TIMING = ("seconds", "tokens_per_second", "step_seconds", "data_share")


def dlmkit(*arguments: Any) -> int:
    """Run the program in this process; its exit code."""
    return main([str(argument) for argument in arguments])


def metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run but for what a clock measured."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMING} for record in records]


def state(run: Path, step: int) -> dict[str, Any]:
    """All tensors of a checkpoint as bytes, and its state but for what a clock measured."""
    folder = run / "checkpoints" / checkpoint_name(step)
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.name}/{name}"] = (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
    content = json.loads((folder / "training" / "state.json").read_text())
    for key in ("seconds", "data_seconds", "total_seconds"):
        content["progress"]["window"].pop(key)
    return {**found, "state": content}


def saved_steps(run: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
