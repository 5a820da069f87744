"""The Bayes denoisers against brute force over every sequence."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level
from dlmkit.evaluation import bayes
from dlmkit.evaluation.context_gain import Frequencies, context_gain, sigmas
from dlmkit_cdcd import configs
from dlmkit_cdcd.schedules import FixedDensity
from dlmkit_cdcd.space import NormalisedSpace

V, L, D = 4, 5, 3
CONTEXT = BuildContext(length=L, vocab_size=V)


@pytest.fixture
def setting():
    torch.manual_seed(0)
    space = NormalisedSpace(configs.Normalised(dim=D, init_std=1.0), CONTEXT).double()
    unigram = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    transition = torch.rand(V, V, dtype=torch.float64)
    transition = transition / transition.sum(1, keepdim=True)
    x = 2.0 * torch.randn(2, L, D, dtype=torch.float64)
    level = Level(torch.full((2,), 0.8).double(), torch.tensor([0.6, 1.7]).double())
    return space, unigram, transition, x, level


def brute_force(space, prior, x, level):
    """Posterior marginals by summing prior(sequence) x Gaussian density over all V^L sequences."""
    table = space.table()
    result = torch.zeros(len(x), L, V, dtype=torch.float64)
    for row in range(len(x)):
        alpha, sigma = level.alpha[row], level.sigma[row]
        for word in itertools.product(range(V), repeat=L):
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
