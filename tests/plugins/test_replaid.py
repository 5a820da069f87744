"""The schedule of least variance against optima that are known."""

import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.model import compose
from dlmkit.noise import Noise
from dlmkit.recipe.load import load_recipe
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.schedules import FixedDensity
from dlmkit_replaid import plugin
from dlmkit_replaid.schedule import LeastVariance


def schedule(**options):
    base = FixedDensity(
        VarianceExploding(t_min=1.0, t_max=9.0, density="log-uniform"), BuildContext(1)
    )
    config = plugin.LeastVariance(base={"use": "any"}, **{"fade": 1, "mix": 1e-3, **options})
    return LeastVariance(config, BuildContext(1, build=lambda kind, part: base))


def taught(integrand, steps=120, rows=256, **options):
    """A schedule that has seen ``integrand(u, normal)`` by its base's own u."""
    made = schedule(bins=40, **options)
    for step in range(steps):
        noise = Noise.keyed(0, torch.arange(rows), step)
        u = (torch.arange(rows) + noise.uniform(0, dtype=torch.float64)) / rows
        t = made.quantile(u)
        f = integrand(made.base.cdf(t), noise.normal(1, dtype=torch.float64))
        density = made.pdf(t)
        loss = f * made.base.pdf(t) / density
        made.observe(t, loss, density, torch.ones(rows, dtype=torch.bool))
    return made, loss


def test_an_integrand_that_is_known_at_every_level_is_estimated_without_variance():
    """p = f / integral of f, and every row's loss is the integral: 4 u^3 + 1/2, of 3/2."""
    made, loss = taught(lambda u, z: 4.0 * u**3 + 0.5)
    assert float(loss.mean()) == pytest.approx(1.5, rel=0.02)
    assert float(loss.std()) < 0.06
    u = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    t = made.base.quantile(u)
    torch.testing.assert_close(made.cdf(t), (u**4 + 0.5 * u) / 1.5, atol=0.01, rtol=0)


def test_a_noisy_integrand_is_drawn_by_the_root_of_its_mean_square():
    """f = exp(s(u) z - s^2 / 2), of mean 1 everywhere, and E[f^2] = exp(s(u)^2)."""
    spread = lambda u: 1.2 * (u > 0.5)  # noqa: E731
    made, _ = taught(
        lambda u, z: torch.exp(spread(u) * z - 0.5 * spread(u) ** 2), memory=5000.0, rows=1024
    )
    root = math.exp(0.5 * 1.2**2)
    middle = made.base.quantile(torch.tensor(0.5, dtype=torch.float64))
    assert float(made.cdf(middle)) == pytest.approx(1.0 / (1.0 + root), abs=0.02)


def _levels(gamma, rows):
    return Level.preserving(torch.full((rows,), gamma, dtype=torch.float64))


def test_least_variance_is_linear_cross_entropy_where_rows_of_a_level_are_alike():
    """RePlaid's claim for exact posteriors of tokens among points. It needs rows of many tokens:
    of one token a row, the root of the mean square is elsewhere than the mean."""
    torch.manual_seed(0)
    space = NormalisedSpace(Normalised(dim=3, init_std=1.0), BuildContext(1, vocab_size=8)).double()
    gammas = torch.linspace(-5.0, 6.0, 45, dtype=torch.float64)
    count, entropy, squares = 2048, [], {1: [], 64: []}
    ids = (torch.arange(count) % 8)[:, None]
    for gamma in gammas.tolist():
        level = _levels(gamma, count)
        x0 = space.embed(ids)
        x = space.corruption.corrupt(x0, level, Noise.keyed(2, torch.arange(count), 0))
        log_p = bayes.log_likelihood(space, x, level).log_softmax(dim=-1)
        entropy.append(float(-(log_p.exp() * log_p).sum(-1).detach().mean()))
        error = (x0 - space.expect(log_p.exp())).square().sum(-1)[:, 0].detach()
        f = 0.5 * math.exp(-gamma) * error
        for length, found in squares.items():
            found.append(float(f.view(-1, length).mean(1).square().mean().sqrt()))

    def shares(rise):
        total = torch.tensor(rise).double()
        steps = 0.5 * (total[1:] + total[:-1])
        return torch.cat((steps.new_zeros(1), steps.cumsum(0))) / steps.sum()

    known = torch.tensor(entropy).double()
    linear = (known - known[0]) / (known[-1] - known[0])
    gaps = {length: float((shares(f) - linear).abs().max()) for length, f in squares.items()}
    assert gaps[64] < 0.03
    assert gaps[1] > 4 * gaps[64]


def test_a_masked_model_trains_with_it():
    changes = [
        "network.with.width=16", "network.with.heads=2", "network.with.blocks=1", "train.steps=3",
        "train.batch_size=8", "train.threads=1", "train.warmup_steps=1",
    ]  # fmt: skip
    recipe = load_recipe("mdlm_grammar", changes).config.model_dump(mode="json", by_alias=True)
    recipe["schedule"] = {"use": "replaid:least-variance", "with": {"base": recipe["schedule"]}}
    model = compose(**recipe)
    assert all(math.isfinite(record.loss) for record in model.train())
    assert model.assembly.schedule.shares.counts.sum() > 0
    assert model.sample(1, steps=4)[0].evaluations == 4
