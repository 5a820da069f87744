"""Comparisons of row-first values, and the five properties that every pure part has."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.testing import accelerators
from dlmkit.testing.outcome import CheckFailed
from dlmkit.testing.suite import check


def leaves(value: Any) -> list[Tensor]:
    """The tensors of a row-first value, in a fixed order."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return []


def differs(a: Any, b: Any, tolerance: float = 0.0) -> str:
    """How ``a`` and ``b`` differ, in words; nothing if they agree to ``tolerance``.

    Relative to the larger of 1 and the largest finite value. NaN and infinity equal themselves.
    """
    pairs = list(zip(leaves(a), leaves(b), strict=False))
    if len(leaves(a)) != len(leaves(b)) or any(x.shape != y.shape for x, y in pairs):
        shapes = [[tuple(leaf.shape) for leaf in leaves(value)] for value in (a, b)]
        return f"shapes {shapes[0]} and {shapes[1]}"
    for x, y in pairs:
        x, y = x.detach().double(), y.detach().double()
        same = (x == y) | (x.isnan() & y.isnan())
        if bool(same.all()):
            continue
        gap = torch.where(same, 0.0, (x - y).abs()).nan_to_num(nan=torch.inf).max().item()
        scale = max(1.0, torch.where(y.isfinite(), y.abs(), 0.0).max().item())
        if gap > tolerance * scale:
            return f"by up to {gap:.3g}"
    return ""


def agree(a: Any, b: Any, what: str, tolerance: float = 0.0) -> None:
    """Raise CheckFailed unless ``a`` and ``b`` agree; ``what`` says what should be the same."""
    difference = differs(a, b, tolerance)
    if difference:
        raise CheckFailed(f"{what} differ: {difference}")


def require(condition: Any, message: str) -> None:
    """Raise CheckFailed with ``message`` unless ``condition`` holds."""
    if not bool(condition):
        raise CheckFailed(message)


def finite(value: Any, what: str) -> None:
    """Raise CheckFailed unless every number of ``value`` is finite."""
    for leaf in leaves(value):
        require(leaf.isfinite().all(), f"{what} must be finite, and some of it is not")


def copied(value: Any) -> Any:
    """The same row-first value with tensors of its own."""
    size = len(leaves(value)[0]) if leaves(value) else 0
    return rows.take(value, torch.arange(size))


class Exercise(NamedTuple):
    """A use of a part: ``call(*inputs)``, row-first values in and out.

    ``tolerance`` allows for sums in another order when rows are left out.
    """

    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    tolerance: float = 1e-5


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _generators() -> tuple[Tensor, Tensor]:
    """The states of torch's and numpy's global generators. Type checkers move Python's own."""
    state: Any = np.random.get_state()
    return torch.get_rng_state(), torch.from_numpy(state[1].astype(np.int64)) + state[2]


def pure(kind: str, exercise: Callable[[Any], Exercise]) -> None:
    """Register the properties that parts of ``kind`` share, seen through one ``exercise``."""

    @check(kind)
    def deterministic(subject: Any) -> None:
        """The same inputs give the same result, however often"""
        use = exercise(subject)
        _seed(1)
        first = use.call(*copied(use.inputs))
        _seed(1)
        again = use.call(*copied(use.inputs))
        agree(first, again, "two calls with the same inputs")

    @check(kind)
    def no_global_randomness(subject: Any) -> None:
        """Randomness is an argument: global generators are neither read nor moved"""
        use = exercise(subject)
        results = []
        for seed in (1, 2):
            _seed(seed)
            before = _generators()
            results.append(use.call(*copied(use.inputs)))
            moved = differs(_generators(), before)
            require(not moved, "it drew from a global generator; draw from the noise it is given")
        agree(results[0], results[1], "results under two global seeds")

    @check(kind)
    def inputs_untouched(subject: Any) -> None:
        """What it is given stays as it was"""
        use = exercise(subject)
        before = copied(use.inputs)
        use.call(*use.inputs)
        agree(use.inputs, before, "its inputs before and after a call")

    @check(kind)
    def rows_independent(subject: Any) -> None:
        """A row's result does not depend on the other rows, or on their order"""
        use = exercise(subject)
        whole = use.call(*copied(use.inputs))
        count = len(leaves(use.inputs)[0])
        for index in (torch.arange(count).flip(0), torch.arange(0, count, 2), torch.tensor([1])):
            part = use.call(*rows.take(use.inputs, index))
            what = f"rows {index.tolist()} alone and among all {count}"
            agree(part, rows.take(whole, index), what, use.tolerance)

    @check(kind)
    def runs_on_an_accelerator(subject: Any) -> None:
        """On an accelerator it gives what it gives on the CPU"""
        use = exercise(subject.on(torch.device("cpu")))
        _seed(1)
        expected = use.call(*copied(use.inputs))
        with accelerators.accelerator() as device:
            there = subject.on(device)
            call = exercise(there).call
            there.move()
            _seed(1)
            answer = call(*rows.to(copied(use.inputs), device))
            strays = [leaf for leaf in leaves(answer) if leaf.device != device]
            require(not strays, "its result is not on the device of what it was given")
            back = [leaf.cpu() for leaf in leaves(answer)]
            agree(back, leaves(expected), accelerators.RESULTS, use.tolerance)
