"""The test-bed under masks: its posterior is the enumerated one, and drawing by it is exact."""

import itertools
import math

import pytest
import torch

from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.testing.markov import RARE, MarkovChain
from dlmkit_markov.configs import MarkovText
from dlmkit_markov.metric import pairs

TOKENS, LENGTH = 4, 4
MASK = TOKENS + 2


def made(*overrides: str) -> Assembly:
    registry = Registry.load()
    return assemble(load_recipe("markov_masked", overrides, registry).config, registry)


@pytest.fixture(scope="module")
def model() -> Assembly:
    return made(f"data.with.tokens={TOKENS}", "data.with.successors=2", f"length={LENGTH}")


def predicted(model: Assembly, x: torch.Tensor, attend: torch.Tensor | None = None) -> torch.Tensor:
    """log p(token | what is uncovered) of rows of ids, over all ids."""
    attend = torch.ones_like(x, dtype=torch.bool) if attend is None else attend
    denoise = model.objective.denoise()
    level = Level(torch.full((len(x),), 0.5), torch.full((len(x),), 0.5))
    shown = model.space.corruption.input(x, level)
    nothing = Conditioning.of(shown, torch.zeros_like(attend), attend)
    return model.space.logits(denoise(x, level, denoise.start(x), nothing).query)


def enumerated(chain: MarkovChain, row: tuple[int, ...]) -> torch.Tensor:
    """p(token at each position | what ``row`` shows), ids of the chain, by adding up all texts."""
    posterior = torch.zeros(len(row), len(chain.initial), dtype=torch.float64)
    for text in itertools.product(range(len(chain.initial)), repeat=len(row)):
        if all(shown in (token, MASK - 1) for shown, token in zip(row, text, strict=True)):
            p = chain.initial[text[0]].clone()
            for a, b in itertools.pairwise(text):
                p *= chain.transition[a, b]
            for position, token in enumerate(text):
                posterior[position, token] += p
    return posterior / posterior.sum(dim=1, keepdim=True)


def test_the_posterior_is_the_enumerated_one(model: Assembly):
    """Of every pattern of masks over every third text, impossible ones among them."""
    texts = list(itertools.product(range(1, TOKENS + 1), repeat=LENGTH))[::3]
    patterns = list(itertools.product((False, True), repeat=LENGTH))
    x = torch.tensor(
        [[MASK if m else w for w, m in zip(t, p, strict=True)] for t in texts for p in patterns]
    )
    found = predicted(model, x).exp()
    for row, ids in zip(found[::7], x[::7].tolist(), strict=True):
        expected = enumerated(model.data.chain, tuple(i - 1 for i in ids))
        torch.testing.assert_close(row[:, 1:-1], expected, rtol=1e-9, atol=1e-12)
    assert float(found[..., [0, -1]].max()) < 1e-40


def test_padding_says_nothing(model: Assembly):
    x = torch.tensor([[MASK, 2, 1, 3]])
    attend = torch.tensor([[True, True, False, False]])
    masked = torch.tensor([[MASK, 2, MASK, MASK]])
    short = predicted(model, x, attend)[:, :1]
    torch.testing.assert_close(short, predicted(model, masked)[:, :1])
    assert not torch.equal(predicted(model, torch.tensor([[2, MASK, 1, 3]])), predicted(model, x))


def test_given_tokens_are_known_and_dropped_ones_say_nothing(model: Assembly):
    x = torch.full((1, LENGTH), MASK)
    level = Level(torch.full((1,), 0.5), torch.full((1,), 0.5))
    clean = model.space.corruption.input(torch.tensor([[3, 1, 1, 1]]), level)
    given = torch.tensor([[True, False, False, False]])
    attend = torch.ones_like(given)
    shown = model.space.corruption.input(x, level)
    conditioning = Conditioning.of(clean, given, attend)
    query = model.network(shown, level, conditioning, shown)
    torch.testing.assert_close(
        query[:, 1:], predicted(model, torch.tensor([[3, *[MASK] * 3]]))[:, 1:]
    )
    dropped = model.network(shown, level, conditioning.dropped(), shown)
    torch.testing.assert_close(dropped, predicted(model, x))


@pytest.mark.parametrize("order", ["random", "likeliest first"])
def test_one_token_a_step_writes_the_chains_texts(model: Assembly, order: str):
    """The order may depend on what is uncovered: with exact posteriors no order changes a text."""
    count = 20_000
    x = torch.full((count, LENGTH), MASK)
    rows = torch.arange(count)
    for step in range(LENGTH):
        noise = Noise.keyed(7, rows, step)
        log_p = predicted(model, x)
        score = noise.uniform(0, (LENGTH,), torch.float64)
        if order == "likeliest first":
            score = log_p.amax(dim=-1).exp() + 1e-9 * score
        position = score.masked_fill(x != MASK, -1.0).argmax(dim=1)
        gumbel = -(-noise.uniform(1, (log_p.shape[-1],), torch.float64).log()).log()
        x[rows, position] = (log_p[rows, position] + gumbel).argmax(dim=1)
    chain = model.data.chain
    texts = torch.tensor(list(itertools.product(range(TOKENS), repeat=LENGTH)))
    expected = count * (-LENGTH * chain.nll(texts)).exp()
    number = (x - 1) @ torch.tensor([TOKENS**k for k in reversed(range(LENGTH))])
    found = torch.bincount(number, minlength=TOKENS**LENGTH).double()
    usual = expected > 5
    statistic = float(((found - expected)[usual].square() / expected[usual]).sum())
    freedom = int(usual.sum()) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)
    assert float(found[expected < 0.1].sum()) <= 5
    assert pairs(x - 1, TOKENS, 1).sum() == count * (LENGTH - 1)


def test_many_tokens_a_step_make_transitions_that_cannot_be(model: Assembly):
    """What the decoders are measured by is there to see, and the chain's own texts have none."""
    metric = model.build("metric", Part(use="markov:exact"))
    metric.fit(model.data)
    level = predicted(model, torch.full((500, LENGTH), MASK))
    noise = Noise.keyed(0, torch.arange(500), 0)
    gumbel = -(-noise.uniform(0, level.shape[1:], torch.float64).log()).log()
    at_once = (level + gumbel).argmax(dim=-1)
    decode = model.tokenizer.decode
    own = metric.measure([decode(row) for row in model.data.validation(500).ids.tolist()])
    found = metric.measure([decode(row) for row in at_once.tolist()])
    assert own["impossible"] == 0.0
    assert found["impossible_low"] > 0.1
    assert found["nll_gap_low"] > 1.0


def test_a_chain_with_few_successors():
    chain = MarkovChain.random(6, 1.0, 3, successors=2)
    assert ((chain.transition > RARE).sum(dim=1) == 2).all()
    torch.testing.assert_close(chain.transition.sum(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(chain.initial @ chain.transition, chain.initial)
    assert float(chain.impossible(chain.sample(1000, 20)).sum()) == 0.0
    with pytest.raises(ValueError, match="from 1 to 5"):
        MarkovChain.random(6, successors=6)
    with pytest.raises(ValueError, match="fewer than tokens"):
        MarkovText(tokens=4, successors=4)


def test_both_test_beds_say_which_network_they_need():
    with pytest.raises(RecipeError, match="markov-masks"):
        made("space.use=mdlm:tokens")
