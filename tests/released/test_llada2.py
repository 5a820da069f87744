"""What LLaDA2's mixture of experts is easily taken wrong in."""

from pathlib import Path

import pytest
import torch

from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.registry.lookup import Registry
from dlmkit.released.opening import open_released
from dlmkit_released.bailing import Gate
from dlmkit_released.configs import Bailing
from dlmkit_released.llada2 import BLOCK

GOLDEN = Path(__file__).parent.parent / "golden" / "llada2-mini"
LEVEL = Level(torch.full((2,), 0.5), torch.full((2,), 0.5))


@pytest.fixture(scope="module")
def objective():
    opened = open_released(GOLDEN, Registry.load(), dtype=torch.float32)
    return opened.assembly.objective.eval()


def logits(objective, ids, attend):
    x = objective.space.corruption.input(ids, LEVEL)
    conditioning = Conditioning.of(x, torch.zeros_like(attend), attend)
    with torch.no_grad():
        return objective.network(x, LEVEL, conditioning, torch.zeros_like(x))


def test_a_block_sees_itself_and_what_comes_before(objective):
    ids = torch.arange(2 * (BLOCK + 8)).view(2, -1) % 90
    attend = torch.ones_like(ids, dtype=torch.bool)
    before = logits(objective, ids, attend)
    for changed, first in ((BLOCK - 1, 0), (BLOCK + 3, BLOCK)):
        other = ids.clone()
        other[:, changed] = 95
        moved = (logits(objective, other, attend) != before).any(dim=-1)[0]
        assert moved.tolist() == [at >= first for at in range(ids.shape[1])]


def test_nothing_depends_on_padding(objective):
    ids = torch.arange(24).view(2, 12)
    attend = torch.arange(12).expand(2, 12) < torch.tensor([[12], [7]])
    one = logits(objective, ids, attend)[attend]
    two = logits(objective, torch.where(attend, ids, 95), attend)[attend]
    assert torch.allclose(one, two, atol=1e-5)


def gate(**options):
    config = Bailing(**{"experts": 6, "expert_groups": 3, "kept_groups": 3, "chosen": 2, **options})
    made = Gate(6, config)
    torch.nn.init.eye_(made.weight)
    return made


SCORES = torch.tensor([[2.0, 1.0, 1.5, 1.4, -1.0, -2.0]])


def test_the_bias_steers_the_choice_and_not_the_weights():
    plain = gate()
    assert plain(SCORES)[0].sort().values.tolist() == [[0, 2]]
    plain.expert_bias[5] = 9.0
    expert, weight = plain(SCORES)
    assert expert.sort().values.tolist() == [[0, 5]]
    chosen = SCORES[0, expert[0]].sigmoid()
    assert torch.allclose(weight[0], 2.5 * chosen / chosen.sum())


def test_groups_are_ranked_by_their_two_best_together():
    # the best expert is in the first group, the best pair in the second
    scores = torch.tensor([[2.0, -2.0, 1.5, 1.4, -1.0, -2.0]])
    assert gate(kept_groups=1)(scores)[0].sort().values.tolist() == [[2, 3]]
