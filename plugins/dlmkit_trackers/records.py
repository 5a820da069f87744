"""Records as the flat numbers and texts that trackers take."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from dlmkit.errors import PluginError


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, named ``kind/name``; those of a noise level by its sigma."""
    kind = record["kind"]
    flat = {f"{kind}/{key}": value for key, value in record.items() if _number(value)}
    for level in record.get("levels", ()):
        for key, value in level.items():
            if key != "sigma" and _number(value):
                flat[f"{kind}/{key} at {level['sigma']:.3g}"] = value
    flat.pop(f"{kind}/step", None)
    return flat


def texts(record: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a sample record, named by their index."""
    return {f"sample/{index}": text for index, text in enumerate(record.get("texts", ()))}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def required(module: str, extra: str) -> ModuleType:
    """The library ``module``. Raises PluginError, naming the extra, if it does not import."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(
            f"tracker {extra}: {error}; pip install 'dlmkit[{extra}]', or leave the tracker out"
        ) from error
