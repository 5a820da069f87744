"""Row-first values: axis 0 of every tensor is the row, so whole states are indexed at once.

A value is a tensor, a tuple, named tuple, dict or dataclass of values, or what is the same for all
rows: ``None``, a device or a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def _map(function: Callable[..., Tensor], *values: Any) -> Any:
    first = values[0]
    if first is None or isinstance(first, torch.device | int):
        return first
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, dict):
        return {key: _map(function, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple):
        items = [_map(function, *parts) for parts in zip(*values, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else tuple(items)
    if dataclasses.is_dataclass(first):
        fields = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(
            first,  # type: ignore[type-var]
            **{name: _map(function, *(getattr(v, name) for v in values)) for name in fields},
        )
    raise TypeError(f"a row-first value cannot hold {type(first).__name__}")


def take(value: Value, index: Tensor) -> Value:
    """The rows ``index`` (int64 positions or a bool mask of length B) of every tensor."""
    result: Value = _map(lambda tensor: tensor[index], value)
    return result


def where(mask: Tensor, chosen: Value, other: Value) -> Value:
    """Row by row, ``chosen`` where ``mask`` (bool, B) holds and ``other`` elsewhere."""

    def select(a: Tensor, b: Tensor) -> Tensor:
        if a is b:
            return a
        return torch.where(mask.view(-1, *(1,) * (a.ndim - 1)), a, b)

    result: Value = _map(select, chosen, other)
    return result


def put(value: Value, index: Tensor, rows: Value) -> Value:
    """A copy of ``value`` in which the rows ``index`` are replaced by ``rows``."""

    def replace(tensor: Tensor, new: Tensor) -> Tensor:
        return tensor.index_put((index,), new.to(tensor.dtype))

    result: Value = _map(replace, value, rows)
    return result


def mapped(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """``value`` with ``function`` of every tensor."""
    result: Value = _map(function, value)
    return result


def to(value: Value, device: torch.device) -> Value:
    """``value`` with every tensor on ``device``."""
    return mapped(value, lambda tensor: tensor.to(device))


def merge(value: Value) -> Value:
    """Axes 0 and 1 of every tensor as one: (B, L, ...) to (B L, ...)."""
    result: Value = _map(lambda tensor: tensor.flatten(0, 1), value)
    return result


def part(value: Value, length: int) -> Value:
    """Axis 0 of every tensor in rows of ``length``: (B L, ...) to (B, L, ...)."""
    result: Value = _map(lambda tensor: tensor.unflatten(0, (-1, length)), value)
    return result


def places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, places) at which ``mask`` (bool, B x L) holds, in order; on an accelerator, all.

    To count them there would make the host wait for the device, which costs more than to compute
    at every place: what is computed at the places returned counts only where ``mask`` holds.
    """
    if mask.device.type == "cpu":
        return mask.nonzero(as_tuple=True)  # type: ignore[return-value]
    every = torch.arange(mask.numel(), device=mask.device)
    return every // mask.shape[1], every % mask.shape[1]


def cat(values: list[Value]) -> Value:
    """The rows of all ``values`` one after the other."""
    result: Value = _map(lambda *tensors: torch.cat(tensors), *values)
    return result


def clone(value: Value) -> Value:
    """``value`` in memory of its own."""
    result: Value = _map(torch.clone, value)
    return result


def alike(value: Value) -> Value:
    """The same tensors in a new value, without what it remembers beside its fields."""
    result: Value = _map(lambda tensor: tensor, value)
    return result


def fill(value: Value, new: Value) -> None:
    """Write ``new`` into the memory of ``value``, where it is not there already."""
    _map(lambda old, fresh: old if old is fresh else old.copy_(fresh), value, new)


def on_host(value: Value) -> Value:
    """``value`` on the CPU, its tensors brought there by one copy."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    _map(note, value)
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return value
    packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
    pieces = iter(packed.cpu().split([tensor.nbytes for tensor in tensors]))

    def unpack(tensor: Tensor) -> Tensor:
        # a copy, since a piece may begin where its dtype cannot
        piece: Tensor = next(pieces).clone()
        return piece.view(tensor.dtype).view(tensor.shape)

    result: Value = _map(unpack, value)
    return result
