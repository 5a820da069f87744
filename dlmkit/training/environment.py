"""What a run ran in, for ``environment.json``: enough to run it again."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlmkit import devices, documents
from dlmkit.checkout import commit_of
from dlmkit.kernels.attention import Attention
from dlmkit.registry.lookup import Registry
from dlmkit.threads import waiting
from dlmkit.training.parallel import World
from dlmkit.version import __version__

PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "transformers", "datasets", "pydantic")


def environment(registry: Registry, seed: int, network: nn.Module, world: World) -> dict[str, Any]:
    """Versions, plugins, seed, git commit, command line, devices and what runs attention."""
    return {
        "dlmkit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": documents.versions(PACKAGES),
        "plugins": [plugin.record for plugin in registry.plugins if plugin.state == "ok"],
        "seed": seed,
        "git": {"commit": commit_of(Path())},
        "command": sys.argv,
        "device": devices.label(world.device),
        "processes": world.size,
        "parallel": world.layout,
        "threads": torch.get_num_threads(),
        "waiting": waiting(),
        "attention": attention_used(network),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def attention_used(network: nn.Module) -> list[str]:
    """The backends that a network's modules call, with the kernels underneath."""
    used = {m for m in network.modules() if isinstance(m, Attention)}
    return sorted({f"{attention.name} ({attention.kernel})" for attention in used})


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two environments in a way that may change the last bits of a run."""
    differences = documents.differences(_deciding(before), _deciding(now))
    return [
        str(difference) for difference in differences if difference.after is not documents.ABSENT
    ]


def _deciding(environment: dict[str, Any]) -> dict[str, Any]:
    keys = ("dlmkit", "python", "device", "processes", "parallel", "threads", "attention")
    plugins = {
        f"plugin {plugin['name']}": plugin.get("version") or plugin.get("sha256", "")[:12]
        for plugin in environment.get("plugins", ())
    }
    packages = environment.get("packages") or {}
    return {**{key: environment.get(key) for key in keys}, **packages, **plugins}
