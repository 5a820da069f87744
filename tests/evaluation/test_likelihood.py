"""Bound and flow against the exact likelihood of Markov text, and the trace against a Jacobian."""

import math

import pytest
import torch
from pydantic import ValidationError

from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.errors import UsageError
from dlmkit.evaluation.likelihood import (
    Flow,
    GaussianModel,
    MonteCarloBound,
    bound,
    flow,
    hutchinson,
)
from dlmkit.testing.markov import MarkovChain, markov_denoise

LENGTH, ROWS = 6, 48


class Uniform(NoiseSchedule):
    """sigma = t, uniform draws: a density far from the best one."""

    def __init__(self, t_min: float, t_max: float) -> None:
        super().__init__()
        self.t_min, self.t_max = t_min, t_max

    def level(self, t):
        return Level(torch.ones_like(t), t)

    def inverse(self, ratio):
        return ratio


class Preserving(NoiseSchedule):
    """The same ratios with alpha^2 + sigma^2 = 1: t is an angle."""

    t_min, t_max = math.atan(0.08), math.atan(60.0)

    def level(self, t):
        return Level(t.cos(), t.sin())

    def inverse(self, ratio):
        return torch.atan(ratio)


@pytest.fixture(scope="module")
def chain():
    return MarkovChain.random(5, 1.5)


@pytest.fixture(scope="module")
def model(chain):
    return markov_denoise(chain, dim=4)


@pytest.fixture(scope="module")
def batch(chain):
    ids = chain.sample(ROWS, LENGTH, seed=3)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool))


def subject(model, schedule):
    return GaussianModel(model, model.space, schedule)


@pytest.mark.parametrize("schedule", [Uniform(0.08, 60.0), Preserving()])
def test_the_bound_is_the_likelihood_of_an_exact_model(chain, model, batch, schedule):
    # with the exact posterior the gap is what the two ends leave out, which is next to nothing
    found = bound(subject(model, schedule), batch, MonteCarloBound(draws=64, previous="zero"))
    gap = found.total / LENGTH - chain.nll(batch.ids)
    assert abs(float(gap.mean())) < 3.5 * float(gap.std()) / math.sqrt(ROWS) + 0.002
    assert float(gap.std()) / math.sqrt(ROWS) < 0.05


def test_the_bound_counts_what_the_ends_leave_out(chain, model, batch):
    # E[bound] = H(w) + [|x0|^2/2s^2 - I at s_max] + [sum_i H(w_i|x) - H(w|x) at s_min] >= H(w)
    wide = bound(subject(model, Uniform(1.0, 4.0)), batch, MonteCarloBound(draws=64)).total
    assert float((wide / LENGTH - chain.nll(batch.ids)).mean()) > 0.1


@pytest.mark.parametrize("previous", ["zero", "unrolled"])
def test_the_flow_is_the_likelihood_of_an_exact_model(chain, model, batch, previous):
    options = Flow(steps=64, previous=previous)
    few = Batch(batch.ids[:24], batch.attend[:24])
    found = flow(subject(model, Uniform(0.08, 60.0)), few, options)
    gap = found.total / LENGTH - chain.nll(few.ids)
    assert abs(float(gap.mean())) < 3.5 * float(gap.std()) / math.sqrt(24) + 0.01
    assert float(gap.std()) / math.sqrt(24) < 0.12


def test_a_row_does_not_depend_on_its_neighbours(model, batch):
    few = Batch(batch.ids[:4], batch.attend[:4])
    together = bound(subject(model, Preserving()), few, MonteCarloBound(draws=4))
    apart = bound(subject(model, Preserving()), few, MonteCarloBound(draws=4, batch_size=1))
    torch.testing.assert_close(together.total, apart.total)


def test_padding_has_no_part(chain, model):
    ids = chain.sample(3, LENGTH, seed=4)
    attend = torch.ones_like(ids, dtype=torch.bool)
    attend[1, 4:] = False
    other = torch.where(attend, ids, (ids + 1) % 5)
    for measure, options in ((bound, MonteCarloBound(draws=4)), (flow, Flow(steps=4))):
        one, two = (
            measure(subject(model, Preserving()), Batch(rows, attend), options)
            for rows in (ids, other)
        )
        torch.testing.assert_close(one.total, two.total)
        assert one.tokens.tolist() == [6, 4, 6]


class Fed(Denoise):
    """x0 = tanh(W x + W' previous): a denoiser that depends on what it is fed."""

    def __init__(self, space):
        self.space = space
        generator = torch.Generator().manual_seed(0)
        self.own, self.fed = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)

    def start(self, x):
        return torch.zeros_like(x)

    def __call__(self, x, level, previous, conditioning):
        x0 = torch.tanh(x @ self.own + previous @ self.fed)
        query = torch.zeros(*x.shape[:2], 5, dtype=x.dtype)
        return Prediction(x0, query, query[..., 0], x0, x0)


def test_the_trace_goes_through_both_passes(model, batch):
    fed = GaussianModel(Fed(model.space), model.space, Uniform(0.1, 10.0))
    x = torch.randn(1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = torch.ones(1, dtype=torch.float64)
    attend = torch.ones(1, 2, dtype=torch.bool)
    nothing = Conditioning.of(x, ~attend, attend)

    def f(x, previous="unrolled"):
        return fed.predict(x, s.expand(len(x)), nothing, previous).x0_step

    by_hand = torch.tanh(x @ fed.denoise.own + torch.tanh(x @ fed.denoise.own) @ fed.denoise.fed)
    torch.testing.assert_close(f(x), by_hand)
    exact = torch.autograd.functional.jacobian(f, x).reshape(8, 8).trace()
    first_only = torch.autograd.functional.jacobian(lambda x: f(x, "zero"), x).reshape(8, 8).trace()
    basis = torch.eye(8, dtype=torch.float64).view(8, 1, 2, 4)
    through = sum(float(hutchinson(f, x, probe)[1]) for probe in basis)
    assert through == pytest.approx(float(exact))
    assert abs(through - float(first_only)) > 0.1


def test_options_and_spaces_that_do_not_fit(model):
    with pytest.raises(ValidationError):
        MonteCarloBound(draws=3)
    space = markov_denoise(MarkovChain.random(5), dim=4).space
    space.corruption = None
    with pytest.raises(UsageError, match="Gaussian"):
        GaussianModel(model, space, Preserving())
