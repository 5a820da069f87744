"""What a run would take, by building the model and doing two tiny forward passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import nn

from dlmkit.core.objective import Batch, Objective
from dlmkit.core.units import probe_compile
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import Resolved
from dlmkit.recipe.schema import TrainConfig
from dlmkit.registry import Registry
from dlmkit.training.activations import Activations, measure
from dlmkit.training.draws import draws, micro_batches, stratified
from dlmkit.training.environment import attention_used, device_name
from dlmkit.training.parallel import World, world


@dataclass(frozen=True)
class Item:
    """One part of the memory that a process needs: ``bytes``, and ``how`` they were reckoned."""

    what: str
    bytes: int
    how: str


@dataclass(frozen=True)
class Report:
    """What ``dlmkit train --dry-run`` says. Memory is that of one process."""

    recipe: str
    parameters: int
    by_part: Mapping[str, int]
    steps: int
    tokens_per_step: int
    rows_per_pass: int
    passes_per_step: int
    device: str
    processes: int
    threads: int
    precision: str
    attention: list[str]
    compile: str
    activation_checkpointing: bool
    memory: list[Item]

    @property
    def memory_bytes(self) -> int:
        """The sum of the memory items."""
        return sum(item.bytes for item in self.memory)

    def json(self) -> dict[str, object]:
        """As JSON."""
        tokens = self.steps * self.tokens_per_step
        return {**asdict(self), "memory_bytes": self.memory_bytes, "tokens": tokens}

    def text(self) -> str:
        """As a table."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.by_part.items())
        rows = [
            ("recipe", self.recipe),
            ("parameters", f"{self.parameters:,} ({parts})"),
            ("steps", f"{self.steps:,} of {self.tokens_per_step:,} tokens"),
            ("tokens", f"{self.steps * self.tokens_per_step:,}"),
            (
                "passes",
                f"{self.passes_per_step} a step and process, {self.rows_per_pass} rows each",
            ),
            ("device", f"{self.device} x {self.processes}, {self.threads} threads"),
            ("precision", self.precision),
            ("attention", ", ".join(self.attention) or "the network's own"),
            ("compile", self.compile),
            ("checkpointing", "of activations" if self.activation_checkpointing else "none"),
            ("memory", f"{_size(self.memory_bytes)} a process, beside the program itself:"),
            *((f"  {item.what}", f"{_size(item.bytes)} = {item.how}") for item in self.memory),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _size(count: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"


def run(resolved: Resolved, registry: Registry) -> Report | None:
    """The report; None in all processes of a run but the first.

    The data component is built, since its tokenizer gives the vocabulary; nothing is trained and
    nothing is written but what that component caches.
    """
    config = resolved.config
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    with world() as processes:
        assembly = assemble(config, registry, device=processes.device)
        if not processes.first:
            return None
        return _report(resolved, assembly, processes)


def _report(resolved: Resolved, assembly: Assembly, processes: World) -> Report:
    config, train = resolved.config, resolved.config.train
    passes = micro_batches(train.batch_size, train.micro_batch_size, processes.size, 0)
    if train.compile:
        probe_compile(processes.device)
    objective = assembly.objective
    return Report(
        recipe=str(resolved.source),
        parameters=_count(objective),
        by_part={name: _count(part) for name, part in objective.named_children()},
        steps=train.steps,
        tokens_per_step=train.batch_size * config.length,
        rows_per_pass=len(passes[0]),
        passes_per_step=len(passes),
        device=device_name(processes.device),
        processes=processes.size,
        threads=torch.get_num_threads(),
        precision=train.precision,
        attention=attention_used(assembly.network),
        compile="blocks, by torch.compile, which works here" if train.compile else "off",
        activation_checkpointing=train.activation_checkpointing,
        memory=_memory(assembly, train, len(passes[0]), processes),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _memory(assembly: Assembly, train: TrainConfig, rows: int, processes: World) -> list[Item]:
    weights = sum(p.numel() * p.element_size() for p in assembly.objective.parameters())
    items = [
        Item("weights", weights, f"{_count(assembly.objective):,} parameters"),
        Item("gradients", weights, "weights"),
        Item("AdamW", 2 * weights, "2 x weights, its two moments"),
        Item("EMA", weights, "weights"),
    ]
    if processes.size > 1:
        items.append(Item("DDP", weights, "weights, the buckets that gradients travel in"))
    one, two = (_activations(assembly, train, count) for count in (2, 4))
    return [*items, *_activation_items(one, two, rows, train.activation_checkpointing)]


def _activation_items(one: Activations, two: Activations, rows: int, again: bool) -> list[Item]:
    """Items for passes of ``rows`` rows, on the line through the passes of 2 and of 4 rows."""
    low, high = one.kept(again), two.kept(again)
    slope = (high - low) / 2
    kept = max(0, round(low + slope * (rows - 2)))
    each = (
        f"{_size(round(slope))} x {rows} rows + {_size(max(0, round(low - 2 * slope)))}, measured"
    )
    largest = round(two.largest * rows / 4)
    work = Item("workspace", 2 * largest, f"2 x {_size(largest)}, the largest activation")
    what = "activations between blocks and of one block" if again else "activations"
    return [Item(what, kept, each), work]


def _activations(assembly: Assembly, train: TrainConfig, rows: int) -> Activations:
    objective: Objective = assembly.objective
    device, length = assembly.context.device, assembly.config.length
    slots = torch.arange(rows, device=device)
    u = stratified(assembly.config.seed, 0, rows, device)
    ids = torch.zeros(rows, length, dtype=torch.int64, device=device)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    keys = draws(assembly.config.seed, 0, slots, u)
    return measure(objective, batch, keys, train, device)
