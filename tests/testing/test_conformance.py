"""Every component of every built-in plugin passes the kit, as a stranger's would."""

import pytest

from dlmkit.registry.lookup import Registry
from dlmkit.testing.suite import cases

SLOW = {"data/reviews", "data/kjv", "data/imdb"}
"""Corpora that take seconds to read."""


def built_in():
    registry = Registry.load(third_party=False)
    for plugin in registry.loaded:
        for case in cases(plugin.name, registry):
            marks = [pytest.mark.slow] if case.component in SLOW else []
            name = f"{plugin.name}-{case.component}-{case.check.name}"
            yield pytest.param(case, id=name, marks=marks)


@pytest.mark.parametrize("case", list(built_in()))
def test_built_in(case):
    case.for_pytest()
