"""The file of a trace: one safetensors file whose header holds JSON. Nothing is unpickled.

Tokens are kept where they change: a bit a position and step says whether the token differs from
the step before, and the changed tokens follow in order. The header's sha256 covers every tensor
and what it says about them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dlmkit.errors import CheckpointError, UsageError
from dlmkit.sampling.trace import Trace

FORMAT = 1
_KEY = "dlmkit-trace"
_GROUPS = ("statistics", "positions", "norms")
_BITS = 2 ** torch.arange(8)


def save_trace(trace: Trace, path: Path) -> None:
    """Write ``trace`` to the new file ``path``, whole or not at all.

    Raises UsageError if the file exists or cannot be written.
    """
    check_new(path)
    content = _tensors(trace)
    head = {"format": FORMAT, "shape": list(trace.ids.shape), "about": dict(trace.about)}
    head["sha256"] = _digest(content, head)
    text = json.dumps(head, sort_keys=True)
    hidden = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        hidden.write_bytes(save(content, {_KEY: text}))
        os.replace(hidden, path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def check_new(path: Path) -> None:
    """Raise UsageError unless ``path`` can become a new file."""
    if path.exists():
        raise UsageError(f"{path} exists already: name another file or remove it first")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} into")


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
        head = json.loads(text)
        intact = head.pop("sha256") == _digest(content, head)
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} has been altered: its header cannot be read") from error
    if not intact:
        raise CheckpointError(f"{path} has been altered: its sha256 is not the recorded one")
    if head["format"] != FORMAT:
        raise UsageError(f"{path} is of format {head['format']}; this dlmkit reads {FORMAT}")
    groups: dict[str, Any] = {group: {} for group in _GROUPS}
    for name, value in content.items():
        group, _, rest = name.partition(".")
        if rest:
            groups[group][rest] = value
    return Trace(
        row=content["row"],
        ids=_unpacked(content["changed"], content["tokens"], head["shape"]),
        given=content["given"],
        attend=content["attend"],
        evaluations=content["evaluations"],
        about=head["about"],
        **groups,
    )


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
    changed: UInt8[Tensor, "bytes"], tokens: Int[Tensor, "changes"], shape: list[int]
) -> Int[Tensor, "B N L"]:
    texts, steps, length = shape
    bits = (changed[:, None].int() & _BITS.int() > 0).flatten()[: texts * steps * length]
    way = tokens[bits.long().cumsum(dim=0) - 1].view(texts, length, steps)
    return way.transpose(1, 2).contiguous()


def _digest(content: Mapping[str, Tensor], head: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name, value in sorted(content.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
