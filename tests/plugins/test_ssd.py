"""SSD-LM: its schedule, projection, full re-noising and blocks."""

import math

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.model import Run, compose
from dlmkit.noise import Noise
from dlmkit.recipe.load import load_recipe
from dlmkit_ssd import configs
from dlmkit_ssd.blocks import write
from dlmkit_ssd.objective import BlockCrossEntropy
from dlmkit_ssd.sampler import Projection, nucleus, project
from dlmkit_ssd.schedule import Cosine
from dlmkit_ssd.space import SimplexSpace

V = 4


def test_cosine_is_the_published_curve():
    schedule = Cosine(configs.Cosine(), BuildContext(length=1))
    t = torch.linspace(0.001, 0.999, 40, dtype=torch.float64)
    bar = torch.cos((t + 1e-4) / (1 + 1e-4) * math.pi / 2) ** 2
    alpha, sigma = schedule.level(t)
    torch.testing.assert_close(alpha**2, bar)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))


def test_tokens_are_plus_and_minus_k():
    space = SimplexSpace(configs.Simplex(dim=3, scale=5.0), BuildContext(length=1, vocab_size=V))
    x0 = space.embed(torch.tensor([[2]]))
    assert x0.tolist() == [[[-1.0, -1.0, 1.0, -1.0]]]
    clean = Level(torch.ones(1), torch.zeros(1))
    p = torch.tensor([-5.0, -5.0, 5.0, -5.0]).softmax(0)
    torch.testing.assert_close(space.corruption.input(x0, clean)[0, 0], p @ space.table.weight)


def test_nucleus_is_the_smallest_set_of_the_share():
    p = torch.tensor([0.1, 0.5, 0.15, 0.25], dtype=torch.float64)
    cases = {0.0: {1}, 0.5: {1}, 0.6: {1, 3}, 0.8: {1, 2, 3}, 1.0: {0, 1, 2, 3}}
    for top_p, kept in cases.items():
        assert set(nucleus(p[None, None], top_p)[0, 0].nonzero()[:, 0].tolist()) == kept


def test_projection_draws_from_the_nucleus():
    p, n = torch.tensor([0.1, 0.5, 0.15, 0.25]), 40_000
    u = Noise.keyed(0, torch.arange(n), 0).uniform(0, (1, V), torch.float64)
    drawn = project(p.expand(n, 1, V), 0.8, u)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    share = (drawn[:, 0] > 0).double().mean(dim=0)
    expected = torch.tensor([0.0, 0.5, 0.15, 0.25], dtype=torch.float64) / 0.9
    assert (share - expected).abs().max() < 0.012


def test_a_step_keeps_nothing_of_the_old_noise():
    space = SimplexSpace(configs.Simplex(dim=3), BuildContext(length=1, vocab_size=V))
    context = BuildContext(length=1, parts={"space": space})
    sampler = Projection(configs.Projection(top_p=0.0), context)
    n = 4000
    alphas = (torch.full((n,), a) for a in (0.3, 0.6))
    here, after = (Level(a, torch.sqrt(1 - a * a)) for a in alphas)
    x0 = space.expect(torch.tensor([0.1, 0.2, 0.6, 0.1]).expand(n, 1, V))
    noise = Noise.keyed(2, torch.arange(n), 0)
    old = 100.0 * Noise.keyed(3, torch.arange(n), 0).normal(0, (1, V))

    def denoise(x, level, previous):
        return Prediction(x0, x0, x0[..., 0], x0, previous)

    x, _, _ = sampler.step(denoise, old, Step.between(old, here, after, noise, old), ())
    token = torch.tensor([-1.0, -1.0, 1.0, -1.0])
    assert (x.mean(dim=(0, 1)) - 0.6 * token).abs().max() < 5 * 0.8 / math.sqrt(n)
    assert abs((x - 0.6 * token).std() - 0.8) < 0.02
    clean = Level(torch.ones(n), torch.zeros(n))
    end, _, _ = sampler.step(denoise, old, Step.between(old, here, clean, noise, old), ())
    assert torch.equal(end, x0)


def model():
    sets = ["network.with.width=16", "network.with.heads=2", "network.with.blocks=1"]
    recipe = load_recipe("ssd_grammar", sets).config
    return compose(**recipe.model_dump(mode="json", by_alias=True))


def test_blocks_end_where_they_should():
    objective = model().assembly.objective
    attend = torch.ones(400, 32, dtype=torch.bool)
    attend[0, 20:] = False
    slots = torch.arange(400)
    rows = Batch(torch.zeros(400, 32, dtype=torch.int64), attend)
    blocks = objective._block(rows, Draws(slots / 400, Noise.keyed(0, slots, 0)))
    shown, before = blocks.attend, blocks.given
    ends = {(int(b.sum()), int(a.sum())) for a, b in zip(shown[1:], before[1:], strict=True)}
    assert ends == {(0, 16), (16, 32), (0, 32)}
    assert (int(before[0].sum()), int(shown[0].sum())) in {(0, 16), (16, 20), (0, 20)}
    assert isinstance(objective, BlockCrossEntropy)


def test_written_blocks_extend_each_other():
    loaded = model()
    texts = write(loaded, 3, block=16, seed=5, steps=2)
    first = loaded.stream(loaded.requests(3, length=16), Run(5, 2))
    begun = loaded.texts([s for turn in first for s in turn.samples], 5)
    assert all(whole.text.startswith(start.text) for whole, start in zip(texts, begun, strict=True))
    assert [text.evaluations for text in texts] == [4, 4, 4]
    again = write(loaded, 2, block=16, seed=5, steps=2)
    assert [text.text for text in again] == [text.text for text in texts[:2]]
