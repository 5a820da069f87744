"""How the network runs while it is sampled from: the same weights in another arithmetic."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import PluginError, RecipeError
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling import int8, slots
from dlmkit.sampling.inference import Inference
from dlmkit.sampling.int8 import Int8Linear
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

V, L, D, B = 40, 9, 16, 6
REGISTRY = Registry.load(third_party=False)
CPU = torch.device("cpu")
GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    ],
)


def build(kind, use, context, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), context)


def model(device="cpu"):
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = build("space", "normalised", context, dim=D, init_std=1.0)
    context = BuildContext(length=L, vocab_size=V, parts={"space": space})
    options = {"width": 64, "blocks": 2, "heads": 2, "time_features": 16}
    network = build("network", "transformer", context, **options)
    torch.nn.init.normal_(network.query.weight, std=0.3)
    for block in network.blocks:
        torch.nn.init.normal_(block.norm_1.modulation.weight, std=0.1)
    return ModelDenoise(space.eval().to(device), network.eval().to(device))


def inputs(device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x, clean, previous = torch.randn(3, B, L, D, generator=generator).to(device)
    given = torch.arange(L, device=device) < torch.arange(B, device=device)[:, None]
    attend = torch.arange(L, device=device) < L - torch.arange(B, device=device)[:, None]
    sigma = torch.logspace(-1, 1, B, device=device)
    conditioning = Conditioning.of(clean, given & attend, attend)
    return x, Level(torch.ones_like(sigma), sigma), conditioning, previous


def parts(denoise, inference):
    context = BuildContext(length=L, vocab_size=V, parts={"space": denoise.space})
    return SamplingParts(
        space=denoise.space,
        schedule=build("schedule", "variance-exploding", context, t_min=0.1, t_max=10.0),
        denoise=denoise,
        sampler=build("sampler", "euler", context),
        grid=build("grid", "log-uniform", context),
        inference=inference,
    )


def difference(found, expected):
    return float((found - expected).square().mean().sqrt() / expected.std())


@torch.no_grad()
def test_int8_follows_the_network_and_leaves_it_alone():
    network = model().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quantised = Inference(int8=True).network(network)
    kinds = [type(layer) for block in quantised.blocks for layer in (block.qkv, block.down)]
    assert set(kinds) == {Int8Linear}
    exact = network(*inputs())
    error = difference(quantised(*inputs()), exact)
    assert 0 < error < 0.05
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(*inputs()), exact)


@torch.no_grad()
def test_int8_products_are_those_of_the_rounded_numbers():
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 33).double()
    x = torch.randn(B, L, 48, dtype=torch.float64) * torch.logspace(-3, 3, L).double()[:, None]
    x[0, 0] = 0.0
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    weights = linear.weight.abs().amax(1, keepdim=True) / 127
    expected = (x / scale).round() * scale @ ((linear.weight / weights).round() * weights).T
    torch.testing.assert_close(Int8Linear(linear)(x), expected + linear.bias)
    assert difference(Int8Linear(linear)(x), linear(x)) < 0.02


@torch.no_grad()
def test_int8_rows_do_not_meet():
    """A neighbour a thousand times as large changes nothing; nor do the number or order of rows."""
    quantised = Inference(int8=True).network(model().network)
    x, level, conditioning, previous = inputs()
    together = quantised(x, level, conditioning, previous)
    louder = x.clone()
    louder[1:] *= 1000.0
    assert torch.equal(quantised(louder, level, conditioning, previous)[0], together[0])
    torch.manual_seed(3)
    linear, rows = Int8Linear(torch.nn.Linear(64, 96)), torch.randn(33, L, 64)
    whole = linear(rows)
    for i in range(0, 33, 8):
        assert torch.equal(linear(rows[i : i + 1]), whole[i : i + 1])


def test_int8_is_refused_where_it_is_not_exact(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.zeros(len(a), b.shape[1]).int())
    with pytest.raises(PluginError, match="int8 product is not exact"):
        int8.probe_int8()


def test_what_cannot_run_is_refused_with_its_reason():
    network = model().network
    gpu = torch.device("cuda", 0)
    with pytest.raises(RecipeError, match="int8 layers are for the CPU"):
        Inference(int8=True).check(network, gpu)
    with pytest.raises(RecipeError, match="CUDA graphs need a GPU"):
        Inference(cuda_graphs=True).check(network, CPU)
    markov = markov_denoise(MarkovChain.random(5)).network
    with pytest.raises(RecipeError, match="MarkovNetwork has no linear layers"):
        Inference(int8=True).check(markov, CPU)
    Inference(dtype=torch.bfloat16, int8=True).check(network, CPU)


@torch.no_grad()
def test_half_precision_is_near_and_its_weights_are_cast_once():
    network = model().network
    exact = network(*inputs())
    run = Inference(dtype=torch.bfloat16).network(network)
    query = run(*inputs())
    assert query.dtype == torch.bfloat16
    assert 0 < difference(query.float(), exact) < 0.05
    assert run.inner.inputs.weight.dtype == torch.bfloat16
    assert network.inputs.weight.dtype == torch.float32
    assert torch.equal(network(*inputs()), exact)


def test_the_state_of_a_run_in_half_precision_is_single():
    chosen = parts(model(), Inference(dtype=torch.bfloat16))
    for step in stream(chosen, unconditional(3, L), seed=0, steps=3, batch_size=3, length=L):
        prediction = step.prediction
        values = (step.x, prediction.x0_step, prediction.query, prediction.lse, prediction.feedback)
        assert {value.dtype for value in values} == {torch.float32}
        assert torch.equal(prediction.query.bfloat16().float(), prediction.query)
    assert chosen.prepared().space.kernel.startswith("flash-cpu")


@pytest.mark.parametrize("choice", [{}, {"int8": True}, {"dtype": torch.bfloat16}])
def test_a_change_of_weights_reaches_the_next_run(choice):
    denoise = model()
    chosen = parts(denoise, Inference(**choice))

    def first():
        steps = stream(chosen, unconditional(2, L), seed=0, steps=2, batch_size=2, length=L)
        return next(iter(steps)).prediction.query

    before = first()
    assert torch.equal(first(), before)
    with torch.no_grad():
        denoise.network.blocks[0].up.weight += 0.1
    assert not torch.equal(first(), before)


def test_slots_shrink_to_few_shapes_where_each_is_compiled_or_recorded():
    assert Inference().width is slots.exact
    assert Inference(compile=True).width is Inference(cuda_graphs=True).width is slots.halves


COMPILED = """
import torch
import test_inference as here

with torch.no_grad():
    network = here.model().network
    run = here.Inference(compile=True).network(network)
    torch.testing.assert_close(run(*here.inputs()), network(*here.inputs()), rtol=1e-4, atol=1e-4)
    assert run.blocks[0]._compiled_call_impl is not None
    assert network.blocks[0]._compiled_call_impl is None
"""


@pytest.mark.slow
def test_compiled_blocks_say_the_same_and_the_network_is_not_compiled():
    """In a process of its own, since the shape checks of the tests cannot be compiled."""
    subprocess.run([sys.executable, "-c", COMPILED], cwd=Path(__file__).parent, check=True)


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_vocabulary_step_is_fused_on_a_gpu(device, dtype):
    space = model(device).space
    ready = space.prepared(dtype)
    expected = "flash-cuda" if dtype == torch.bfloat16 else "efficient-cuda"
    assert ready.kernel.startswith(expected)
    query = torch.randn(B, L, D, device=device).to(dtype)
    exact = space.double().prepared().read(query.double())
    for found, value in zip(ready.read(query), exact, strict=True):
        assert float((found - value).abs().max()) < (0.1 if dtype == torch.bfloat16 else 1e-3)
