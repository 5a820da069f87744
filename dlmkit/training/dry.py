"""What a run would take, by building the model and doing two tiny forward passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from dlmkit import devices
from dlmkit.core.objective import Batch, Objective, Slots
from dlmkit.core.room import free, refuse, size
from dlmkit.core.units import probe_compile
from dlmkit.errors import RecipeError
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import Resolved
from dlmkit.recipe.schema import TrainConfig
from dlmkit.registry.lookup import Registry
from dlmkit.training.activations import Activations, measure
from dlmkit.training.draws import draws, micro_batches, stratified
from dlmkit.training.environment import attention_used
from dlmkit.training.needs import Item, Sizes, needed
from dlmkit.training.parallel import LAYOUTS, World, world


@dataclass(frozen=True)
class Layout:
    """What each of ``processes``, an accelerator each, would need in the layout ``parallel``.

    ``rows_per_pass`` is 0, and there are no items, where the batch has too few rows for them.
    """

    parallel: str
    processes: int
    rows_per_pass: int
    memory: list[Item]

    @property
    def memory_bytes(self) -> int:
        """The sum of the memory items."""
        return sum(item.bytes for item in self.memory)


PROCESSES = (1, 8, 64)
"""The numbers of processes that a dry run reckons with, whatever it runs on."""


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
    layouts: list[Layout]

    @property
    def memory_bytes(self) -> int:
        """The sum of the memory items."""
        return sum(item.bytes for item in self.memory)

    def json(self) -> dict[str, object]:
        """As JSON."""
        tokens = self.steps * self.tokens_per_step
        layouts = [{**asdict(each), "memory_bytes": each.memory_bytes} for each in self.layouts]
        more = {"memory_bytes": self.memory_bytes, "tokens": tokens, "layouts": layouts}
        return {**asdict(self), **more}

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
            ("memory", f"{size(self.memory_bytes)} a process, beside the program itself:"),
            *((f"  {item.what}", f"{size(item.bytes)} = {item.how}") for item in self.memory),
            ("on GPUs", "each would need, beside the program itself:"),
            *_on_gpus(self.layouts),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _on_gpus(layouts: Sequence[Layout]) -> Iterator[tuple[str, str]]:
    for processes in PROCESSES:
        some = [each for each in layouts if each.processes == processes]
        needs = ", ".join(f"{e.parallel} {size(e.memory_bytes)}" for e in some if e.memory)
        rows = f" (passes of {some[0].rows_per_pass} rows)"
        yield f"  x {processes}", needs + rows if needs else "train.batch_size has too few rows"


def run(resolved: Resolved, registry: Registry) -> Report | None:
    """The report; None in all processes of a run but the first.

    The data component is built, since its tokenizer gives the vocabulary; nothing is trained and
    nothing is written but what that component caches.
    """
    config = resolved.config
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    with world(config.train.parallel) as processes:
        found = processes.in_turns(lambda: report(resolved, registry, processes))
        return found if processes.first else None


def report(resolved: Resolved, registry: Registry, processes: World) -> Report:
    """The report of ``processes``. Not collective."""
    config, train = resolved.config, resolved.config.train
    assembly = assemble(config, registry, device=processes.device, start=False)
    passes = micro_batches(train.batch_size, train.micro_batch_size, processes.size, 0)
    if train.compile:
        probe_compile(processes.device)
    objective = assembly.objective
    two, four = (_activations(assembly, train, count) for count in (2, 4))
    sizes = Sizes.of(objective, two, four, train.activation_checkpointing)
    on_cpu = processes.device.type == "cpu"
    return Report(
        recipe=str(resolved.source),
        parameters=_count(objective),
        by_part={name: _count(part) for name, part in objective.named_children()},
        steps=train.steps,
        tokens_per_step=train.batch_size * config.length,
        rows_per_pass=len(passes[0]),
        passes_per_step=len(passes),
        device=devices.label(processes.device),
        processes=processes.size,
        threads=torch.get_num_threads(),
        precision=train.precision,
        attention=attention_used(assembly.network),
        compile="blocks, by torch.compile, which works here" if train.compile else "off",
        activation_checkpointing=train.activation_checkpointing,
        memory=needed(sizes, processes.layout, processes.size, len(passes[0]), on_cpu),
        layouts=_layouts(sizes, train),
    )


LARGE_PASS = 2**18
"""Positions of a pass from which on its memory is reckoned before a run starts: below, it is not
worth two passes of a few rows."""


def refuse_too_large(assembly: Assembly, train: TrainConfig, processes: World) -> None:
    """Raise TooLargeError if a run on the CPU would take more memory than is free.

    The weights are there already. Not collective.
    """
    if processes.device.type != "cpu":
        return
    share = processes.size if processes.layout == "fsdp" else 1
    weights = sum(p.numel() * p.element_size() for p in assembly.objective.parameters()) // share
    there, what = free(), "gradients, AdamW's two moments and averages take 4 x the weights"
    refuse(what, 4 * weights, there)
    rows = len(micro_batches(train.batch_size, train.micro_batch_size, processes.size, 0)[0])
    if rows * assembly.config.length < LARGE_PASS:
        return
    two, four = (_activations(assembly, train, count) for count in (2, 4))
    sizes = Sizes.of(assembly.objective, two, four, train.activation_checkpointing)
    items = needed(sizes, processes.layout, processes.size, rows, on_cpu=True)
    how = "; ".join(f"{item.what} {size(item.bytes)} = {item.how}" for item in items)
    refuse(f"training would take {how}", sum(item.bytes for item in items) - weights, there)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layouts(sizes: Sizes, train: TrainConfig) -> list[Layout]:
    layouts = []
    for count in PROCESSES:
        for parallel in LAYOUTS if count > 1 else ("alone",):
            try:
                rows = len(micro_batches(train.batch_size, train.micro_batch_size, count, 0)[0])
            except RecipeError:
                layouts.append(Layout(parallel, count, 0, []))
                continue
            items = needed(sizes, parallel, count, rows, on_cpu=False)
            layouts.append(Layout(parallel, count, rows, items))
    return layouts


def _activations(assembly: Assembly, train: TrainConfig, rows: int) -> Activations:
    objective: Objective = assembly.objective
    device, length = assembly.context.device, assembly.config.length
    u = stratified(assembly.config.seed, 0, rows, device)
    ids = torch.zeros(rows, length, dtype=torch.int64, device=device)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    keys = draws(assembly.config.seed, 0, Slots(rows), u)
    return measure(objective, batch, keys, train, device)
