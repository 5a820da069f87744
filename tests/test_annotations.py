"""What the suite's own import hook checks of the modules that it is given."""

import importlib
import sys

import annotations
import pytest
import torch
from jaxtyping import TypeCheckError

SOURCE = """
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from decimal import Decimal


def same(x: Float[Tensor, "B L"], y: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    return x + y


def summed(x: Float[Tensor, "B L"]) -> Float[Tensor, "B"]:
    return x.sum()


def later(x: Float[Tensor, "B"]) -> Iterator[int]:
    yield from range(len(x))


def plain(n: int, *, unknown: Decimal | None = None) -> str:
    return "n" * n if n else n


@dataclass(frozen=True)
class Pair:
    x: Float[Tensor, "B L"]
    y: Float[Tensor, "L"]

    def outer(self) -> Float[Tensor, "B L"]:
        def within(z: Float[Tensor, "L"]) -> Float[Tensor, "B L"]:
            return self.x * z

        return within(self.x)

    @staticmethod
    def half(n: float) -> float:
        return n / 2

    @property
    def size(self) -> str:
        return len(self.x)
"""
TWO, OTHER = torch.zeros(2, 3), torch.zeros(2, 4)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    (folder / "checked_here.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(sys, "meta_path", [*sys.meta_path])
        annotations.install({"checked_here"})
        yield importlib.import_module("checked_here")


def test_what_is_as_annotated_passes(module):
    assert module.same(TWO, TWO).shape == TWO.shape
    assert list(module.later(TWO[0])) == [0, 1, 2]
    assert module.plain(2) == "nn"
    assert module.plain(1, unknown="anything") == "n"
    assert module.Pair(TWO, TWO[0]).half(1.0) == 0.5
    assert module.same.__wrapped__.__annotations__["x"] == "Float[Tensor, 'B L']"
    assert module.plain.__wrapped__.__annotations__["n"] == "int"


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.same(TWO, OTHER),  # one letter, two sizes
        lambda m: m.same(TWO, TWO.long()),
        lambda m: m.same(TWO, y=TWO[0]),
        lambda m: m.summed(TWO),  # what it returns
        lambda m: m.later(TWO),
        lambda m: m.plain("2"),
        lambda m: m.plain(0),
        lambda m: m.Pair(TWO, OTHER[0]),
        lambda m: m.Pair(TWO, TWO[0]).outer(),
        lambda m: m.Pair.half("1"),
        lambda m: m.Pair(TWO, TWO[0]).size,
    ],
    ids=range(11),
)
def test_what_is_not_is_refused(call, module):
    with pytest.raises(TypeCheckError):
        call(module)
    assert module.same(TWO, TWO).shape == TWO.shape  # nothing is left behind
