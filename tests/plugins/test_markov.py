"""The test-bed as a recipe: its parts agree with the chain, and its metric with closed forms."""

import math

import pytest
import torch

from dlmkit.cli.app import main
from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import DataError, RecipeError
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.testing.markov import MarkovChain, MarkovNetwork
from dlmkit_markov import metric as exact
from dlmkit_markov import schedule
from dlmkit_markov.configs import ExactMetric, ExactWarp
from dlmkit_markov.data import MarkovData
from dlmkit_markov.metric import ExactScore


@pytest.fixture(scope="module")
def model() -> Assembly:
    registry = Registry.load()
    small = ("data.with.tokens=6", "length=5", "schedule.with.rows=64", "schedule.with.levels=12")
    return assemble(load_recipe("markov", small, registry).config, registry)


def score(model: Assembly) -> ExactScore:
    made: ExactScore = model.build("metric", Part(use="markov:exact"))
    made.fit(model.data)
    return made


def test_text_survives_the_round_trip_and_pad_is_never_drawn(model: Assembly):
    batch = model.data.validation(50)
    assert batch.attend.all()
    assert int(batch.ids.min()) >= 1
    assert int(batch.ids.max()) <= 6
    for row in batch.ids.tolist():
        assert model.tokenizer.encode(model.tokenizer.decode(row)) == row


def test_rows_depend_on_their_number_alone(model: Assembly):
    a = model.data.stream(3, 8).read(2, torch.arange(8)).ids
    b = model.data.stream(3, 4).read(4, torch.tensor([3, 1])).ids
    assert torch.equal(a[[3, 1]], b)
    assert not torch.equal(a, model.data.stream(4, 8).read(2, torch.arange(8)).ids)
    held_out = model.data.validation(16).ids
    assert not torch.equal(held_out, model.data.stream(0, 16).read(0, torch.arange(16)).ids)


def test_the_network_never_believes_in_padding(model: Assembly):
    assert isinstance(model.network, MarkovNetwork)
    query = model.space.embed(torch.ones(1, 5, dtype=torch.int64))
    denoise = model.objective.denoise()
    attend = torch.ones(1, 5, dtype=torch.bool)
    level = Level(torch.ones(1), torch.full((1,), 30.0))
    nothing = Conditioning.of(query, ~attend, attend)
    prediction = denoise(query, level, denoise.start(query), nothing)
    p = model.space.logits(prediction.query).softmax(-1)
    assert float(p[..., [0, -1]].max()) < 1e-300
    # nothing is known at this noise, so every position follows the stationary distribution
    expected = model.data.chain.initial.expand(5, -1)
    torch.testing.assert_close(p[0, :, 1:-1], expected, atol=0.05, rtol=0)


def test_the_schedule_is_the_normalised_cross_entropy(model: Assembly):
    warp = model.schedule
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    t = warp.quantile(u)
    torch.testing.assert_close(warp.cdf(t), u)
    assert float(t[0]) == pytest.approx(warp.t_min)
    assert float(t[-1]) == pytest.approx(warp.t_max)
    fine = torch.linspace(warp.t_min, warp.t_max, 200_001, dtype=torch.float64)
    mass = torch.trapezoid(warp.pdf(fine), fine)
    assert float(mass) == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(warp.inverse(warp.level(t).ratio), t)


def test_flat_or_noisy_losses_still_rise():
    shares = schedule.increasing(torch.tensor([0.0, 0.0, 0.5, 0.4, 1.0], dtype=torch.float64))
    assert float(shares[0]) == 0.0
    assert float(shares[-1]) == pytest.approx(1.0)
    assert bool((shares.diff() > 0).all())


def test_an_impossible_range_of_noise_is_refused():
    with pytest.raises(ValueError, match="t_min must be below t_max"):
        ExactWarp(t_min=2.0, t_max=1.0)


def test_nll_is_that_of_the_chain_and_its_gap_is_small_on_true_text(model: Assembly):
    texts = [model.tokenizer.decode(row) for row in model.data.validation(2000).ids.tolist()]
    found = score(model).measure(texts)
    assert found["nll_expected"] == pytest.approx(model.data.chain.entropy(5))
    assert found["nll_gap_low"] < 0.0 < found["nll_gap_high"]
    assert found["transition_kl_low"] < 0.001
    assert abs(found["transition_kl"]) < 0.003


def test_wrong_texts_are_far(model: Assembly):
    uniform = torch.randint(1, 7, (500, 5), generator=torch.Generator().manual_seed(0))
    found = score(model).measure([model.tokenizer.decode(row) for row in uniform.tolist()])
    assert found["nll_gap_low"] > 0.5
    assert found["transition_kl_low"] > 0.5


def test_transition_kl_by_hand():
    transition = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    chain = MarkovChain(torch.tensor([2 / 3, 1 / 3], dtype=torch.float64), transition)
    counts = torch.tensor([[2.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert exact.transition_kl(counts, chain) == pytest.approx(expected)


def test_the_jackknife_interval_covers():
    """Of 200 samples of the chain itself, about 95 % of the intervals hold their true value."""
    chain = MarkovChain.random(4, sharpness=1.0, seed=1)
    floor = exact.finite_sample_kl(chain, 200, 6, 100)
    covered = 0
    for seed in range(1000, 1200):
        counts = exact.pairs(chain.sample(200, 6, seed), 4, 20)
        value, (error, _) = exact.sampled_kl(counts, chain, 200)
        covered += abs(value - floor) <= exact.NORMAL * error
    assert 0.88 <= covered / 200 <= 1.0


def test_a_text_that_is_no_row_of_the_chain_is_refused(model: Assembly):
    metric, row = score(model), "w1 w2 w3 w4 w5"
    with pytest.raises(DataError, match="2 tokens of the chain, not 5"):
        metric.ids(["w1 w2", row])
    assert metric.measure([]) == {}
    assert metric.measure(["", row, "w1"]) == {"incomplete": pytest.approx(2 / 3)}
    whole, found = metric.measure([row, row]), metric.measure([row, "w1", row, ""])
    assert (whole.pop("incomplete"), found.pop("incomplete")) == (0.0, 0.5)
    assert whole == found


def test_parts_that_need_the_chain_say_so(model: Assembly):
    assert isinstance(model.data, MarkovData)
    with pytest.raises(RecipeError, match="assembled without data"):
        schedule.ExactWarp(ExactWarp(), BuildContext(length=5))
    grammar = model.registry.build("data", Part(use="grammar:grammar"), BuildContext(length=12))
    with pytest.raises(RecipeError, match="data markov:chain only"):
        ExactScore(ExactMetric(), BuildContext(length=5)).fit(grammar)


def test_there_is_nothing_to_train(tmp_path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "markov", "--out", str(tmp_path / "run")]) == 2
    assert "nothing to train" in capsys.readouterr().err


def test_another_data_is_refused_when_the_recipe_is_checked(capsys: pytest.CaptureFixture[str]):
    assert main(["recipe", "show", "markov", "--set", "data.use=grammar"]) == 3
    assert "markov-chain" in capsys.readouterr().err
