"""Plaid: its bound against an entropy, and what its schedule's gradient is."""

import math
from dataclasses import replace

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Normalised, Nothing
from dlmkit.core.points import NormalisedSpace
from dlmkit.exact import bayes
from dlmkit.noise import Noise
from dlmkit_cdcd.masking import NoMasking
from dlmkit_plaid import configs
from dlmkit_plaid.objective import LikelihoodBound
from dlmkit_plaid.schedule import Monotone

V, D, L = 5, 3, 4


class Silent(ScoreNetwork):
    """Says nothing, so that the output prior is all there is; learns nothing either."""

    def __init__(self, space):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(space.query_dim, dtype=torch.float64))

    def forward(self, x, level, conditioning, previous):
        return torch.zeros_like(x) + self.weight.to(x.dtype)

    def shard_units(self):
        return ()


def setting(dtype=torch.float32, **options):
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = NormalisedSpace(Normalised(dim=D, init_std=1.0), context)
    ends = configs.Monotone(gamma_min=-4.0, gamma_max=8.0, units=16)
    parts = {
        "space": space,
        "network": Silent(space),
        "schedule": Monotone(ends, context),
        "masking": NoMasking(Nothing(), context),
    }
    context = BuildContext(length=L, vocab_size=V, parts=parts)
    return LikelihoodBound(configs.Bound(**options), context).to(dtype)


def rows(count, dtype=torch.float32):
    """Uniformly random tokens, and draws of every time."""
    slots = torch.arange(count)
    ids = (Noise.keyed(9, slots, 0).uniform(0, (L,)) * V).long()
    u = ((slots + 0.5) / count).to(dtype)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool)), Draws(u, Noise.keyed(4, slots, 0))


def test_bound_of_the_exact_model_is_the_entropy():
    """Of uniform tokens the output prior is the exact posterior, and the bound then log V.

    By I-MMSE the diffusion term is the information between both ends, which reconstruction and
    prior complete to the entropy; at gamma 8 the prior's excess is below 1e-3.
    """
    objective = setting().eval()
    with torch.no_grad():
        parts = objective(*rows(40_000))
    bound, spread = parts.per_row.mean(), parts.per_row.std() / math.sqrt(40_000)
    assert spread < 0.02
    assert abs(bound - math.log(V)) < 4 * spread


def test_output_prior_is_the_posterior_without_context():
    objective = setting().eval()
    batch, draws = rows(6)
    level = objective.schedule.level(draws.u)
    x0 = objective.space.embed(batch.ids)
    x = objective.space.corruption.corrupt(x0, level, draws.noise)
    nothing = Conditioning.of(x0, ~batch.attend, batch.attend)
    with torch.no_grad():
        prediction = OutputPrior(objective.space, objective.network)(x, level, 0.0 * x, nothing)
        exact = bayes.log_likelihood(objective.space, x, level).log_softmax(-1)
    found = objective.space.logits(prediction.query).log_softmax(-1)
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)


def test_output_prior_rises():
    _, outside = rows(3)
    assert outside.risen(10) == 1.0
    inside = [replace(outside, step=torch.full((3,), step)) for step in (0, 5, 10, 99)]
    assert [float(draws.risen(10)) for draws in inside] == [0, 0.5, 1, 1]


def test_slope_is_the_derivative_and_ends_hold():
    schedule = setting(torch.float64).schedule
    t = torch.linspace(0.0, 1.0, 33, dtype=torch.float64, requires_grad=True)
    share, slope = schedule.shape(t)
    torch.testing.assert_close(torch.autograd.grad(share.sum(), t)[0], slope)
    assert share[0].item() == pytest.approx(0.0, abs=1e-12)
    assert share[-1].item() == pytest.approx(1.0, abs=1e-12)
    level = schedule.level(t)
    gamma = 2 * torch.log(level.sigma / level.alpha)
    torch.testing.assert_close(gamma[[0, -1]].detach(), schedule.ends.detach())


def test_the_network_follows_the_variance_and_the_ends_the_bound():
    objective = setting(torch.float64, self_conditioning=0.0)
    batch, draws = rows(12, torch.float64)
    schedule = objective.schedule
    objective(batch, draws).loss_sum.backward()

    def finite_difference(parameter, index, value):
        h, ends = 1e-6, []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                parameter[index] += sign * h
                ends.append(float(value(objective(batch, draws))))
                parameter[index] -= sign * h
        return (ends[0] - ends[1]) / (2 * h)

    for parameter in (schedule.inner, schedule.bias, schedule.outer):
        expected = finite_difference(parameter, 3, lambda p: L * p.per_row.square().sum())
        assert parameter.grad[3].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for index in (0, 1):
        expected = finite_difference(schedule.ends, index, lambda p: p.loss_sum)
        assert schedule.ends.grad[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_rows_that_were_told_say_nothing_of_the_schedule():
    objective = setting(self_conditioning=1.0)
    batch, draws = rows(12)
    objective(batch, draws).loss_sum.backward()
    assert objective.schedule.inner.grad.abs().max() == 0
    assert objective.schedule.ends.grad.abs().max() > 0  # the prior's and the reconstruction's
