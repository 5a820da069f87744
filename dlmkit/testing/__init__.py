"""For tests of dlmkit and of plugins: the conformance kit, and exact oracles.

In a plugin's own repository::

    import dlmkit.testing

    @dlmkit.testing.checks("acme")
    def test_conformance(check):
        check()

``dlmkit plugins check acme`` runs the same checks. They need neither a network nor an
accelerator, and take seconds per component. Each part runs on a pretend accelerator as well, which
``dlmkit.testing.pretend`` offers to other tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlmkit.registry.lookup import Registry
    from dlmkit.testing.suite import CheckOutcome

__all__ = ["check_plugin", "checks"]


def checks(plugin: str) -> Callable[[Any], Any]:
    """Parametrise a test function by ``check``: every check of every part of ``plugin``.

    A check that the plugin declares an expected failure is xfailed with its reason; one that
    does not apply is skipped. A plugin that is not installed, or failed, is one failing test.
    """
    import pytest

    from dlmkit.testing.suite import cases

    known = cases(plugin)
    marked = (
        pytest.param(case.for_pytest, id=f"{case.component}-{case.check.name}") for case in known
    )
    mark: Callable[[Any], Any] = pytest.mark.parametrize("check", list(marked))
    return mark


def check_plugin(plugin: str, registry: Registry | None = None) -> list[CheckOutcome]:
    """What came of every check of ``plugin``."""
    from dlmkit.testing.suite import run

    return run(plugin, registry)
