"""The Bayes denoisers against brute force over every sequence."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.exact.context_gain import Frequencies, context_gain, sigmas
from dlmkit_cdcd import configs
from dlmkit_cdcd.schedules import FixedDensity

V, L, D = 4, 5, 3
CONTEXT = BuildContext(length=L, vocab_size=V)


@pytest.fixture
def setting():
    torch.manual_seed(0)
    space = NormalisedSpace(Normalised(dim=D, init_std=1.0), CONTEXT).double()
    unigram = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    transition = torch.rand(V, V, dtype=torch.float64)
    transition = transition / transition.sum(1, keepdim=True)
    x = 2.0 * torch.randn(2, L, D, dtype=torch.float64)
    level = Level(torch.full((2,), 0.8).double(), torch.tensor([0.6, 1.7]).double())
    return space, unigram, transition, x, level


def brute_force(space, prior, x, level):
    """Posterior marginals by summing prior(sequence) x Gaussian density over all V^L sequences."""
    table, length = space.table(), x.shape[1]
    result = torch.zeros(len(x), length, V, dtype=torch.float64)
    for row in range(len(x)):
        alpha, sigma = level.alpha[row], level.sigma[row]
        for word in itertools.product(range(V), repeat=length):
            distance = (x[row] - alpha * table[list(word)]).square().sum()
            weight = prior(word) * torch.exp(-distance / (2 * sigma**2))
            for position, token in enumerate(word):
                result[row, position, token] += weight
    return result / result.sum(-1, keepdim=True)


def test_context_free_posterior(setting):
    space, unigram, _, x, level = setting

    def prior(word):
        return torch.stack([unigram[v] for v in word]).prod()

    guess = bayes.context_free(bayes.log_likelihood(space, x, level), unigram)
    torch.testing.assert_close(guess.exp(), brute_force(space, prior, x, level))


def test_bigram_posterior(setting):
    space, unigram, transition, x, level = setting

    def prior(word):
        chance = unigram[word[0]]
        for a, b in itertools.pairwise(word):
            chance = chance * transition[a, b]
        return chance

    guess = bayes.bigram(bayes.log_likelihood(space, x, level), unigram, transition)
    torch.testing.assert_close(guess.exp(), brute_force(space, prior, x, level))


@pytest.fixture
def second():
    table = torch.rand(V, V, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return table / table.sum(-1, keepdim=True)


def of_order_2(unigram, transition, second):
    def prior(word):
        chance = unigram[word[0]]
        if len(word) > 1:
            chance = chance * transition[word[0], word[1]]
        for a, b, c in zip(word, word[1:], word[2:], strict=False):
            chance = chance * second[a, b, c]
        return chance

    return prior


@pytest.mark.parametrize("length", [1, 2, 3, L])
def test_trigram_posterior(setting, second, length):
    space, unigram, transition, x, level = setting
    likelihood = bayes.log_likelihood(space, x[:, :length], level)
    guess = bayes.trigram(likelihood, unigram, transition, second)
    prior = of_order_2(unigram, transition, second)
    torch.testing.assert_close(guess.exp(), brute_force(space, prior, x[:, :length], level))


def test_a_trigram_that_ignores_its_first_token_is_a_bigram(setting):
    space, unigram, transition, x, level = setting
    likelihood = bayes.log_likelihood(space, x, level)
    guess = bayes.trigram(likelihood, unigram, transition, transition.expand(V, V, V))
    torch.testing.assert_close(guess, bayes.bigram(likelihood, unigram, transition))


def test_single_precision_survives_almost_clean_rows(setting, second):
    space, unigram, transition, _, _ = setting
    ids = torch.randint(0, V, (2, 40))
    level = Level(torch.ones(2).double(), torch.full((2,), 1e-3).double())
    likelihood = bayes.log_likelihood(space, space.embed(ids), level).float()
    tables = [table.float() for table in (unigram, transition, second)]
    guess = bayes.trigram(likelihood, *tables)
    assert torch.equal(guess.argmax(-1), ids)
    assert torch.isfinite(guess).all()
    assert torch.equal(bayes.trigram_completions(likelihood, *tables, torch.rand(2, 40)), ids)


def test_completions_are_drawn_from_the_posterior_of_whole_rows(setting, second):
    """Over an even grid of uniform numbers each row occurs as often as its posterior says."""
    _, unigram, transition, _, _ = setting
    length, fine = 3, 40
    likelihood = torch.tensor([[0.0, -1.0, 0.5, 0.2], [0.0] * V, [0.0, -2.0, -0.3, 0.1]]).double()
    at = (torch.arange(fine) + 0.5) / fine
    uniform = torch.cartesian_prod(at, torch.zeros(1), (torch.arange(1600) + 0.5) / 1600)
    rows = likelihood.expand(len(uniform), length, V)
    drawn = bayes.trigram_completions(rows, unigram, transition, second, uniform)
    found = torch.bincount(drawn @ torch.tensor([V * V, V, 1]), minlength=V**length)
    prior = of_order_2(unigram, transition, second)
    exact = torch.stack(
        [
            prior(word) * sum(likelihood[i, v] for i, v in enumerate(word)).exp()
            for word in itertools.product(range(V), repeat=length)
        ]
    )
    # the last two tokens are drawn together at 1600 points, the first at 40
    assert (found / len(uniform) - exact / exact.sum()).abs().max() < 1 / fine / 2
    torch.testing.assert_close(
        found.view(V, V * V).sum(0) / len(uniform),
        (exact / exact.sum()).view(V, V * V).sum(0).float(),
        atol=1 / 1600,
        rtol=0.0,
    )


def test_completions_keep_what_is_given(setting, second):
    _, unigram, transition, _, _ = setting
    ids = torch.randint(0, V, (6, L))
    given = torch.rand(6, L) < 0.5
    known = torch.nn.functional.one_hot(ids, V).bool() | ~given[..., None]
    likelihood = torch.where(known, 0.0, -torch.inf).double()
    tables, uniform = (unigram, transition), torch.rand(6, L)
    drawn = bayes.trigram_completions(likelihood, *tables, second, uniform)
    assert torch.equal(drawn[given], ids[given])
    drawn = bayes.bigram_completions(likelihood, *tables, uniform)
    assert torch.equal(drawn[given], ids[given])


def test_completions_of_a_chain_of_pairs_are_drawn_from_their_posterior(setting):
    """Over an even grid of uniform numbers, one of each place."""
    _, unigram, transition, _, _ = setting
    length, fine = 3, 40
    likelihood = torch.tensor([[0.0, -1.0, 0.5, 0.2], [0.0] * V, [0.0, -2.0, -0.3, 0.1]]).double()
    uniform = torch.cartesian_prod(*[(torch.arange(fine) + 0.5) / fine] * length)
    rows = likelihood.expand(len(uniform), length, V)
    drawn = bayes.bigram_completions(rows, unigram, transition, uniform)
    found = torch.bincount(drawn @ torch.tensor([V * V, V, 1]), minlength=V**length)
    exact = []
    for word in itertools.product(range(V), repeat=length):
        chance = unigram[word[0]] * transition[word[0], word[1]] * transition[word[1], word[2]]
        exact.append(chance * sum(likelihood[i, v] for i, v in enumerate(word)).exp())
    exact = torch.stack(exact)
    assert (found / len(uniform) - exact / exact.sum()).abs().max() < 1 / fine


def test_bigram_survives_almost_clean_rows(setting):
    space, unigram, transition, _, _ = setting
    ids = torch.randint(0, V, (2, L))
    level = Level(torch.ones(2).double(), torch.full((2,), 1e-3).double())
    guess = bayes.bigram(bayes.log_likelihood(space, space.embed(ids), level), unigram, transition)
    assert torch.equal(guess.argmax(-1), ids)
    assert torch.isfinite(guess).all()


def test_a_context_free_model_has_no_gain(setting):
    space, unigram, transition, _, _ = setting

    class ContextFree(Denoise):
        def start(self, x):
            return torch.zeros_like(x)

        def __call__(self, x, level, previous, conditioning: Conditioning):
            logits = bayes.context_free(bayes.log_likelihood(space, x, level), unigram)
            # a tied head whose table spans the logits: solve q . e_v = logits up to a constant
            centred = space.table() - space.table().mean(0)
            wanted = logits - logits.mean(-1, keepdim=True)
            query = wanted @ torch.linalg.pinv(centred).T
            x0, lse = space.read(query)
            return Prediction(x0, query, lse, x0, previous)

    schedule = FixedDensity(configs.VarianceExploding(t_min=0.3, t_max=6.0), CONTEXT)
    ids = torch.multinomial(unigram, 64 * L, replacement=True).view(64, L)
    batch = Batch(ids, torch.ones(64, L, dtype=torch.bool))
    reports = list(
        context_gain(
            ContextFree(), space, schedule, batch, Frequencies(unigram, transition), rows=24
        )
    )
    assert [r.sigma for r in reports] == pytest.approx(sigmas(schedule).tolist())
    for report in reports:
        assert report.gain == pytest.approx(0.0, abs=1e-5)
        assert report.bigram > report.context_free - 1e-9 or report.bigram == pytest.approx(
            report.context_free, abs=0.2
        )
    free = [r.context_free for r in reports]
    assert free == sorted(free)
