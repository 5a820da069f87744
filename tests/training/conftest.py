"""A tiny recipe to train in well under a second, and a real plugin that lets tests look inside."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TINY = """\
extends: ddlm_grammar
space: {use: normalised, with: {dim: 8}}
network: {use: transformer, with: {width: 16, heads: 2, blocks: 1, time_features: 16}}
train:
  steps: 8
  batch_size: 6
  threads: 1
  warmup_steps: 3
  log_every: 3
  checkpoint_every: 2
  keep_last: 3
  validate_every: 4
  validation_rows: 4
  sample_every: 4
sample: {count: 2, measured: 3, steps: 3}
metric: []
"""

SPIES = """
    import os
    import runpy

    from dlmkit import Component, Config, hookimpl, part_of
    from pydantic import Field

    # from a file, for runs in processes that a test cannot reach into
    HOOKS = runpy.run_path(os.environ["SPIES"]) if "SPIES" in os.environ else {}

    class Inner(Config):
        inner: part_of("data")

    def component(kind, name, config=Config):
        return Component(kind, name, "for tests", config, f"spies:{name}_{kind}")

    @hookimpl
    def register_components():
        from dlmkit_cdcd.configs import Transformer
        return [
            component("data", "spied", Inner),
            component("network", "spied", Transformer),
            component("tracker", "spied"),
            component("tracker", "other"),
        ]

    def call(name, *arguments):
        return HOOKS[name](*arguments) if name in HOOKS else None

    def spied_data(config, context):
        from dlmkit.core.data import Stream

        data = context.build("data", config.inner)
        call("build")
        start = data.stream

        class Spied(Stream):
            reads = 0

            def __init__(self, stream):
                self.stream = stream

            def read(self, step, slots):
                call("read", step)
                self.reads += 1
                return self.stream.read(step, slots)

            def state(self):
                return {"reads": self.reads}

            def restore(self, state):
                self.reads = state["reads"]

        def stream(seed, size):
            return Spied(start(seed, size)) if size < 100 else start(seed, size)

        data.stream = stream
        return data

    def spied_network(config, context):
        from dlmkit_cdcd.network import Transformer

        class Spied(Transformer):
            def forward(self, x, level, conditioning, previous):
                query = super().forward(x, level, conditioning, previous)
                changed = call("forward", self, query, level)
                return query if changed is None else changed

        return Spied(config, context)

    def spied_tracker(config, context):
        from dlmkit.core.tracker import Tracker

        class Spied(Tracker):
            def open(self, folder, recipe):
                call("open", folder, recipe)

            def log(self, record):
                call("log", record)

            def close(self):
                call("close")

        return Spied()

    other_tracker = spied_tracker
"""

SPIED = """\
data: {use: spies:spied, with: {inner: {use: grammar:grammar}}}
network: {use: spies:spied, with: {width: 16, heads: 2, blocks: 1, time_features: 16}}
tracker: [{use: spies:spied}]
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a recipe that trains 8 steps in well under a second."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def spied(tiny: str, spies: ModuleType, tmp_path: Path) -> str:
    """The tiny recipe with parts that call the hooks of ``spies``."""
    path = tmp_path / "spied.yaml"
    path.write_text(f"extends: {tiny}\n{SPIED}")
    return str(path)


@pytest.fixture
def spies(install: Callable[..., Path]) -> ModuleType:
    """A plugin whose ``HOOKS`` are called in every phase of a run."""
    install("spies", SPIES)
    return importlib.import_module("spies")
