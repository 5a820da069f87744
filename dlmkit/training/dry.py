"""What a run would take, by building its model: nothing is computed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from dlmkit import devices
from dlmkit.core.room import size
from dlmkit.core.units import probe_compile
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import Resolved
from dlmkit.registry.lookup import Registry
from dlmkit.training.draws import micro_batches
from dlmkit.training.environment import attention_used
from dlmkit.training.needs import Item, needed, parameter_count, refuse_too_large
from dlmkit.training.parallel import World, world


@dataclass(frozen=True)
class Report:
    """What ``dlmkit train --dry-run`` says. Memory is that of the first process."""

    recipe: str
    parameters: int
    trained: int
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
            ("trained", "all" if self.trained == self.parameters else f"{self.trained:,}"),
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
            ("memory", f"{size(self.memory_bytes)} a process, beside the program and its passes:"),
            *((f"  {item.what}", f"{size(item.bytes)} = {item.how}") for item in self.memory),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def run(resolved: Resolved, registry: Registry) -> Report | None:
    """The report; None in all processes of a run but the first.

    The data component is built, since its tokenizer gives the vocabulary; nothing is trained and
    nothing is written but what that component caches.
    """
    config = resolved.config
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
    with world(config.train.parallel) as processes:
        forecast = processes.in_turns(lambda: report(resolved, registry, processes))
        return forecast if processes.first else None


def report(resolved: Resolved, registry: Registry, processes: World) -> Report:
    """The report of ``processes``. Not collective. Raises TooLargeError where a run would."""
    config, train = resolved.config, resolved.config.train
    assembly = assemble(config, registry, device=processes.device, start=False)
    refuse_too_large(assembly, train, processes)
    passes = micro_batches(train.batch_size, train.micro_batch_size, processes.size, 0)
    if train.compile:
        probe_compile(processes.device)
    objective = assembly.objective
    return Report(
        recipe=str(resolved.source),
        parameters=parameter_count(objective),
        trained=parameter_count(objective, trained=True),
        by_part={name: parameter_count(part) for name, part in objective.named_children()},
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
        memory=needed(objective, processes),
    )
