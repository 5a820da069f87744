"""What a process needs to train, by arithmetic on the sizes of weights and of one measured pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlmkit.core.objective import Objective
from dlmkit.core.room import size
from dlmkit.training.activations import Activations


@dataclass(frozen=True)
class Item:
    """One part of the memory that a process needs: ``bytes``, and ``how`` they were reckoned."""

    what: str
    bytes: int
    how: str


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model's weights: all, those outside of its blocks, and the largest block's.

    ``kept`` and ``slope`` are those of a pass: kept(rows) = ``kept`` + ``slope`` * rows, and
    ``largest`` the largest activation of one row.
    """

    weights: int
    outside: int
    block: int
    kept: float
    slope: float
    largest: float
    checkpointing: bool

    @staticmethod
    def of(objective: Objective, two: Activations, four: Activations, checkpointing: bool) -> Sizes:
        """From passes of two and of four rows."""
        weights = _bytes(objective.parameters())
        blocks = [_bytes(unit.parameters()) for unit in objective.network.shard_units()]
        low, high = two.kept(checkpointing), four.kept(checkpointing)
        slope = (high - low) / 2
        return Sizes(
            weights=weights,
            outside=weights - sum(blocks),
            block=max(blocks, default=0),
            kept=low - 2 * slope,
            slope=slope,
            largest=four.largest / 4,
            checkpointing=checkpointing,
        )


def _bytes(parameters: object) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)  # type: ignore[attr-defined]


def needed(sizes: Sizes, layout: str, processes: int, rows: int, on_cpu: bool) -> list[Item]:
    """What each of ``processes`` holds at its peak with passes of ``rows`` rows.

    ``layout`` is alone, ddp or fsdp. DDP's gradients lie in the buckets that they travel in.
    Not counted are the program, the text, and what the allocator does not give back.
    """
    sharded = layout == "fsdp" and processes > 1
    share = processes if sharded else 1
    by = f" / {processes}" if sharded else ""
    held = sizes.weights // share
    return [
        Item("weights", held, f"{size(sizes.weights)}{by}"),
        Item("gradients", held, f"{size(sizes.weights)}{by}"),
        Item("AdamW", 2 * held, f"2 x {size(sizes.weights)}{by}, its two moments"),
        Item("EMA", held, f"{size(sizes.weights)}{by}"),
        *(_gathered(sizes, on_cpu) if sharded else ()),
        *_passing(sizes, rows),
    ]


def _gathered(sizes: Sizes, on_cpu: bool) -> Sequence[Item]:
    outside, block = sizes.outside, sizes.block
    items = [
        Item(
            "gathered",
            3 * outside + 4 * block,
            f"3 x {size(outside)} outside of the blocks, whole for the length of a pass: weights, "
            f"gradients, what is sent; 4 x {size(block)}: two blocks' weights, one's gradients, "
            "what is sent",
        )
    ]
    if on_cpu:  # beside an accelerator it waits in the host's memory
        how = "weights, whole, in the first process: what validates and samples"
        items.append(Item("sampled copy", sizes.weights, how))
    return items


def _passing(sizes: Sizes, rows: int) -> Sequence[Item]:
    kept = max(0, round(sizes.kept + sizes.slope * rows))
    largest = round(sizes.largest * rows)
    what = "activations" + (" between blocks and of one block" if sizes.checkpointing else "")
    each = f"{size(round(sizes.slope))} x {rows} rows + {size(max(0, round(sizes.kept)))}, measured"
    work = f"2 x {size(largest)}, the largest activation"
    return [Item(what, kept, each), Item("workspace", 2 * largest, work)]
