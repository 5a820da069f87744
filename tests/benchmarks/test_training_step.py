"""The script that times a step's matrix products: what it counts, it also counts by a formula."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_step.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("training_step", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["training_step"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["training_step"]


@pytest.fixture(scope="module")
def recorded(script):
    registry = Registry.load()
    overrides = ["network.with.width=48", "network.with.blocks=2", "train.batch_size=6"]
    config = load_recipe("ddlm_grammar", overrides, registry).config
    assembly = assemble(config, registry)
    steps = script.loop(assembly)
    next(steps)
    with script.Recorder() as recorder:
        next(steps)
    return assembly, recorder.products


def test_the_operations_of_the_recorded_products_are_those_of_the_formula(script, recorded):
    assembly, products = recorded
    expected = script.formula(assembly.config, assembly.tokenizer.vocab_size)
    assert sum(product.flops for product in products) == expected


@pytest.mark.parametrize("kernel", [False, True])
def test_bare_products_take_the_recorded_shapes(script, recorded, kernel):
    _, products = recorded
    for product in products:
        for call in script.bare(product, kernel):
            call()
    assert {p.name for p in products} >= {"mm", "attention", "attention backward"}


def test_operands_are_laid_out_as_recorded(script):
    tensor = torch.randn(6, 4).T
    layout = script.Layout.of(tensor)
    assert layout.make().stride() == tensor.stride()
    assert (
        script.Product("mm", (layout, script.Layout.of(torch.randn(6, 5)))).flops == 2 * 4 * 6 * 5
    )
