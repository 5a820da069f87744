"""What watches steps changes nothing."""

import io

from rich.console import Console

from dlmkit.core.context import BuildContext
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.recorders import progress
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate, stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

V, L, D, N = 5, 4, 6, 8
DENOISE = markov_denoise(MarkovChain.random(V), D)
REGISTRY = Registry.load(third_party=False)


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), BuildContext(length=L))


PARTS = SamplingParts(
    space=DENOISE.space,
    schedule=build("schedule", "variance-exploding", t_min=0.1, t_max=10.0),
    denoise=DENOISE,
    sampler=build("sampler", "ancestral"),
    grid=build("grid", "karras"),
    exit=build("exit", "entropy", threshold=0.2),
    statistics={"entropy": build("statistic", "entropy")},
)
SETTINGS = {"seed": 0, "steps": N, "batch_size": 3, "length": L}


def test_progress_passes_every_step_on_and_writes_only_to_a_terminal():
    plain, shown = io.StringIO(), io.StringIO()
    requests = unconditional(5, L)
    for buffer, terminal in ((plain, False), (shown, True)):
        console = Console(file=buffer, force_terminal=terminal, width=80)
        turns = progress(stream(PARTS, requests, **SETTINGS), 5, console)
        samples = [sample for step in turns for sample in step.samples]
        assert sorted(samples, key=lambda s: s.row) == generate(PARTS, requests, **SETTINGS)
    assert plain.getvalue() == ""
    assert "5/5" in shown.getvalue()
