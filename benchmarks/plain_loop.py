"""A step of CDCD, training or sampling, beside a loop of plain torch around the same network.

    OMP_NUM_THREADS=1 python benchmarks/plain_loop.py --clock cpu [--sample] [--json FILE]

The plain loops are CDCD (2211.15089, equations 5 to 8, section 4.2) written out and no more. In
training: unit embeddings, one noise level a row, cross-entropy, clipped gradients, AdamW, a moving
average; in sampling: the mean embedding, and Euler's step towards it. The others are dlmkit's own,
with its learned time warping, keyed noise, checks and records. Networks and rows are the same, and
so are the products of a step: the ratio is what the loop around them costs. Training is without
self-conditioning, on random tokens that lie ready.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rounds
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import models
from torch import Tensor, nn

from dlmkit.core.data import Stream
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.recipe.assemble import Assembly, assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import stream
from dlmkit.training.loop import Learner, train
from dlmkit.training.parallel import Single

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "ddlm_small.yaml"
SIZES = {"width": 512, "blocks": 8, "heads": 8}
DIM, STEPS = 128, 1_000_000
LOW, HIGH = 0.5, 30.0
"""Ends of the noise levels, those of the recipe."""


class Ready(Stream):
    """The same random rows at every step."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def read(self, step: int, slots: Tensor) -> Batch:
        return Batch(self.ids[slots], torch.ones_like(self.ids[slots], dtype=torch.bool))

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


def main() -> None:
    """Measure, print, and write."""
    options = rounds.parser(__doc__)
    options.add_argument("--batch", type=int, default=8, help="rows of a step")
    options.add_argument("--vocabulary", type=int, default=32_000)
    options.add_argument("--length", type=int, default=64)
    options.add_argument("--sample", action="store_true", help="a sampling step")
    chosen = options.parse_args()
    device, count = rounds.begin(chosen)
    ids = torch.randint(chosen.vocabulary, (chosen.batch, chosen.length)).to(device)
    loops = (
        {"plain": drawn, "dlmkit": streamed}
        if chosen.sample
        else {"plain": plain, "dlmkit": through_dlmkit}
    )
    steps = {
        name: loop(assembled(chosen.vocabulary, chosen.batch, chosen.length, device), ids)
        for name, loop in loops.items()
    }
    cases: dict[str, rounds.Case] = {name: lambda n=name: next(steps[n]) for name in steps}  # type: ignore[misc]
    seconds = rounds.summary(rounds.rounds(cases, count, device, chosen.clock))
    share = rounds.ratio(seconds, "dlmkit", "plain")
    for name, times in seconds.items():
        print(f"{name:8s} {times['min'] * 1e3:8.1f} ms ({times['median'] * 1e3:.1f})")
    print(f"dlmkit over plain {share['min']:.3f} ({share['median']:.3f}); aim: at most 1.0")
    report = {"rows": list(ids.shape), "V": chosen.vocabulary, "seconds": seconds, "ratio": share}
    rounds.finish({"machine": rounds.machine(device, chosen.clock), **report}, chosen)


def assembled(vocabulary: int, batch: int, length: int, device: torch.device) -> Assembly:
    sizes = {f"network.with.{key}": value for key, value in SIZES.items()}
    values = {"space.with.dim": DIM, "length": length, "masking.use": "cdcd:none", **sizes}
    values |= {"train.steps": STEPS, "train.batch_size": batch}
    values |= {"objective.with.self_conditioning": 0.0, "space.with.start": "random"}
    values |= {"sampler.use": "samplers:euler", "grid.use": "samplers:log-uniform"}
    config = load_recipe(str(RECIPE), [f"{key}={value}" for key, value in values.items()]).config
    words = models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0")
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), pad="0", unknown=None)
    registry = Registry.load(third_party=False)
    return assemble(config, registry, device=device, with_data=False, tokenizer=tokenizer)


def through_dlmkit(parts: Assembly, ids: Tensor) -> Iterator[float]:
    """dlmkit's loop."""
    world, config = Single(ids.device), parts.config
    learner = Learner.begin(parts.objective, config.train, world)
    for record in train(learner, Ready(ids), config.train, config.seed, world):
        yield record.loss


def plain(parts: Assembly, ids: Tensor) -> Iterator[float]:
    """The same without dlmkit, but for the network and the table of embeddings."""
    network, settings = parts.network, parts.config.train
    table = next(p for p in parts.objective.space.parameters() if p.shape[-1] == DIM)
    weights: list[Tensor] = [table, *network.parameters()]
    optimiser = torch.optim.AdamW(weights, settings.learning_rate, settings.betas, fused=True)
    averages = [weight.detach().clone() for weight in weights]
    attend = torch.ones_like(ids, dtype=torch.bool)
    for step in range(STEPS):
        points = DIM**0.5 * F.normalize(table, dim=-1)
        x0 = points[ids]
        sigma = LOW * (HIGH / LOW) ** torch.rand(len(ids), device=ids.device)
        noised = x0 + sigma[:, None, None] * torch.randn_like(x0)
        read = noised * (1.0 + sigma**2).rsqrt()[:, None, None]
        known = Conditioning(~attend, torch.zeros_like(x0), attend)
        query = network(read, Level.of_ratio(sigma), known, torch.zeros_like(x0))
        logits = query @ points.T
        loss = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, settings.clip or torch.inf)
        optimiser.param_groups[0]["lr"] = settings.learning_rate * min(1.0, (step + 1) / 200)
        optimiser.step()
        torch._foreach_lerp_(averages, weights, 1.0 - settings.ema)
        yield float(loss.detach())


def streamed(parts: Assembly, ids: Tensor) -> Iterator[object]:
    """dlmkit's sampling loop."""
    parts.objective.eval()
    rows, length = ids.shape
    requests, ready = unconditional(rows, length), assemble_sampling(parts)
    yield from stream(ready, requests, seed=0, steps=STEPS, batch_size=rows, length=length)


@torch.no_grad()
def drawn(parts: Assembly, ids: Tensor) -> Iterator[None]:
    """Euler's step from level to level, in plain torch."""
    network = parts.network.eval()
    table = next(p for p in parts.objective.space.parameters() if p.shape[-1] == DIM)
    points = DIM**0.5 * F.normalize(table, dim=-1)
    levels = torch.logspace(math.log10(HIGH), math.log10(LOW), STEPS, device=ids.device)
    x = HIGH * torch.randn(*ids.shape, DIM, device=ids.device)
    attend, previous = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(x)
    known = Conditioning(~attend, torch.zeros_like(x), attend)
    for sigma, lower in itertools.pairwise(levels):
        read = x * (1.0 + sigma**2).rsqrt()
        query = network(read, Level.of_ratio(sigma.expand(len(ids))), known, previous)
        mean = (query @ points.T).softmax(dim=-1) @ points
        x = x + (lower - sigma) / sigma * (x - mean)
        yield


if __name__ == "__main__":
    main()
