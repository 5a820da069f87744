"""Every component of every built-in plugin passes the kit, as a stranger's would."""

from collections.abc import Iterator

import pytest

from dlmkit.registry.lookup import Registry
from dlmkit.testing.suite import cases
from dlmkit_text import sources

SLOW = {"data/reviews", "data/kjv"}
"""Corpora that take seconds to read."""


@pytest.fixture(scope="module", autouse=True)
def fewer_reviews() -> Iterator[None]:
    """A thousand reviews: to prepare all of them takes half a minute."""
    read = sources.reviews
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "reviews", lambda: read()[::25])
        yield


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
