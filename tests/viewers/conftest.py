"""Traces with exact answers: written by hand, and of the Markov test-bed."""

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.exits.trace import Trace, TraceRecorder
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.sampling.runner import stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

V, L, D, N = 5, 6, 8, 10
REGISTRY = Registry.load(third_party=False)
STATISTICS = ("entropy", "kl", "margin", "switches")


def _build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), BuildContext(length=L))


def _by_hand(ids, given=None, **kept):
    """A trace of these tokens, B N L."""
    ids = torch.tensor(ids, dtype=torch.int16)
    texts, steps, length = ids.shape
    sigma = torch.linspace(8.0, 1.0, steps).expand(texts, -1)
    return Trace(
        row=torch.arange(texts),
        ids=ids,
        given=torch.zeros(texts, length, dtype=torch.bool) if given is None else given,
        attend=torch.ones(texts, length, dtype=torch.bool),
        statistics={"sigma": sigma, **kept.pop("statistics", {})},
        evaluations=torch.arange(1, steps + 1),
        about={"tokens": {str(i): f" w{i}" for i in range(10)}},
        **kept,
    )


@pytest.fixture(scope="session")
def markov():
    """Seven texts of an exact model: free ones, one with a prompt, one with gaps and padding."""
    denoise = markov_denoise(MarkovChain.random(V), D)
    parts = SamplingParts(
        space=denoise.space,
        schedule=_build("schedule", "variance-exploding", t_min=0.1, t_max=10.0),
        denoise=denoise,
        sampler=_build("sampler", "euler"),
        grid=_build("grid", "karras"),
        statistics={name: _build("statistic", name) for name in STATISTICS},
    )
    requests = [*unconditional(5, L), Request(5, (2, *[None] * 5)), Request(6, (None, 1, None))]
    settings = {"positions": ["entropy", "margin"], "norms": True}
    recorder = TraceRecorder(parts, requests, steps=N, length=L, **settings)
    for _ in recorder.watch(stream(parts, requests, seed=3, steps=N, batch_size=4, length=L)):
        pass
    return recorder.trace({"tokens": {str(i): f" w{i}" for i in range(V)}, "floors": {"kl": 1e-5}})


@pytest.fixture
def by_hand():
    """Makes a trace of given tokens."""
    return _by_hand


@pytest.fixture
def build():
    """Builds a part by kind and name."""
    return _build
