"""Which family a folder is of. Imports no torch until one is asked to convert."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmkit import documents
from dlmkit.errors import CheckpointError, DataError, PluginError, describe
from dlmkit.plugin import Importer
from dlmkit.registry.lookup import Registry, import_target

if TYPE_CHECKING:
    from dlmkit.core.importer import Family

CONFIG = "config.json"


def config_of(folder: Path) -> dict[str, Any]:
    """The config of a released ``folder``. Raises CheckpointError if there is none to read."""
    path = folder / CONFIG
    if not path.is_file():
        what = f"holds no {CONFIG}, by which a released model is known"
        raise CheckpointError(f"{folder} {what if folder.is_dir() else 'is no folder'}")
    try:
        return documents.shaped(documents.read(path), dict[str, Any])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def recognised(config: Mapping[str, Any], registry: Registry) -> list[str]:
    """The importers, as ``plugin:name``, that say the config is of their family."""
    return [name for name, known in sorted(registry.importers().items()) if _is(known, config)]


def _is(importer: Importer, config: Mapping[str, Any]) -> bool:
    try:
        return bool(importer.recognises(config))
    except Exception as error:
        raise PluginError(
            f"importer {importer.name!r} cannot say whether it knows a config: {describe(error)}"
        ) from error


def find(folder: Path, config: Mapping[str, Any], registry: Registry) -> tuple[str, Importer]:
    """The one importer of the model in ``folder``, as ``plugin:name`` and its declaration.

    Raises DataError, which names the families that there are, if none knows it or several do.
    """
    names = recognised(config, registry)
    if len(names) == 1:
        return names[0], registry.importers()[names[0]]
    if names:
        raise DataError(
            f"{folder / CONFIG}: {' and '.join(names)} both say that this is a model of theirs; "
            "leave out the plugin of one of them"
        )
    said = {key: config[key] for key in ("model_type", "architectures") if key in config}
    what = ", ".join(f"{key} {value!r:.60}" for key, value in said.items()) or "neither model_type"
    known = ", ".join(sorted(name.rpartition(":")[2] for name in registry.importers()))
    raise DataError(
        f"{folder / CONFIG}: no importer knows this model ({what}"
        f"{'' if said else ' nor architectures'}); families known are {known or 'none'} "
        "('dlmkit models known')"
    )


def build(name: str, importer: Importer) -> Family:
    """The family at work. Raises PluginError if it cannot be imported or is none."""
    from dlmkit.core.importer import Family

    family = import_target(importer.target, f"importer {name}")()
    if not isinstance(family, Family):
        raise PluginError(f"importer {name}: {importer.target} is no dlmkit.core.importer.Family")
    return family
