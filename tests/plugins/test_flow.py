"""FLM and S-FLM: decoding errors, arcs and velocities against values that are not theirs."""

import math

import pytest
import torch
import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.exact import bayes
from dlmkit.noise import Noise
from dlmkit_flow import flat, plugin, sphere

V, D, ROWS = 4, 3, 60_000


def noise(rows, step=0):
    return Noise.keyed(3, torch.arange(rows), step)


def levels(t, rows):
    t = torch.full((rows,), t, dtype=torch.float64)
    return Level(1.0 - t, t)


@pytest.fixture
def points():
    """Tokens on the sphere of radius sqrt(D)."""
    drawn = torch.randn(V, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return math.sqrt(D) * F.normalize(drawn, dim=-1)


@pytest.fixture
def space(points):
    context = BuildContext(length=1, vocab_size=V)
    space = sphere.SphereSpace(plugin.Normalised(dim=D), context).double()
    with torch.no_grad():
        space.weight.copy_(points)
    return space


def test_decoding_errors_are_those_of_noisy_one_hot_vectors():
    for ratio in (0.2, 0.5, 1.5):
        x = F.one_hot(torch.zeros(ROWS, dtype=torch.int64), 8)
        x = x + ratio * noise(ROWS).normal(0, (8,), torch.float64)
        lost = (x.argmax(dim=-1) != 0).double()
        found = flat.decoding_error(torch.tensor([ratio]), 8)
        error = 4 * float(lost.std()) / math.sqrt(ROWS)
        assert float(found) == pytest.approx(float(lost.mean()), abs=error)


def test_two_tokens_are_told_apart_by_one_normal_variable():
    """P_e = Phi(-1 / (ratio sqrt 2)): the difference of two channels is normal."""
    ratio = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    expected = torch.special.ndtr(-1.0 / (ratio * math.sqrt(2.0)))
    torch.testing.assert_close(flat.decoding_error(ratio, 2), expected, atol=1e-9, rtol=0)


def test_equal_steps_of_u_are_equal_steps_of_the_decoding_error():
    schedule = flat.DecodingError(plugin.DecodingError(), BuildContext(length=1, vocab_size=256))
    u = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    error = flat.decoding_error(schedule.level(schedule.quantile(u)).ratio, 256) * 256 / 255
    torch.testing.assert_close(error, 1e-3 + u * (1 - 2e-3), atol=2e-3, rtol=0)


def test_what_x_alone_says_of_a_one_hot_token_is_its_exact_posterior():
    context = BuildContext(length=1, vocab_size=V)
    space = flat.OneHotSpace(plugin.OneHot(dim=D, reads="posterior"), context).double()
    level = levels(0.4, 5)
    ids = torch.arange(5)[:, None] % V
    x = space.corruption.corrupt(space.embed(ids), level, noise(5))
    exact = bayes.log_likelihood(space, x, level).softmax(dim=-1)
    found = space.corruption.input(x, level)
    torch.testing.assert_close(found, exact @ space.table.weight)


def test_slerp_stays_on_the_sphere_at_its_share_of_the_angle(points):
    x, y = points[:1], points[1:]
    whole = torch.acos((x * y).sum(dim=-1) / D)
    for share in (0.0, 0.25, 0.7, 1.0):
        z = sphere.slerp(x, y, torch.tensor(share, dtype=torch.float64))
        torch.testing.assert_close(z.norm(dim=-1), torch.full((V - 1,), math.sqrt(D)).double())
        angle = torch.acos(((x * z).sum(dim=-1) / D).clamp(-1.0, 1.0))
        torch.testing.assert_close(angle, share * whole, atol=1e-6, rtol=0)


def test_the_exponential_of_the_logarithm_is_the_point_and_shares_are_slerps(points):
    x = points[:1].expand(V - 1, -1)
    log = sphere.direction(x[:, None], points, torch.eye(V)[1:, None].double())[:, 0]
    torch.testing.assert_close(sphere.exponential(x, log), points[1:])
    expected = sphere.slerp(x, points[1:], torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(sphere.exponential(x, 0.3 * log), expected)


def test_a_point_of_the_arc_has_the_density_that_it_says(space, points):
    """Its mean over the prior, of p(x | token) over p(x | another), is 1 under the other."""
    level = levels(0.8, ROWS)
    ids = torch.full((ROWS, 1), 1)
    x = space.corruption.corrupt(space.embed(ids), level, noise(ROWS))
    log_p = space.corruption.log_likelihood(points, x, level)[:, 0].detach()
    # at 0.8 of an arc nobody comes to the other side: where both are possible, ratios average to
    # the share of the other's draws that this one can reach
    ratio = (log_p[:, 2] - log_p[:, 1]).exp()
    back = space.corruption.corrupt(space.embed(ids + 1), level, noise(ROWS, 1))
    reach = torch.acos((back[:, 0] @ points[1] / D).clamp(-1, 1)) < 0.8 * math.pi
    error = 4 * float(ratio.std()) / math.sqrt(ROWS)
    assert float(ratio.mean()) == pytest.approx(float(reach.double().mean()), abs=error + 2e-3)


def test_the_mean_velocity_carries_the_marginal_along(space, points):
    """Along sum_v p_v log_x(e_v) / tau, with the exact posterior, the mean of any function of x
    changes as its finite difference in tau says (the continuity equation)."""
    prior = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    ids = (torch.rand(ROWS, 1, generator=torch.Generator().manual_seed(1)) > prior.cumsum(0)).sum(1)
    test = torch.randn(D, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def draw(tau):
        return space.corruption.corrupt(space.embed(ids[:, None]), levels(tau, ROWS), noise(ROWS))

    def functions(x):
        return torch.sin(x @ test)

    tau, step = 0.6, 0.01
    x = draw(tau).detach()
    log_p = space.corruption.log_likelihood(points, x, levels(tau, ROWS)) + prior.log()
    velocity = sphere.direction(x, points, log_p.softmax(dim=-1)) / tau  # as tau falls
    flow = (torch.cos(x @ test) * (velocity @ test))[:, 0]
    change = (functions(draw(tau - step)) - functions(draw(tau + step)))[:, 0] / (2 * step)
    error = 5 * (flow - change).std(dim=0) / math.sqrt(ROWS)
    assert ((flow - change).mean(dim=0).abs() < error + 1e-3).all()
    assert flow.mean(dim=0).abs().max() > 0.05


def test_one_step_ends_where_the_only_token_is_and_guidance_turns_it(space, points):
    sampler = sphere.GeodesicEuler(plugin.Geodesic(top=1), BuildContext(1, parts={"space": space}))
    x = space.corruption.prior(torch.zeros(3, 1, D).double(), levels(1.0, 3), noise(3))
    query = points[2].expand(3, 1, D) * 50.0
    mean, lse = space.read(query)
    for moved in (0.0, 1.0):

        def denoise(x, level, previous, moved=moved):
            return Prediction(mean + moved * points[0], query, lse, mean, ())

        step = Step.between(x, levels(0.999, 3), levels(0.333, 3), noise(3))
        found, _, _ = sampler.step(denoise, x, step, ())
        share = torch.tensor(1 - 0.333 / 0.999, dtype=torch.float64)
        straight = sphere.slerp(x, points[2].expand_as(x), share)
        assert torch.allclose(found, straight, atol=1e-4) == (moved == 0.0)
        torch.testing.assert_close(found.norm(dim=-1), torch.full((3, 1), math.sqrt(D)).double())


def test_tokens_are_plain_from_the_bound_on():
    """Equation 17 holds: with fewer errors than delta, of random points."""
    size, dim, delta = 50, 128, 0.1
    share = sphere.plain_from(size, dim, delta)
    generator = torch.Generator().manual_seed(0)
    table = F.normalize(torch.randn(size, dim, generator=generator), dim=-1) * math.sqrt(dim)
    ids = torch.arange(4000) % size
    level = Level(torch.full((4000,), share), torch.full((4000,), 1 - share))
    x = sphere.SphereCorruption().corrupt(table[ids], level, noise(4000))
    assert ((x @ table.T).argmax(dim=-1) != ids).double().mean() < delta
    context = BuildContext(1, vocab_size=size, parts={"space": type("S", (), {"dim": dim})})
    assert sphere.Truncated(plugin.Truncated(), context).t_min == pytest.approx(1 - share)
