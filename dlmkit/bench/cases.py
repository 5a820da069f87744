"""What is measured: every combination of the parts named on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dlmkit.errors import UsageError
from dlmkit.files import quoted
from dlmkit.plugin import MOST
from dlmkit.recipe.short import NONE, split

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "fp32": ("sample.precision=fp32",),
    "bf16": ("sample.precision=bf16",),
    "int8": ("sample.int8=true",),
    "fp32+compile": ("sample.compile=true",),
    "bf16+compile": ("sample.precision=bf16", "sample.compile=true"),
    "bf16+graphs": ("sample.precision=bf16", "sample.cuda_graphs=true"),
}
"""How the network runs, and the recipe's keys that say so; fp32: as the weights are."""

FULL = "none"
"""The exit of a run to the end of its grid."""


@dataclass(frozen=True)
class BenchCase:
    """One row of the table. Parts are in their short form; ``exit`` is ``none`` for none.

    ``precision`` is a key of :data:`PRECISIONS`.
    """

    sampler: str
    grid: str
    steps: int
    batch_size: int
    guidance: str = NONE
    exit: str = NONE
    freeze: str = NONE
    precision: str = "fp32"

    @property
    def base(self) -> BenchCase:
        """The full run that this one is compared with."""
        return replace(self, exit=NONE, freeze=NONE)

    def name(self, label: str = "") -> str:
        """All that tells it from other cases, ``label`` in place of its exit if there is one."""
        words = [self.sampler, self.grid, f"{self.steps} steps", f"batch {self.batch_size}"]
        words += [] if self.guidance == NONE else [self.guidance]
        words += [] if self.precision == "fp32" else [self.precision]
        return " | ".join([*words, label or self.exit])


@dataclass(frozen=True)
class Lists:
    """The alternatives of each kind; one case each for all combinations."""

    sampler: Sequence[str]
    grid: Sequence[str]
    steps: Sequence[int]
    batch_size: Sequence[int]
    guidance: Sequence[str] = (NONE,)
    precision: Sequence[str] = ("fp32",)

    def cases(self) -> list[BenchCase]:
        """All combinations, the first list slowest."""
        return [
            BenchCase(sampler, grid, steps, batch_size, guidance, precision=precision)
            for sampler, grid, guidance, precision, batch_size, steps in product(
                self.sampler,
                self.grid,
                self.guidance,
                self.precision,
                self.batch_size,
                self.steps,
            )
        ]


def titled(rule: str, threshold: float | None) -> str:
    """An exit rule with its number in place."""
    if threshold is None:
        return rule
    number = f"{threshold:.4g}"
    return rule.replace("tuned", number) if "tuned" in rule else f"{rule} {number}"


def words(option: str, text: str) -> list[str]:
    """The items of a list separated by commas. Raises UsageError for an empty or doubled one."""
    items = [item.strip() for item in split(text, ",")]
    for item in items:
        if not item:
            raise UsageError(f"{option} {text!r}: an item is empty; expected a,b,c")
        if items.count(item) > 1:
            raise UsageError(f"{option} {text!r}: {item} is given twice")
    return items


def numbers(option: str, text: str) -> list[int]:
    """The whole numbers from 1 to :data:`MOST` of a list separated by commas. Raises UsageError
    otherwise."""
    items = words(option, text)
    if not all(item.isdecimal() and len(item) < 9 and 0 < int(item) <= MOST for item in items):
        raise UsageError(
            f"{option} {quoted(text)}: expected whole numbers from 1 to {MOST}, such as 16,32,64"
        )
    return [int(item) for item in items]


def precisions(option: str, text: str) -> list[str]:
    """The precisions of a list separated by commas. Raises UsageError for an unknown one."""
    items = words(option, text)
    for item in items:
        if item not in PRECISIONS:
            raise UsageError(f"{option} {item}: expected one of {', '.join(PRECISIONS)}")
    return items
