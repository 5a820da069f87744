"""What the objectives of recipes share: how a batch is noised, and what its loss adds up to."""

from dataclasses import replace

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.objective import CORRUPTION, DROPOUT, MASKING, Batch, Draws, RecipeObjective, Slots
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.testing import parts

B, L, V = 6, 8, 7
CONTEXT = BuildContext(length=L, vocab_size=V)
NOTHING = parts.Nothing()


class Mine(RecipeObjective):
    def forward(self, batch, draws):
        raise NotImplementedError


@pytest.fixture
def objective():
    torch.manual_seed(0)
    context = replace(CONTEXT, parts={"space": parts.Tied(NOTHING, CONTEXT)})
    others = {
        "network": parts.Mixing(NOTHING, context),
        "schedule": parts.Plain(NOTHING, context),
        "masking": parts.Half(NOTHING, context),
    }
    return Mine(replace(context, parts={**context.parts, **others}))


def batch():
    ids = 1 + torch.arange(B * L).view(B, L) % (V - 1)
    return Batch(ids, torch.arange(L) < (L - torch.arange(B) % 3)[:, None])


def draws():
    slots = torch.arange(B)
    return Draws((slots + 0.5) / B, Noise.keyed(5, slots, 2))


def test_a_batch_is_noised_by_the_recipes_parts(objective):
    noised, noise = objective.noised(batch(), draws()), draws().noise
    x0 = objective.space.embed(batch().ids)
    level = objective.schedule.level(noised.t)
    assert noised.t.equal(objective.schedule.quantile(draws().u))
    assert noised.given.equal(objective.masking.draw(batch().attend, noise.fork(MASKING)))
    assert noised.x.equal(objective.space.corruption.corrupt(x0, level, noise.fork(CORRUPTION)))
    clean = torch.where(noised.given[..., None], x0, 0.0)
    assert noised.conditioning.clean.equal(clean)
    query = noised.denoise.query(noised.x, level, 0.0 * x0, noised.conditioning)
    assert noised.query().equal(query), "without self-conditioning nothing is shown"


def test_a_level_and_a_denoiser_of_its_own_take_the_place_of_the_recipes(objective):
    level = Level.of_ratio(torch.full((B,), 3.0))
    denoise = ModelDenoise(objective.space, objective.network)
    noised = objective.noised(batch(), draws(), level, denoise)
    assert noised.level is level
    assert noised.denoise is denoise
    x0 = objective.space.embed(batch().ids)
    key = draws().noise.fork(CORRUPTION)
    assert noised.x.equal(objective.space.corruption.corrupt(x0, level, key))


def test_what_the_data_gives_is_given_and_the_masking_draws_of_the_rest(objective):
    asked = torch.arange(L).expand(B, L) < 2
    noised = objective.noised(replace(batch(), given=asked), draws())
    rest = objective.masking.draw(batch().attend & ~asked, draws().noise.fork(MASKING))
    assert noised.given.equal(asked | rest)
    assert (batch().attend & ~noised.given).any(dim=1).all(), "something is left to learn"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_slots_sees_a_first_prediction_and_sampling_if_any_does(objective, share):
    objective.self_conditioning = share
    assert objective.denoise().feedback == (share > 0)
    noised = objective.noised(batch(), draws())
    denoise = noised.denoise
    previous = denoise.start(noised.x)
    first = denoise(noised.x, noised.level, previous, noised.conditioning)
    seen = round(share * B)
    previous[:seen] = first.x0_step[:seen].detach()
    expected = denoise.query(noised.x, noised.level, previous, noised.conditioning)
    torch.testing.assert_close(noised.query(), expected)
    half = replace(draws(), slots=Slots(2 * B, first=1, passes=2))
    assert objective.noised(batch(), half).shown.rows == round(share * B)


def test_dropped_rows_keep_their_mask_and_lose_their_tokens(objective):
    objective.conditioning_dropout = 0.5
    kept = objective.noised(batch(), draws()).conditioning
    dropped = draws().noise.fork(DROPOUT).uniform(0) < 0.5
    assert 0 < dropped.sum() < B
    clean = torch.where(kept.given[..., None], objective.space.embed(batch().ids), 0.0)
    assert kept.clean.equal(torch.where(dropped[:, None, None], 0.0, clean))
    assert kept.given.any(dim=1).all()


def test_the_loss_is_of_positions_neither_given_nor_padding(objective):
    noised = objective.noised(batch(), draws())
    counted = batch().attend & ~noised.given
    each = torch.rand(B, L, requires_grad=True)
    loss = objective.loss(torch.where(counted, each, torch.nan), noised)
    rows = torch.where(counted, each, 0.0).sum(dim=1)
    torch.testing.assert_close(loss.loss_sum, rows.sum())
    assert loss.count == counted.sum()
    torch.testing.assert_close(loss.per_row, rows.detach() / counted.sum(dim=1))
    assert loss.pdf.equal(objective.schedule.pdf(noised.t))
    assert not loss.unconditional.any()
    weight = torch.arange(B, dtype=torch.float32)
    weighted = objective.loss(each, noised, weight)
    torch.testing.assert_close(weighted.loss_sum, (weight * rows).sum())


def test_training_at_no_step_has_no_ramp():
    assert draws().risen(10) == 1.0
    assert replace(draws(), step=torch.full((B,), 4)).risen(10).item() == pytest.approx(0.4)
