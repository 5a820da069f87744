"""Checks: how they are named, collected, run and reported."""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
import traceback
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal

from dlmkit.errors import DataError, PluginError, describe
from dlmkit.plugin import KINDS
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.loading import Loaded
from dlmkit.registry.lookup import Registry
from dlmkit.testing.outcome import CheckFailed, NotApplicable

State = Literal["passed", "failed", "expected", "skipped"]

EVERY, PLUGIN, IMPORTER = "component", "plugin", "importer"
"""What checks are registered under that hold for components of any kind, for a plugin, or for a
family of released models."""


@dataclass(frozen=True)
class Check:
    """One named check of one kind: a function of a subject that raises :class:`CheckFailed`."""

    kind: str
    name: str
    function: Callable[[Any], None]

    @property
    def summary(self) -> str:
        """What it says of a component that passes."""
        return cleandoc(self.function.__doc__ or "").partition("\n")[0]


CHECKS: dict[str, list[Check]] = {kind: [] for kind in (PLUGIN, EVERY, *KINDS, IMPORTER)}
"""The checks by kind, in the order they run. Call :func:`all_checks` to have them."""

_MODULES = (
    "declared",
    "schedules",
    "spaces",
    "networks",
    "objectives",
    "known_losses",
    "maskings",
    "samplers",
    "unmasking",
    "grids",
    "exits",
    "guides",
    "statistics",
    "texts",
    "trackers",
    "importers",
)


def check(kind: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function as the check of ``kind`` that its name spells."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS[kind].append(Check(kind, function.__name__.replace("_", "-"), function))
        return function

    return register


def all_checks() -> dict[str, list[Check]]:
    """:data:`CHECKS`, filled. Imports torch."""
    for module in _MODULES:
        importlib.import_module(f"dlmkit.testing.{module}")
    return CHECKS


@dataclass(frozen=True)
class CheckOutcome:
    """What came of one check of one component (``kind/name``, or ``plugin``)."""

    component: str
    check: str
    outcome: State
    message: str


@dataclass(frozen=True)
class CheckCase:
    """A check of a component, or of the plugin. ``expected`` is why it may fail, if it may."""

    component: str
    check: Check
    subject: Any
    expected: str | None = None

    def run(self) -> CheckOutcome:
        """Run the check; nothing but an interrupt is raised."""
        state, message = self._attempt()
        if self.expected is not None and state == "failed":
            state, message = "expected", f"{self.expected} ({message})"
        elif self.expected is not None and state == "passed":
            state = "failed"
            message = f"it passes, but is declared an expected failure: {self.expected}"
        return CheckOutcome(self.component, self.check.name, state, message)

    def _attempt(self) -> tuple[State, str]:
        try:
            with isolated():
                self.check.function(self.subject)
        except CheckFailed as failure:
            return "failed", f"{self.check.summary}: {failure}"
        except NotApplicable as reason:
            return "skipped", str(reason)
        except Exception as error:
            return "failed", f"{self.check.summary}: {located(error)}"
        return "passed", ""

    @cached_property
    def for_pytest(self) -> Callable[[], None]:
        """The check as a test's body."""
        return partial(_as_test, self)


def _as_test(case: CheckCase) -> None:
    import pytest

    outcome = case.run()
    if outcome.outcome == "failed":
        raise CheckFailed(outcome.message)
    if outcome.outcome == "expected":
        pytest.xfail(outcome.message)
    if outcome.outcome == "skipped":
        raise unittest.SkipTest(outcome.message)


def located(error: BaseException) -> str:
    """An unexpected error as one line, with where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"it raised {describe(error)}{where}"


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """No network, results off stdout, one thread, and torch's generator left as it was found."""
    import torch

    connect, threads = socket.socket.connect, torch.get_num_threads()

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise ConnectionRefusedError(f"checks have no network (asked for {address})")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    torch.set_num_threads(1)  # the tensors are tiny: more threads would only wait for each other
    try:
        with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
        torch.set_num_threads(threads)


def cases(plugin: str, registry: Registry | None = None) -> list[CheckCase]:
    """Every check of ``plugin`` that there is to run: of itself, then of each of its parts."""
    from dlmkit.testing.importers import Imported
    from dlmkit.testing.subject import Subject

    registry = registry or Registry.load()
    known = all_checks()
    _prepare_accelerator()
    loaded = _plugin(plugin, registry)
    chosen = [CheckCase("plugin", check, (loaded, registry)) for check in known[PLUGIN]]
    if loaded.state != "ok":
        return chosen[:1]
    for entry in registry.components():
        if entry.plugin != plugin:
            continue
        component = entry.component
        subject = Subject(registry, entry)
        expected = component.expected_failures
        chosen += [
            CheckCase(
                f"{component.kind}/{component.name}", check, subject, expected.get(check.name)
            )
            for check in (*known[EVERY], *known[component.kind])
        ]
    for importer in loaded.importers:
        about, reasons = Imported(registry, loaded, importer), importer.expected_failures
        chosen += [
            CheckCase(f"{IMPORTER}/{importer.name}", check, about, reasons.get(check.name))
            for check in known[IMPORTER]
        ]
    return chosen


def _prepare_accelerator() -> None:
    """Checks on one need it set up before any backward pass; where it cannot be, they say so."""
    from dlmkit.testing import pretend

    with contextlib.suppress(RuntimeError):
        pretend.set_up()


def _plugin(name: str, registry: Registry) -> Loaded:
    claimants = [plugin for plugin in registry.loaded if plugin.name == name]
    if not claimants:
        guess = did_you_mean(name, (plugin.name for plugin in registry.loaded))
        reason = f"no plugin named {name!r} is installed{guess}; install the package that has it"
        return Loaded(name, "", "", "").failed(reason)
    return next((plugin for plugin in claimants if plugin.state == "ok"), claimants[0])


def run(plugin: str, registry: Registry | None = None) -> list[CheckOutcome]:
    """The outcomes of :func:`cases`. If no check ran at all, that is one failure."""
    outcomes = [case.run() for case in cases(plugin, registry)]
    if all(outcome.outcome == "skipped" for outcome in outcomes):
        outcomes.append(CheckOutcome("plugin", "checks-ran", "failed", "no check ran at all"))
    return outcomes


def unbuildable(error: Exception) -> bool:
    """Whether ``error`` says that this machine lacks something: an extra, or data."""
    from_target = bool(getattr(error, "__notes__", ()))
    return isinstance(error, DataError) or (isinstance(error, PluginError) and from_target)
