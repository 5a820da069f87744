"""What is installed, found out so that no plugin can stop the list, however it behaves.

Plugins of others are each loaded in a child process, which costs a few milliseconds and may end,
crash or hang: then the list says so of this one. Where a system has no ``fork`` they are loaded
in this process, as every other command does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import asdict

from dlmkit import documents
from dlmkit.registry.loading import Loaded, load_plugin, load_plugins
from dlmkit.registry.lookup import PluginInfo, info

LIMIT = 20.0
"""Seconds that a plugin may take to load before the list goes on without it."""


def plugins(limit: float = LIMIT) -> list[PluginInfo]:
    """Every plugin as :attr:`dlmkit.registry.lookup.Registry.plugins` says it."""
    reports: dict[tuple[str, str], PluginInfo] = {}

    def load(plugin: Loaded) -> Loaded:
        reports[plugin.name, plugin.distribution] = _isolated(plugin, limit)
        return plugin

    loaded = load_plugins(load=load if hasattr(os, "fork") else None)
    return [reports.get((plugin.name, plugin.distribution)) or info(plugin) for plugin in loaded]


def _isolated(plugin: Loaded, limit: float) -> PluginInfo:
    """What comes of loading ``plugin`` in a child process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            with os.fdopen(writer, "w", encoding="utf-8") as report:
                json.dump(asdict(info(load_plugin(plugin))), report)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        said = _read(reader, limit)
    finally:
        os.close(reader)
    if said is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return info(plugin.failed(f"its import did not end within {limit:g} s; {plugin.around}"))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        return documents.shaped(documents.parse(said), PluginInfo)
    except ValueError:  # it ended before it could report
        how = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
        return info(plugin.failed(f"its import ended the process ({how}); {plugin.around}"))


def _read(reader: int, limit: float) -> bytes | None:
    """What the child writes, to its end; None if that does not come in time."""
    said, end = b"", time.monotonic() + limit
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        if not piece:
            return said
        said += piece
    return None
