"""Operations by shape, against counting by hand."""

from dlmkit import compose
from dlmkit.bench.flops import evaluation_flops
from dlmkit.bench.subject import Subject
from dlmkit.bench.cases import Case

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
    vocabulary = parts.space.vocab_size
    from torch import nn

    per_row = {id(m): m for m in network.modules() if isinstance(m, nn.Linear)}
    once = sum(m.in_features * m.out_features for m in per_row.values())
    attention = BLOCKS * 4 * L * L * W
    read_out = 2 * L * vocabulary * D * 2
    counted = evaluation_flops(parts, network, L)
    # layers run at every position, but for those on the noise level, which run once a row
    assert 2 * once + attention + read_out < counted <= 2 * L * once + attention + read_out
    double = evaluation_flops(parts, network, 2 * L) - counted
    quadratic = 2 * attention  # attention grows by 4, all else by 2 or not at all
    assert double - quadratic <= counted


def test_the_exact_network_counts_too(toy: Subject):
    flops = evaluation_flops(
        toy.parts(Case("euler", "warped", 4, 2)), toy.assembly.network, toy.config.length
    )
    v, d, length = toy.assembly.space.vocab_size, toy.assembly.space.dim, toy.config.length
    forward_backward = 2 * (2 * length - 1) * v * v
    assert flops == forward_backward + 2 * length * v * d + 2 * length * v * d
