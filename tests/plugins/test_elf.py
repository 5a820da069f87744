"""ELF: its times, the error that it minimises, its decoder, and how it samples."""

import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.noise import Noise
from dlmkit.testing.parts import Half, Nothing
from dlmkit_elf import plugin
from dlmkit_elf.model import LogitNormal, XPrediction
from dlmkit_elf.sampling import Renoising, SelfConditioning

V, D, ROWS = 3, 2, 4000


class Answers(ScoreNetwork):
    """Answers what it is told to, by what the space's corruption was last given."""

    def __init__(self, answer):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.answer, self.seen = answer, []

    def forward(self, x, level, conditioning, previous):
        self.seen.append((level, previous))
        noisy = x * torch.sqrt(level.like(x).alpha ** 2 + level.like(x).sigma ** 2)
        return self.scale * self.answer(noisy, level, previous)

    def shard_units(self):
        return ()


def objective(answer, **options):
    context = BuildContext(length=2, vocab_size=V)
    torch.manual_seed(0)
    space = NormalisedSpace(Normalised(dim=D, init_std=1.0, trained=False), context).double()
    parts = {
        "space": space,
        "network": Answers(lambda *seen: answer(space, *seen)),
        "schedule": LogitNormal(plugin.LogitNormal(), context),
        "masking": Half(Nothing(), context),
    }
    context = BuildContext(length=2, vocab_size=V, parts=parts)
    return XPrediction(plugin.XPrediction(**options), context)


def rows(count=ROWS):
    slots = torch.arange(count)
    ids = (slots % V)[:, None].expand(-1, 2)
    u = (slots.double() + 0.5) / count
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool)), Draws(u, Noise.keyed(1, slots, 0))


def posterior_mean(space, x, level, previous):
    log_p = bayes.log_likelihood(space, x, level)
    return space.expect(log_p.softmax(dim=-1))


def test_the_logit_of_the_texts_share_is_normal():
    schedule = LogitNormal(plugin.LogitNormal(), BuildContext(length=1))
    u = (torch.arange(100_000).double() + 0.5) / 100_000
    logit = torch.logit(1.0 - schedule.quantile(u))
    assert float(logit.mean()) == pytest.approx(-1.5, abs=1e-3)
    assert float(logit.std()) == pytest.approx(0.8, abs=1e-3)
    alpha, sigma = schedule.level(torch.tensor([0.25], dtype=torch.float64))
    assert (float(alpha), float(sigma)) == (0.75, 0.5)


def test_the_exact_mean_of_few_points_is_where_the_error_has_no_gradient():
    model = objective(posterior_mean, decoder=1e-9, self_conditioning=0.0)
    parts = model(*rows())
    parts.loss_sum.backward()
    gradient = model.network.scale.grad / parts.count
    off = objective(lambda *seen: 1.2 * posterior_mean(*seen), decoder=1e-9, self_conditioning=0.0)
    worse = off(*rows())
    worse.loss_sum.backward()
    assert abs(float(gradient)) < 0.1 * float(off.network.scale.grad / worse.count)
    assert parts.loss_sum < worse.loss_sum


def test_the_error_is_that_of_the_velocity():
    """(x0_hat - x) / t - (x0 - x) / t, a channel's mean square, of noised positions."""
    model = objective(lambda space, x, level, previous: 0.0 * x, decoder=1e-9)
    batch, draws = rows(64)
    parts = model(batch, draws)
    t = model.schedule.quantile(draws.u).clamp(min=0.05)
    torch.testing.assert_close(parts.per_row, 1.0 / t**2)  # points of norm sqrt(D)


def test_decoded_rows_cost_their_tokens_and_are_told_the_lowest_level():
    def certain(space, x, level, previous):
        return 40.0 * space.embed(rows()[0].ids)[: len(x)]

    model = objective(certain, decoder=1 - 1e-9)
    parts = model(*rows())
    assert float(parts.loss_sum.detach() / parts.count) < 1e-3
    assert not parts.unconditional.any()
    level, previous = model.network.seen[-1]
    lowest = model.schedule.level(torch.tensor(model.schedule.t_min, dtype=torch.float64))
    assert (level.ratio == lowest.ratio).all()
    assert not previous.any(), "a decoder sees no first prediction"
    silent = objective(lambda space, x, level, previous: 0.0 * x, decoder=1 - 1e-9)
    nothing = silent(*rows())
    assert float(nothing.loss_sum.detach() / nothing.count) == pytest.approx(math.log(V))


def test_a_step_goes_to_the_embedding_and_the_last_to_the_tokens():
    model = objective(lambda space, x, level, previous: 0.3 * torch.ones_like(x))
    denoise, space = model.denoise(), model.space
    x = torch.zeros(2, 2, D, dtype=torch.float64)
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    conditioning = Conditioning(nothing, x, ~nothing)
    t = torch.tensor([0.7, model.schedule.t_min], dtype=torch.float64)
    said = denoise(x, model.schedule.level(t), denoise.start(x), conditioning)
    torch.testing.assert_close(said.x0_step[0], torch.full((2, D), 0.3).double())
    torch.testing.assert_close(said.x0_step[1], space.read(said.query)[0][1])


def test_guidance_by_first_predictions_extrapolates_from_what_is_said_without():
    model = objective(lambda space, x, level, previous: 0.1 + previous)
    x = torch.zeros(1, 2, D, dtype=torch.float64)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    conditioning = Conditioning(nothing, x, ~nothing)
    level = model.schedule.level(torch.tensor([0.7], dtype=torch.float64))
    context = BuildContext(1, parts={"space": model.space})
    guided = SelfConditioning(plugin.Scale(scale=3.0), context).wrap(model.denoise())
    said = guided(x, level, x + 0.5, conditioning)
    torch.testing.assert_close(said.x0_step, torch.full_like(x, 0.1 + 3.0 * 0.5))
    torch.testing.assert_close(said.query, torch.full_like(x, 0.6))


def test_a_step_back_has_the_noise_that_its_time_says_and_none_where_it_ends():
    """Around a known token x stays alpha x0 + sigma noise, whatever gamma is."""
    sampler = Renoising(plugin.Renoising(gamma=1.5), BuildContext(1))
    count, x0 = 20_000, 0.5
    z = Noise.keyed(0, torch.arange(count), 0).normal(0, (1, 1), torch.float64)
    here = Level(torch.full((count,), 0.4).double(), torch.full((count,), 1.2).double())
    asked = []

    class Known(ModelDenoise):
        def __call__(self, x, level, previous, conditioning):
            asked.append((x, level))
            raise StopIteration

    for alpha in (0.8, 1.0):
        there = Level(here.alpha * 0 + alpha, here.sigma * 0 + 2.0 * (1.0 - alpha))
        x = 0.4 * x0 + 1.2 * z
        step = Step.between(x, here, there, Noise.keyed(0, torch.arange(count), 1))
        with pytest.raises(StopIteration):
            sampler.step(lambda *a: Known.__call__(None, *a, None), x, step, ())
        seen, level = asked.pop()
        kept = 1.0 - 1.5 * (0.8 - 0.4) if alpha < 1.0 else 1.0
        share = 2.0 / (2.0 + level.ratio[0])
        assert float(share) == pytest.approx(kept * 0.4)
        found = (seen / level.like(seen).alpha - x0).std() / level.ratio[0]
        assert float(found) == pytest.approx(1.0, abs=0.03)
