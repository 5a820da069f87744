"""A model of toy size: the exact test-bed of six tokens."""

from collections.abc import Iterator

import pytest
from bench_toy import TOY

from dlmkit.model import Model, open_model
from dlmkit_markov import data


@pytest.fixture(scope="session")
def toy() -> Model:
    return open_model("markov", TOY)


@pytest.fixture(scope="session", autouse=True)
def little_text() -> Iterator[None]:
    """Metrics fit to 600 training rows, not 10,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_TEXTS", {"train": 600, "validation": 200})
        yield
