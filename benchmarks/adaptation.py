"""A decoder that learned to predict the next token learns to fill in masked ones: the curve.

    python benchmarks/adaptation.py FOLDER [--steps 100] [--rows 4] [--length 32] [--rate 1e-3]
                                    [--rank 16 | --whole] [--no-shift] [--anneal STEPS]

FOLDER holds a causal model of transformers with its tokenizer, such as SmolLM2-135M. The text is
film reviews (extra: demo). The mask is a new token that begins as the mean of the others; attention
is full. Every few steps the cross-entropy of held-out rows is measured, of which half of the tokens
are masked: always the same rows and tokens. The weights are the last ones, not their average.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import dlmkit
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace


def recipe(given: argparse.Namespace) -> dict[str, Any]:
    """What is trained."""
    config = json.loads((given.folder / "config.json").read_text())
    size = config["vocab_size"] + 1
    network: dict[str, Any] = {
        "name": str(given.folder),
        "tied": bool(config.get("tie_word_embeddings")),
        "new_mask": True,
        "shift": not given.no_shift,
    }
    if not given.whole:
        network["lora"] = {"rank": given.rank}
    objective: dict[str, Any] = {"use": "mdlm:nelbo"}
    if given.anneal:
        objective = {"use": "tune:adapting", "with": {"anneal": given.anneal}}
    return {
        "length": given.length,
        "data": {
            "use": "text:reviews",
            "with": {"tokenizer": {"kind": "pretrained", "name": str(given.folder)}},
        },
        "schedule": "mdlm:log-linear",
        "space": {"use": "mdlm:tokens", "with": {"dim": config["hidden_size"], "size": size}},
        "network": {"use": "hf:decoder", "with": network},
        "masking": "cdcd:none",
        "objective": objective,
        "sampler": "mdlm:unmasking",
        "train": {
            "steps": given.steps,
            "batch_size": given.rows,
            "learning_rate": given.rate,
            "warmup_steps": min(10, given.steps),
            "decay": "constant",
            "threads": given.threads,
        },
    }


@torch.no_grad()
def held_out(model: dlmkit.Model, rows: int) -> float:
    """Nats a masked token."""
    batch, objective = model.data.validation(rows), model.assembly.objective
    generator = torch.Generator().manual_seed(0)
    masked = torch.rand(batch.ids.shape, generator=generator) < 0.5
    denoise, space = objective.denoise(), objective.space
    assert isinstance(denoise, ModelDenoise)
    assert isinstance(space, TokenSpace)
    x = torch.where(masked, space.corruption.mask, batch.ids)
    half = torch.full((len(x),), 0.5)
    read = space.corruption.input(x, Level(half, half))
    known = Conditioning.of(read, torch.zeros_like(masked), batch.attend)
    query = denoise.query(x, Level(half, half), denoise.start(x), known)
    return float(F.cross_entropy(query[masked].float(), batch.ids[masked]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--no-shift", action="store_true")
    parser.add_argument("--anneal", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--looks", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, began = dlmkit.compose(**recipe(given)), time.perf_counter()
    trained = sum(p.numel() for p in model.assembly.objective.parameters() if p.requires_grad)
    print(f"{trained:,} parameters are trained, {given.rows * given.length} tokens a step")
    print(f"step    0: {held_out(model, given.held_out):.3f} nats a masked token", flush=True)
    for record in model.train():
        if record.step % max(1, given.steps // given.looks) == 0:
            loss, seconds = held_out(model, given.held_out), time.perf_counter() - began
            print(
                f"step {record.step:4}: {loss:.3f} nats a masked token, {seconds:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
