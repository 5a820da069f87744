"""A model of toy size: the exact test-bed of six tokens."""

import pytest
from bench_toy import TOY

from dlmkit.bench.subject import Subject, open_subject


@pytest.fixture(scope="session")
def toy() -> Subject:
    return open_subject("markov", TOY)
