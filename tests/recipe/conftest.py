"""A plugin that declares one or two parts of every kind a recipe must name, and a recipe of it."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dlmkit.registry.lookup import Registry

PLUGIN = """
from typing import Literal
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from dlmkit import Component, Config, hookimpl, part_of

class Nothing(Config):
    "No options."

class Range(Config):
    low: PositiveFloat = 1.0
    high: PositiveFloat = Field(300.0, allow_inf_nan=True)
    shape: Literal["straight", "curved"] = "straight"

    @model_validator(mode="after")
    def _ordered(self):
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must lie below high ({self.high})")
        return self

class Size(Config):
    count: PositiveInt
    tail: Range = Range()

class Mixed(Config):
    parts: list[part_of("masking")] = Field(min_length=1)
    named: dict[str, part_of("masking")] = {}
    other: part_of("masking") | None = None

class Buggy(Config):
    @model_validator(mode="after")
    def _oops(self):
        raise KeyError("oops")

def one(kind, name, config=Nothing, **capabilities):
    sets = {key: frozenset(value) for key, value in capabilities.items()}
    return Component(kind, name, f"the {name}", config, "unused:Unused", **sets)

@hookimpl
def register_components():
    return [
        one("data", "words"),
        one("schedule", "ramp", Range),
        one("schedule", "stair", Size),
        one("schedule", "buggy", Buggy),
        one("space", "plane", provides=["gaussian"]),
        one("space", "grid-of-ids", provides=["mask-id"]),
        one("network", "reader", Size, requires=["gaussian"]),
        one("masking", "never"),
        one("masking", "ranged", Range),
        one("masking", "mixed", Mixed),
        one("objective", "guess", requires=["gaussian"]),
        one("sampler", "walk"),
        one("grid", "even"),
        one("metric", "length", Range),
        one("guidance", "push", requires=["dropout"]),
    ]
"""

RECIPE = """\
summary: words on a plane
seed: 3
data: {use: words}
schedule:
  use: ramp
  with: {high: 80}
space: {use: plane}
network: {use: reader, with: {count: 2}}
masking: {use: never}
objective: {use: guess}
sampler: {use: walk}
grid: {use: even}
train:
  steps: 100
"""


@pytest.fixture
def registry(install) -> Registry:
    """The registry with a plugin `toy` in it."""
    install("toy", PLUGIN)
    return Registry.load()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a recipe into the current folder; by default the recipe that is valid."""
    monkeypatch.chdir(tmp_path)

    def file(text: str = RECIPE, name: str = "r.yaml") -> str:
        Path(name).write_text(textwrap.dedent(text))
        return name

    return file


@pytest.fixture
def changed(write: Callable[..., str]) -> Callable[[str, str], str]:
    """Writes the valid recipe with one piece of its text replaced."""

    def file(before: str, after: str) -> str:
        assert before in RECIPE
        return write(RECIPE.replace(before, after))

    return file
