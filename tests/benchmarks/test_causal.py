"""The autoregressive yardstick of `benchmarks/models.py`."""

import math
from pathlib import Path

import pytest
import torch

import dlmkit
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.schedule import Level
from dlmkit.model import compose
from dlmkit.noise import Noise
from dlmkit.recipe.load import load_recipe
from dlmkit.registry import single

FILE = Path(__file__).parents[2] / "benchmarks" / "causal.py"
LENGTH = 12
SETS = (
    "masking={use: cdcd:none}",
    "network={use: causal:transformer, with: {width: 16, blocks: 1, heads: 2}}",
    "objective={use: causal:next-token}",
    "sampler={use: mdlm:unmasking, with: {window: 1}}",
    "grid={use: samplers:linear}",
    f"length={LENGTH}",
)


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(single.FILES, "")  # and no plugin of this name afterwards
        dlmkit.load_plugin(FILE)
        recipe = load_recipe("mdlm_grammar", list(SETS)).config
        model = compose(**recipe.model_dump(mode="json", by_alias=True))
        torch.manual_seed(0)
        torch.nn.init.normal_(model.assembly.objective.network.query.weight, std=0.3)
        yield model


def logits(model, ids):
    objective = model.assembly.objective
    known = torch.zeros_like(ids, dtype=torch.bool)
    clean = objective.space.corruption.clean(ids)
    level = Level(torch.ones(len(ids)), torch.ones(len(ids)))
    with torch.no_grad():
        return objective.network(clean, level, Conditioning.of(clean, known, ~known), clean * 0)


def test_a_position_reads_the_tokens_before_it_alone(model):
    ids = torch.randint(2, 50, (1, LENGTH))
    said = logits(model, ids)
    for place in range(LENGTH):
        other = ids.clone()
        other[0, place] += 1
        moved = (logits(model, other) != said).any(dim=-1)[0]
        assert not moved[: place + 1].any()
        assert moved[place + 1 :].all()


def test_the_loss_is_the_likelihood_and_tokens_are_drawn_from_it(model):
    ids = torch.randint(2, 50, (4, LENGTH))
    draws = Draws((torch.arange(4) + 0.5) / 4, Noise.keyed(0, torch.arange(4), 0))
    parts = model.assembly.objective(Batch(ids, ids > 0), draws)
    log_p = logits(model, ids).log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    assert float(parts.loss_sum.detach()) == pytest.approx(-float(log_p.sum()), rel=1e-4)
    texts = model.sample(4, steps=LENGTH)
    assert {text.evaluations for text in texts} == {LENGTH}
    cold = model.with_("guidance=[{use: samplers:softmax-temperature, with: {temperature: 0.001}}]")
    first = cold.run(cold.requests(1), dlmkit.model.Run(0, LENGTH, 1))[0].ids
    said = logits(model, torch.tensor([first]))
    assert first[0] == int(said[0, 0].argmax())
    assert math.isfinite(float(said.sum()))
