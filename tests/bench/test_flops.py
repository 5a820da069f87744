"""Operations by shape, against counting by hand."""

from torch import Tensor, nn

from dlmkit import compose
from dlmkit.bench.cases import BenchCase
from dlmkit.bench.flops import evaluation_flops
from dlmkit.bench.parts import parts_of
from dlmkit.model import Model

L, D, W, BLOCKS = 12, 16, 24, 2


def test_every_matmul_of_a_transformer_counts():
    model = compose(
        data="grammar",
        length=L,
        schedule="cdcd:variance-exploding",
        space={"use": "cdcd:normalised", "with": {"dim": D}},
        network={"use": "cdcd:transformer", "with": {"width": W, "blocks": BLOCKS, "heads": 2}},
        masking="cdcd:none",
        objective="cdcd:score-interpolation",
        train={"steps": 1},
    )
    network, parts = model.assembly.network, model.parts
    linear = 0

    def count(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal linear
        linear += 2 * inputs[0].numel() * module.out_features

    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    counted = evaluation_flops(parts, network, L)
    attention = BLOCKS * 2 * 2 * L * L * W  # scores and their mix
    read_out = 2 * 2 * L * parts.space.vocab_size * D  # logits and their mean embedding
    assert linear > 0
    assert counted == linear // 2 + attention + read_out  # a first pass only warms up


def test_the_exact_network_counts_too(toy: Model):
    flops = evaluation_flops(
        parts_of(toy, BenchCase("euler", "warped", 4, 2)), toy.assembly.network, toy.config.length
    )
    v, d, length = toy.assembly.space.vocab_size, toy.assembly.space.dim, toy.config.length
    forward_backward = 2 * (2 * length - 1) * v * v
    assert flops == forward_backward + 2 * length * v * d + 2 * length * v * d
