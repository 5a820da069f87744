"""Guidance: identities, score algebra, and what it must leave alone."""

import math
from dataclasses import replace

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import CountingDenoise, ModelDenoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.model import open_model
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.testing.markov import MarkovChain, markov_denoise
from dlmkit_samplers import configs
from dlmkit_samplers.guidance import (
    Clamped,
    ClassifierFree,
    InitialNoise,
    Renormalised,
    ScoreTemperature,
    SoftmaxTemperature,
)
from dlmkit_samplers.samplers import Euler, Heun

V, L, D, B = 5, 6, 8, 4
CHAIN = MarkovChain.random(V)
DENOISE = markov_denoise(CHAIN, D)
CONTEXT = BuildContext(length=L, vocab_size=V, parts={"space": DENOISE.space})
LEVEL = Level(torch.full((B,), 0.8).double(), torch.tensor([0.4, 0.9, 1.5, 4.0]).double())


@pytest.fixture
def setting():
    ids = CHAIN.sample(B, L)
    given = torch.zeros(B, L, dtype=torch.bool)
    given[:, 1] = True
    x0 = DENOISE.space.embed(ids)
    x = DENOISE.space.corruption.corrupt(x0, LEVEL, Noise.keyed(0, torch.arange(B), 0))
    return x, Conditioning.of(x0, given, torch.ones_like(given))


def temperature(value):
    return ScoreTemperature(configs.ScoreTemperature(temperature=value), CONTEXT)


def classifier_free(scale):
    return ClassifierFree(configs.ClassifierFree(scale=scale), CONTEXT)


def call(denoise, x, conditioning):
    return denoise(x, LEVEL, denoise.start(x), conditioning)


def score(x0, x):
    """The score in VE coordinates, of x / alpha at sigma / alpha."""
    alpha, sigma = LEVEL.like(x)
    return (x0 - x / alpha) / (sigma / alpha) ** 2


def test_temperature_1_is_the_identity(setting):
    plain = call(DENOISE, *setting)
    assert torch.equal(call(temperature(1.0).wrap(DENOISE), *setting).x0_step, plain.x0_step)


@pytest.mark.parametrize("t", [0.5, 0.9, 1.3])
def test_temperature_divides_the_score(setting, t):
    x, conditioning = setting
    plain, warm = (call(d, x, conditioning) for d in (DENOISE, temperature(t).wrap(DENOISE)))
    free = ~conditioning.given
    torch.testing.assert_close(score(warm.x0_step, x)[free], (score(plain.x0_step, x) / t)[free])
    assert torch.equal(warm.x0_step[~free], plain.x0_step[~free])


@pytest.mark.parametrize("t", [0.5, 0.85, 1.0, 1.3])
@pytest.mark.parametrize("sampler", [Euler(), Heun()])
@pytest.mark.parametrize("ratio", [0.02, 0.7, 0.999])
def test_temperature_takes_steps_of_any_length_along_its_flow(t, sampler, ratio):
    """Of a constant x0, dx / d ln s = (x - x0) / T: ratio^(1 / T) is left of x - x0. By the rate
    alone, a step by 0.02 at T = 0.5 would leave -0.96 of it."""

    class Constant(ModelDenoise):
        def __call__(self, x, level, previous, conditioning):
            x0 = torch.full_like(x, 0.3)
            return Prediction(x0, x0, x0[..., 0], x0, previous)

    x = torch.linspace(-3.0, 4.0, B * L * D, dtype=torch.float64).view(B, L, D)
    here = Level(torch.ones(B).double(), torch.full((B,), 9.0).double())
    there = Level(here.alpha, ratio * here.sigma)
    nothing = torch.zeros(B, L, dtype=torch.bool)
    known = Conditioning.of(x, nothing, ~nothing)
    known = replace(known, step=(here, there))
    warm = temperature(t).wrap(Constant(DENOISE.space, DENOISE.network))
    step = Step.between(x, here, there, Noise.keyed(0, torch.arange(B), 0), x)
    bound = lambda x, level, previous: warm(x, level, previous, known)  # noqa: E731
    moved, *_ = sampler.step(bound, x, step, sampler.init(x))
    torch.testing.assert_close(moved, 0.3 + ratio ** (1.0 / t) * (x - 0.3))


def test_temperature_sharpens_where_steps_are_long():
    """On LangFlow's schedule the first of 16 steps takes 99 % of the noise away."""
    nats = []
    for t in (1.0, 0.8):
        sets = ("schedule.use=langflow:gumbel", "schedule.with.location=2.2", "sampler.use=euler")
        model = open_model("markov", (*sets, "schedule.with.scale=1.0", "grid.use=warped"))
        model = model.with_(f"guidance=[{{use: score-temperature, with: {{temperature: {t}}}}}]")
        metric = model.assembly.build("metric", Part(use="markov:exact"))
        metric.fit(model.data)
        texts = [text.text for text in model.sample(60, steps=16, batch_size=60)]
        nats.append(metric.measure(texts)["nll"])
    assert nats[1] < nats[0] - 0.1


@pytest.mark.parametrize("s", [0.0, 1.0, 2.5])
def test_classifier_free_combines_scores(setting, s):
    x, conditioning = setting
    guided = call(classifier_free(s).wrap(DENOISE), x, conditioning)
    told = call(DENOISE, x, conditioning)
    null = call(DENOISE, x, conditioning.dropped())
    free = ~conditioning.given
    expected = score(null.x0_step, x) + s * (score(told.x0_step, x) - score(null.x0_step, x))
    torch.testing.assert_close(score(guided.x0_step, x)[free], expected[free])
    assert torch.equal(guided.x0_step[~free], told.x0_step[~free])
    assert not torch.allclose(told.x0_step[free], null.x0_step[free])


def projected(kind, below=math.inf):
    return kind(configs.Below(below=below), CONTEXT)


PROJECTIONS = [projected(Renormalised), projected(Clamped)]


@pytest.mark.parametrize("guidance", [temperature(0.7), classifier_free(3.0), *PROJECTIONS])
def test_what_statistics_and_decoding_read_stays(setting, guidance):
    plain, guided = (call(d, *setting) for d in (DENOISE, guidance.wrap(DENOISE)))
    for name in ("query", "lse", "x0_mean"):
        assert torch.equal(getattr(guided, name), getattr(plain, name))


def test_each_branch_keeps_its_own_previous(setting):
    x, conditioning = setting
    guided = classifier_free(2.0).wrap(DENOISE)
    told, null = call(guided, x, conditioning).feedback
    assert torch.equal(told, call(DENOISE, x, conditioning).feedback)
    assert torch.equal(null, call(DENOISE, x, conditioning.dropped()).feedback)


def test_branches_are_counted(setting):
    counter = CountingDenoise(DENOISE)
    call(temperature(0.9).wrap(classifier_free(2.0).wrap(counter)), *setting)
    assert (counter.calls, counter.rows) == (2, 2 * B)


def test_renormalised_predictions_keep_their_direction(setting):
    plain, moved = (call(d, *setting) for d in (DENOISE, PROJECTIONS[0].wrap(DENOISE)))
    free = ~setting[1].given
    norms = moved.x0_step.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(D)))
    cosine = torch.cosine_similarity(moved.x0_step[free], plain.x0_step[free], dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert not torch.allclose(moved.x0_step[free], plain.x0_step[free])
    assert torch.equal(moved.x0_step[~free], plain.x0_step[~free])
    assert torch.equal(PROJECTIONS[0].project(torch.zeros(1, 1, D)), torch.zeros(1, 1, D))


def test_clamped_predictions_are_the_nearest_embedding(setting):
    plain, moved = (call(d, *setting) for d in (DENOISE, PROJECTIONS[1].wrap(DENOISE)))
    table = DENOISE.space.embed(torch.arange(V)[None])[0]
    nearest = table[torch.cdist(plain.x0_step.flatten(0, 1), table).argmin(dim=-1)]
    torch.testing.assert_close(moved.x0_step.flatten(0, 1), nearest)


@pytest.mark.parametrize("kind", [Renormalised, Clamped])
def test_projections_begin_at_their_level(setting, kind):
    """Of the four rows at ratios 0.5, 1.125, 1.875 and 5, the first two are at most 1.2."""
    plain, moved = (call(d, *setting) for d in (DENOISE, projected(kind, 1.2).wrap(DENOISE)))
    same = (plain.x0_step == moved.x0_step).flatten(1).all(dim=1)
    assert same.tolist() == [False, False, True, True]


@pytest.mark.parametrize("scale", [0.0, 0.9, 1.0])
def test_initial_noise_is_scaled_and_nothing_else(setting, scale):
    guidance = InitialNoise(configs.InitialNoise(scale=scale), CONTEXT)
    x, _ = setting
    assert guidance.wrap(DENOISE) is DENOISE
    assert torch.equal(guidance.start(x), scale * x)
    assert all(g.start(x) is x for g in (temperature(0.7), classifier_free(2.0), *PROJECTIONS))


@pytest.mark.parametrize("t", [0.5, 1.0, 1.6])
def test_softmax_temperature_divides_the_logits(setting, t):
    x, conditioning = setting
    space = DENOISE.space
    made = SoftmaxTemperature(configs.SoftmaxTemperature(temperature=t), CONTEXT)
    plain, soft = (call(d, x, conditioning) for d in (DENOISE, made.wrap(DENOISE)))
    expected = (space.logits(plain.query) / t).softmax(dim=-1)
    torch.testing.assert_close(space.logits(soft.query).softmax(dim=-1), expected)
    free = ~conditioning.given
    torch.testing.assert_close(soft.x0_step[free], space.expect(expected)[free])
    assert torch.equal(soft.x0_step[~free], plain.x0_step[~free])


def test_softmax_temperature_leaves_the_mass_of_scores_and_written_tokens():
    """In a space of token ids queries are logits; a written token is certain at any temperature."""
    model = open_model("markov_masked", ("length=6", "data.with.tokens=5"))
    parts = model.parts
    part = Part(use="samplers:softmax-temperature", options={"temperature": 0.5})
    made = model.assembly.build("guidance", part)
    soft = made.wrap(parts.denoise)
    ids = torch.tensor([[1, 2, 3, 1, 2, 3]])
    masked = torch.tensor([[False, True, True, False, True, True]])
    x = torch.where(masked, parts.space.corruption.mask, ids)
    clean = parts.space.corruption.clean(ids)
    nothing = Conditioning.of(clean, torch.zeros_like(masked), torch.ones_like(masked))
    level = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    before, after = (d(x, level, d.start(x), nothing) for d in (parts.denoise, soft))
    torch.testing.assert_close(after.lse, before.lse)
    p = before.query.softmax(dim=-1)
    expected = p.square() / p.square().sum(dim=-1, keepdim=True)
    torch.testing.assert_close(after.query.softmax(dim=-1)[masked], expected[masked])
    assert torch.equal(after.query.argmax(dim=-1)[~masked], ids[~masked])


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.7])
def test_masked_text_is_guided_from_its_marginals_to_its_conditionals(scale):
    """Of a chain whose first token alone is given, by powers of its transition matrix."""
    model = open_model("markov_masked", ("length=6", "data.with.tokens=5"))
    parts, chain = model.parts, model.assembly.network
    part = Part(use="samplers:classifier-free", options={"scale": scale})
    guided = model.assembly.build("guidance", part).wrap(parts.denoise)
    initial, transition = chain.initial.double(), chain.transition.double()
    first = torch.tensor([3])
    ids = torch.tensor([[3, 0, 0, 0, 0, 0]])
    given = torch.tensor([[True, *[False] * 5]])
    x = torch.full_like(ids, parts.space.corruption.mask)
    clean = parts.space.corruption.clean(ids)
    level = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    known = Conditioning.of(clean, given, torch.ones_like(given))
    found = guided(x, level, guided.start(x), known).query[0].double().softmax(dim=-1)
    for k in range(1, 6):
        power = torch.linalg.matrix_power(transition, k)
        marginal, conditional = initial @ power, power[first[0]]
        expected = torch.where(marginal > 0, marginal ** (1.0 - scale) * conditional**scale, 0.0)
        torch.testing.assert_close(found[k], expected / expected.sum(), atol=1e-6, rtol=1e-5)
