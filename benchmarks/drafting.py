"""What the mask slots of a run of tune:drafting are worth: nats, acceptance, tokens per pass.

    python benchmarks/drafting.py RUN [--rows 16] [--files TEXT ...] [--untrained] [--new 48]

On held-out rows of the run's text, or on rows cut from files: nats per token of the decoder itself
(place 1) and of slots (places 2, ...), and the chance that a draft is accepted, the sum over tokens
of min(p, q). Then texts are drawn by tune:verifying behind the first 16 tokens of each row, and the
tokens written are counted beside the evaluations of the network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from dlmkit.model import Model, Run, load_model
from dlmkit.sampling.requests import Request
from dlmkit_tune.drafting import Drafting

BEGUN = 16


def held_out(model: Model, rows: int, file: Path | None) -> Tensor:
    """Ids (B, L) of full rows."""
    if file is None:
        batch = model.data.validation(rows)
        return batch.ids[batch.attend.all(dim=1)]
    ids = model.assembly.tokenizer.encode(file.read_text(encoding="utf-8"))
    length = model.config.length
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)[:rows]


@torch.no_grad()
def by_place(objective: Drafting, ids: Tensor) -> None:
    """Print nats and acceptance at each place, over all blocks that lie in a row whole."""
    slots, length = objective.network.slots, ids.shape[1]
    nats, share, a_pass = torch.zeros(slots + 1), torch.zeros(slots), 1.0
    starts = torch.arange(1, length - slots)
    for row in ids.split(1):
        tokens, drafted = (said.double().log_softmax(-1)[0] for said in objective.said(row))
        target = row[0]
        nats[0] -= tokens[starts - 1, target[starts]].mean()
        chance = torch.ones(len(starts), dtype=torch.float64)
        for slot in range(slots):
            p, q = tokens[starts + slot], drafted[starts, slot]
            nats[slot + 1] -= q[range(len(starts)), target[starts + slot + 1]].mean()
            overlap = torch.minimum(p, q).exp().sum(dim=-1)
            chance = chance * overlap
            share[slot] += overlap.mean()
            a_pass += float(chance.mean()) / len(ids)
    places = ", ".join(f"{place}: {value / len(ids):.3f}" for place, value in enumerate(nats, 1))
    shares = ", ".join(f"{place}: {value / len(ids):.3f}" for place, value in enumerate(share, 2))
    print(f"{len(ids)} rows of {length}; nats per token at place {places}")
    print(f"accepted at place {shares}; at that {a_pass:.3f} tokens per pass", flush=True)


def drawn(model: Model, ids: Tensor, new: int) -> None:
    """Print tokens written, by evaluation of the network."""
    requests = [
        Request.prompt(row, begun, BEGUN + new) for row, begun in enumerate(ids[:, :BEGUN].tolist())
    ]
    samples = model.run(requests, Run(0, new, len(requests)))
    tokens = sum(len(sample.ids) - BEGUN for sample in samples)
    passes = sum(sample.evaluations for sample in samples)
    print(f"{tokens} tokens drawn in {passes} passes: {tokens / passes:.3f} tokens per pass")
    print(*(text.text for text in model.texts(samples[:2], 0)), sep="\n--\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("run", help="a folder, or one of its checkpoints")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--files", type=Path, nargs="+", default=[None])
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--new", type=int, default=48)
    given = parser.parse_args()
    model = load_model(given.run)
    objective = model.assembly.objective
    assert isinstance(objective, Drafting)
    if given.untrained:
        with torch.no_grad():
            for name, parameter in objective.named_parameters():
                if ".lora_B." in name or name.startswith("network.following.outer."):
                    parameter.zero_()
    for file in given.files:
        ids = held_out(model, given.rows, file)
        print(f"{file or 'held-out rows'}: ", end="")
        by_place(objective, ids)
        if given.new:
            drawn(model, ids, given.new)


if __name__ == "__main__":
    main()
