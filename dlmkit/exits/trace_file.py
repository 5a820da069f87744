"""The file of a trace: one safetensors file whose header holds JSON. Nothing is unpickled.

Tokens are kept where they change: a bit per position and step says whether the token differs from
the step before, and the changed tokens follow in order. The header's sha256 covers every tensor
and what it says about them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Int, UInt8
from pydantic import ConfigDict, Field, PositiveInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dlmkit import documents
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.exits.trace import Trace

FORMAT = 1
_KEY = "dlmkit-trace"
_GROUPS = ("statistics", "positions", "norms")
_WHOLE = (torch.int16, torch.int32, torch.int64)
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BITS = 2 ** torch.arange(8)


def save_trace(trace: Trace, path: Path) -> None:
    """Write ``trace`` to the new file ``path``, whole or not at all.

    Raises UsageError if the file exists or cannot be written.
    """
    documents.check_new(path)
    content = _tensors(trace)
    head = {"format": FORMAT, "shape": list(trace.ids.shape), "about": dict(trace.about)}
    said = json.dumps(documents.sealed(head, content), sort_keys=True)
    documents.write_new(path, save(content, {_KEY: said}))


def load_trace(path: Path) -> Trace:
    """The trace in ``path``.

    Raises UsageError if it is no trace, CheckpointError if it is truncated or altered.
    """
    if not path.is_file():
        raise UsageError(f"there is no trace {path}: record one by 'dlmkit trace MODEL --out FILE'")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated, altered or no trace: {error}") from error
    if text is None:
        raise UsageError(f"{path} is a safetensors file, but no trace of dlmkit's")
    return _trace(path, content, text)


def _trace(path: Path, content: Mapping[str, Tensor], text: str) -> Trace:
    try:
        head = documents.parse(text)
        described = documents.shaped(head, _Head)
    except ValueError as error:
        raise CheckpointError(f"{path} has been altered: its header: {error}") from error
    documents.check_format(path, described.format, FORMAT, "record it again")
    if not documents.intact(head, content):
        raise CheckpointError(f"{path} has been altered: its sha256 is not the recorded one")
    groups: dict[str, Any] = {group: {} for group in _GROUPS}
    for name, value in content.items():
        group, _, rest = name.partition(".")
        if group in groups and rest:
            groups[group][rest] = value
    _check(path, content, groups, described.shape)
    return Trace(
        row=content["row"],
        ids=_unpacked(content["changed"], content["tokens"], described.shape),
        given=content["given"],
        attend=content["attend"],
        evaluations=content["evaluations"],
        about=described.about.model_dump(exclude_unset=True),
        **groups,
    )


class _About(documents.Shape):
    """What is read of what a trace says of itself; other keys are kept as they are."""

    model_config = ConfigDict(extra="allow")
    seed: int | None = None
    conditions: dict[str, Any] = Field(default_factory=dict)
    floors: dict[str, float] = Field(default_factory=dict)
    tokens: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], str] = Field(default_factory=dict)


class _Head(documents.Shape):
    format: int
    sha256: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    about: _About


def _check(
    path: Path,
    content: Mapping[str, Tensor],
    groups: Mapping[str, Mapping[str, Tensor]],
    shape: tuple[int, int, int],
) -> None:
    """Raise CheckpointError unless every tensor is of the type and shape that a trace has."""
    texts, steps, length = shape
    bits = content.get("changed")
    expected: dict[str, tuple[tuple[int, ...], Sequence[torch.dtype]]] = {
        "row": ((texts,), _WHOLE),
        "given": ((texts, length), (torch.bool,)),
        "attend": ((texts, length), (torch.bool,)),
        "evaluations": ((steps,), _WHOLE),
        "changed": (((texts * steps * length + 7) // 8,), (torch.uint8,)),
        "tokens": ((_changes(bits, texts * steps * length),), _WHOLE),
    }
    sizes = {"statistics": (texts, steps), "norms": (texts, steps), "positions": shape}
    for group, names in groups.items():
        expected |= {f"{group}.{name}": (sizes[group], _REAL) for name in names}
    for name, (size, types) in expected.items():
        value = content.get(name)
        if value is None or tuple(value.shape) != size or value.dtype not in types:
            raise CheckpointError(
                f"{path} is damaged: its {name} does not fit {texts} texts of {steps} steps and "
                f"{length} tokens"
            )


def _changes(bits: Tensor | None, count: int) -> int:
    """How many tokens ``bits`` say that there are; -1 if they cannot."""
    if bits is None or bits.dtype != torch.uint8 or bits.ndim != 1:
        return -1
    return int(_spread(bits)[:count].sum())


def _tensors(trace: Trace) -> dict[str, Tensor]:
    changed, tokens = _packed(trace.ids)
    content = {
        "row": trace.row,
        "given": trace.given,
        "attend": trace.attend,
        "evaluations": trace.evaluations,
        "changed": changed,
        "tokens": tokens,
    }
    for group in _GROUPS:
        content |= {f"{group}.{name}": value for name, value in getattr(trace, group).items()}
    return {name: value.contiguous() for name, value in content.items()}


def _packed(ids: Int[Tensor, "B N L"]) -> tuple[UInt8[Tensor, "bytes"], Int[Tensor, "changes"]]:
    """A bit for every (text, position, step) whose token differs, and those tokens in order."""
    way = ids.transpose(1, 2)
    changed = torch.ones_like(way, dtype=torch.bool)
    changed[..., 1:] = way[..., 1:] != way[..., :-1]
    bits = torch.nn.functional.pad(changed.flatten(), (0, -changed.numel() % 8))
    return (bits.view(-1, 8) * _BITS).sum(dim=1).to(torch.uint8), way[changed]


def _unpacked(
    changed: UInt8[Tensor, "bytes"], tokens: Int[Tensor, "changes"], shape: tuple[int, int, int]
) -> Int[Tensor, "B N L"]:
    texts, steps, length = shape
    bits = _spread(changed)[: texts * steps * length]
    way = tokens[bits.long().cumsum(dim=0) - 1].view(texts, length, steps)
    return way.transpose(1, 2).contiguous()


def _spread(packed: UInt8[Tensor, "bytes"]) -> Bool[Tensor, "bits"]:
    return (packed[:, None].int() & _BITS.int() > 0).flatten()
