"""Scores of texts: exact where they can be, and bounds that meet them on the exact test-beds."""

import itertools
import math

import pytest
import torch

from dlmkit.core.embedding import Corruption
from dlmkit.core.schedule import Level
from dlmkit.errors import UsageError
from dlmkit.evaluation.score import Scorer, Scoring, key, scorer
from dlmkit.model import Model, open_model
from dlmkit.noise import Noise


class Uniform(Corruption):
    """A corruption of which no bound is known."""

    def corrupt(self, x0: torch.Tensor, level: Level, noise: Noise) -> torch.Tensor:
        return x0

    def prior(self, like: torch.Tensor, level: Level, noise: Noise) -> torch.Tensor:
        return like

    def input(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        return x


CHAIN = ("data.with.tokens=5", "length=8")


@pytest.fixture(scope="module")
def masked() -> Model:
    return open_model("markov_masked", (*CHAIN, "data.with.successors=2"))


@pytest.fixture(scope="module")
def gaussian() -> Model:
    small = ("schedule.with.rows=32", "schedule.with.levels=12")
    return open_model("markov", (*CHAIN, *small))


def made(model: Model, **options: int) -> Scorer:
    return scorer(model.parts, Scoring(**options))


def row(model: Model, number: int = 0) -> list[int]:
    ids: list[int] = model.data.validation(number + 1).ids[number].tolist()
    return ids


def exact(model: Model, ids: list[int], first: int) -> float:
    """-log p(ids[first:] | ids[:first]) of the chain."""
    chain = model.data.chain  # type: ignore[attr-defined]
    text = [i - 1 for i in ids]
    start = -math.log(chain.initial[text[0]]) if first == 0 else 0.0
    pairs = list(itertools.pairwise(text))[max(first - 1, 0) :]
    return start - sum(math.log(chain.transition[a, b]) for a, b in pairs)


@pytest.mark.parametrize("first", [0, 1, 5])
def test_one_token_a_block_is_exact(masked: Model, first: int):
    for number in range(3):
        ids = row(masked, number)
        found = made(masked, block=1).nats(ids, first, 0)
        assert found == pytest.approx(exact(masked, ids, first), rel=1e-9)


@pytest.mark.parametrize("block", [None, 3])
def test_with_exact_posteriors_the_bound_is_tight_on_average(masked: Model, block: int | None):
    """Any order writes the chain's text, so the bound is its likelihood up to the draws' error."""
    ids, options = row(masked), {} if block is None else {"block": block}
    values = torch.tensor([made(masked, draws=64, **options).nats(ids, 2, k) for k in range(24)])
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - exact(masked, ids, 2)) < 4 * error + 1e-9
    assert error > 0.0


def test_the_gaussian_bound_lies_above_the_truth_and_near_it(gaussian: Model):
    ids = row(gaussian)
    values = torch.tensor([made(gaussian, draws=64).nats(ids, 3, k) for k in range(16)])
    error = float(values.std()) / math.sqrt(len(values))
    truth = exact(gaussian, ids, 3)
    assert truth - 4 * error < float(values.mean()) < truth + 4 * error + 0.6


@pytest.mark.parametrize("name", ["masked", "gaussian"])
def test_a_score_depends_on_its_key_and_repeats_to_the_bit(
    name: str, request: pytest.FixtureRequest
):
    model = request.getfixturevalue(name)
    ids = row(model)
    one = made(model, draws=12, rows=5).nats(ids, 3, 7)
    assert made(model, draws=12, rows=5).nats(ids, 3, 7) == one
    assert made(model, draws=12, rows=64).nats(ids, 3, 7) == pytest.approx(one, rel=1e-12)
    assert made(model, draws=12, rows=5).nats(ids, 3, 8) != pytest.approx(one)
    assert made(model, draws=12, rows=5, seed=1).nats(ids, 3, 7) != pytest.approx(one)


def test_greedy_follows_the_likeliest_token(masked: Model):
    chain = masked.data.chain  # type: ignore[attr-defined]
    text = [1]
    for _ in range(4):
        text.append(1 + int(chain.transition[text[-1] - 1].argmax()))
    assert made(masked).greedy(text, 1)
    other = 1 + int(chain.transition[text[-2] - 1].argmin())
    assert not made(masked).greedy([*text[:-1], other], 1)


def test_a_key_is_of_the_tokens_alone():
    assert key([1, 2], [3]) == key([1, 2], [3]) < 1 << 62
    assert len({key([1, 2], [3]), key([1], [2, 3]), key([12], [3]), key([1, 2, 3])}) == 4


def test_options_without_a_use_are_refused(masked: Model, gaussian: Model):
    with pytest.raises(UsageError, match="block: 1 is of masked models"):
        made(gaussian, block=1)
    with pytest.raises(UsageError, match="previous: zero is of continuous models"):
        scorer(masked.parts, Scoring(previous="zero"))
    uniform = open_model("markov_masked", CHAIN)
    uniform.parts.space.corruption = Uniform()
    with pytest.raises(UsageError, match="this model has Uniform"):
        scorer(uniform.parts, Scoring())
