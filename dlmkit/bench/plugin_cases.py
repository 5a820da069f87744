"""`dlmkit bench run`: the cases that plugins bring, timed side by side."""

from __future__ import annotations

import contextlib
import inspect
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from dlmkit import documents
from dlmkit.bench import device, document
from dlmkit.bench.timing import interleaved
from dlmkit.errors import DlmkitError, PluginError, describe
from dlmkit.plugin import Benchmark
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry, import_target


@dataclass(frozen=True)
class PluginCase:
    """A case by its ``plugin:name``, and the plugin that brought it."""

    name: str
    declared: Benchmark
    plugin: Loaded

    def set_up(self, place: torch.device) -> Callable[[], Any]:
        """What is timed, on the device ``place`` if the case takes one.

        Raises PluginError if it cannot be imported, fails or returns another.
        """
        target = import_target(self.declared.target, f"bench case {self.name}")
        takes = "device" in inspect.signature(target).parameters
        timed = self.call(partial(target, device=place) if takes else target)
        if not callable(timed):
            raise PluginError(
                f"bench case {self.name}: {self.declared.target} must set up and return what is "
                f"timed, a function without arguments; it returned a {type(timed).__name__}"
            )
        return partial(self.call, timed)

    def call(self, function: Callable[[], Any]) -> Any:
        """What ``function`` returns. Raises PluginError, which names the case, if it raises."""
        try:
            return function()
        except DlmkitError:
            raise
        except Exception as error:
            who = f"bench case {self.name} ({self.plugin.package})"
            raise PluginError(f"{who} failed: {describe(error)}") from error


def plugin_cases(registry: Registry, names: Sequence[str] = ()) -> list[PluginCase]:
    """The cases that ``names`` mean, each once, in that order; without names all of them.

    Raises RecipeError or PluginError for a name that means none, or several.
    """
    declared = registry.benchmarks()
    owners = {plugin.name: plugin for plugin in registry.loaded if plugin.state == "ok"}
    chosen = dict.fromkeys(map(registry.benchmark, names)) if names else sorted(declared)
    return [PluginCase(key, declared[key], owners[key.partition(":")[0]]) for key in chosen]


def measure(cases: Sequence[PluginCase], rounds: int, place: torch.device) -> dict[str, Any]:
    """Set all ``cases`` up, call each once to warm up, then ``rounds`` times in turn."""
    with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
        timed = [case.set_up(place) for case in cases]
        for call in timed:
            call()
        seconds = interleaved(timed, rounds)
    machine = device.describe(place)
    protocol = {
        "what": "cases of plugins",
        "device": device.measured(machine),
        "threads": machine["threads"],
        "rounds": rounds,
    }
    entries = [
        document.entry(
            case.plugin.name,
            case.name,
            {},
            times,
            {"package": case.plugin.package, "summary": case.declared.summary},
            command="run",
        )
        for case, times in zip(cases, seconds, strict=True)
    ]
    brought = {c.plugin.distribution: c.plugin.version or c.plugin.sha256 for c in cases}
    return document.document(
        machine, protocol, entries, {"versions": {**documents.versions(), **brought}}
    )


def rows(content: document.Document) -> Iterator[tuple[str, ...]]:
    """A heading and one line per case, fastest and median round in seconds."""
    yield "CASE", "PACKAGE", "FASTEST", "MEDIAN", "SUMMARY"
    for entry in content["benchmarks"]:
        data, extra = entry["stats"]["data"], entry["extra_info"]
        times = (f"{value:.3g} s" for value in (min(data), statistics.median(data)))
        yield entry["name"], extra["package"], *times, extra["summary"]
