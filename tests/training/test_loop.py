"""The loop: exact means over passes and processes, draws, the learned schedule, the average."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Stream
from dlmkit.core.network import ScoreNetwork
from dlmkit.core.objective import Batch, LossParts, Objective, Slots
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.errors import NonFiniteLossError, RecipeError
from dlmkit.noise import Noise
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import TrainConfig
from dlmkit.registry.lookup import Registry
from dlmkit.training import loop
from dlmkit.training.draws import dealt, draws, micro_batches, stratified
from dlmkit.training.ema import Ema, warmed
from dlmkit.training.loop import Learner, train
from dlmkit.training.optimiser import build_optimiser, learning_rate
from dlmkit.training.parallel import Single
from dlmkit_cdcd import configs, schedules

CPU = torch.device("cpu")
G, L = 12, 5


class Counting(NoiseSchedule):
    """Remembers every observation."""

    t_min, t_max = 0.0, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def level(self, t):
        return schedules.VarianceExploding.level(self, t)

    def inverse(self, ratio):
        return ratio

    def observe(self, t, loss, pdf, rows):
        self.seen.append((t.clone(), loss.clone(), pdf.clone(), rows.clone()))


class Nothing(ScoreNetwork):
    def forward(self, x, level, conditioning, previous):
        raise NotImplementedError

    def shard_units(self):
        return []


class Toy(Objective):
    """A convex loss in float64 over a table, with another count in every row."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.space = nn.Module()
        self.network, self.schedule = Nothing(), Counting()
        start = torch.randn(7, 3, generator=generator, dtype=torch.float64)
        self.table = nn.Parameter(start)
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.poison, self.calls = poison, 0

    def denoise(self):
        raise NotImplementedError

    def forward(self, batch, draws):
        self.calls += 1
        noise = draws.noise.normal(0, (L, 3), torch.float64)
        error = (self.table[batch.ids] + self.bias - noise).square().sum(-1)
        error = error * (1 + draws.u.double())[:, None]
        per_row = torch.where(batch.attend, error, 0.0).sum(1)
        if self.poison == self.calls:
            per_row = per_row / torch.where(draws.u > 0.5, 0.0, 1.0)
        count = batch.attend.sum(1)
        return LossParts(
            per_row.sum(), count.sum().double(), per_row.detach() / count, draws.u,
            torch.ones_like(draws.u), draws.u < 0.3,
        )  # fmt: skip


class Rows(Stream):
    """Random rows of random lengths, a function of the step."""

    def read(self, step, slots):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 7, (G, L), generator=generator)
        lengths = torch.randint(1, L + 1, (G, 1), generator=generator)
        return Batch(ids[slots], (torch.arange(L) < lengths)[slots])

    def state(self):
        return {}

    def restore(self, state):
        pass


def config(**changes) -> TrainConfig:
    options = {"steps": 5, "batch_size": G, "warmup_steps": 2, "learning_rate": 0.1, "ema": 0.5}
    return TrainConfig(**{**options, **changes})


def trained(objective=None, world=None, **changes):
    """(objective, records) of a whole run."""
    objective = objective or Toy()
    options = config(**changes)
    world = world or Single(CPU)
    learner = Learner.begin(objective, options, world)
    return objective, list(train(learner, Rows(), options, 3, world))


def by_hand(**changes):
    """The same run written out: one batch, autograd of the mean, torch's own clipping."""
    objective, options = Toy(), config(**changes)
    optimiser = build_optimiser(objective, options)
    losses, norms = [], []
    for step in range(options.steps):
        u = stratified(3, step, G, CPU)
        parts = objective(Rows().read(step, torch.arange(G)), draws(3, step, Slots(G), u))
        loss = parts.loss_sum / parts.count
        loss.backward()
        clip = options.clip or math.inf
        norm = nn.utils.clip_grad_norm_(list(objective.parameters()), clip)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        norms.append(norm.item())
    return objective, losses, norms


@pytest.mark.parametrize("micro", [None, 12, 5, 4, 1])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_gradient_is_that_of_the_mean_over_all_noised_positions(micro, clip):
    objective, records = trained(micro_batch_size=micro, clip=clip)
    expected, losses, norms = by_hand(clip=clip)
    torch.testing.assert_close([r.loss for r in records], losses, rtol=1e-12, atol=0.0)
    torch.testing.assert_close([r.gradient_norm for r in records], norms, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(objective.state_dict(), expected.state_dict(), rtol=1e-10, atol=0.0)


def test_the_loop_fits_on_a_page():
    assert len(Path(loop.__file__).read_text().splitlines()) < 150


SMALL = (
    "space.with.dim=8",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
)


@pytest.mark.parametrize("recipe", ["ddlm_grammar", "langflow_grammar", "plaid_grammar"])
def test_the_gradient_is_that_of_one_pass_whatever_the_passes_processes_and_shares(recipe):
    """In float64 and of every parameter, learned schedules' included.

    A process is told its rank and size alone: what those of a step find is added, as they add it.
    """
    registry = Registry.load(third_party=False)
    resolved = load_recipe(recipe, [*SMALL, "length=12", "masking.use=prefix"], registry).config
    parts = assemble(resolved, registry)
    objective = parts.objective.train().double()
    with torch.no_grad():  # what starts at 0, such as the reading of first predictions, would hide
        for i, parameter in enumerate(objective.parameters()):
            key = Noise.keyed(7, torch.tensor([i]), 0)
            parameter += 0.1 * key.normal(0, parameter.shape, parameter.dtype)[0]
    rows = parts.data.stream(0, G)
    u = stratified(0, 0, G, CPU).double()

    def gradients(micro, size):
        objective.zero_grad(set_to_none=True)
        for rank in range(size):
            for slots in micro_batches(G, micro, size, rank):
                objective(rows.read(0, slots.index()), draws(0, 4000, slots, u)).loss_sum.backward()
        return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}

    seen = []
    for share in (0.0, 0.25, 0.3, 0.5, 1.0):
        objective.self_conditioning = share
        whole = gradients(None, 1)
        for micro, size in itertools.product((1, 2, 5, None), (1, 2, 3)):
            torch.testing.assert_close(gradients(micro, size), whole, rtol=1e-9, atol=1e-11)
        seen.append(whole)
    for one, other in itertools.pairwise(seen):  # the share is no matter of indifference
        assert any(not torch.allclose(one[name], other[name], rtol=1e-3) for name in one)
    if recipe == "plaid_grammar":
        assert [bool(each["schedule.inner"].any()) for each in seen] == [True] * 4 + [False]


@pytest.mark.parametrize("micro", [6, 5, 1])
def test_accumulation_equals_one_big_batch_with_self_conditioning(micro):
    registry = Registry.load(third_party=False)
    changes = [*SMALL, "schedule.use=time-warp-table"]
    resolved = load_recipe("ddlm_grammar", changes, registry).config
    ends = []
    for size in (None, micro):
        parts = assemble(resolved, registry)
        options = config(micro_batch_size=size, learning_rate=1e-3)
        learner = Learner.begin(parts.objective, options, Single(CPU))
        records = list(train(learner, parts.data.stream(0, G), options, 0, Single(CPU)))
        ends.append(([r.loss for r in records], parts.objective.state_dict()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


def test_annealing_counts_the_steps_that_the_weights_had_behind_them():
    seen = []

    class Watching(Toy):
        def forward(self, batch, draws):
            seen.append(int(draws.step[0]))
            return super().forward(batch, draws)

    for before in (0, 40):
        learner = Learner.begin(Watching(), config(), Single(CPU), before)
        records = list(train(learner, Rows(), config(), 3, Single(CPU)))
        assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert seen == [0, 1, 2, 3, 4, 40, 41, 42, 43, 44]


class Sometimes(Rows):
    """Only padding in the third step."""

    def read(self, step, slots):
        found = super().read(step, slots)
        return replace(found, attend=found.attend & (step != 2))


def test_a_step_without_a_noised_position_changes_nothing():
    """Momentum, weight decay and the moving average would all move what saw nothing."""
    objective, states = Toy(), []
    learner = Learner.begin(objective, config(weight_decay=0.1), Single(CPU))
    for _ in train(learner, Sometimes(), config(weight_decay=0.1), 3, Single(CPU)):
        tensors = (*objective.parameters(), *learner.ema.averages.values())
        states.append([tensor.detach().clone() for tensor in tensors])
    changed = [
        any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
        for pair in itertools.pairwise(states)
    ]
    assert changed == [True, False, True, True]
    assert len(objective.schedule.seen) == 4


def test_a_schedule_is_not_asked_where_no_row_may_be_used():
    """All rows have given positions in the third step: Adam's momentum would move the fit."""

    class Given(Toy):
        def forward(self, batch, draws):
            parts = super().forward(batch, draws)
            return replace(parts, unconditional=parts.unconditional & (draws.step != 2))

    objective, _ = trained(Given())
    assert len(objective.schedule.seen) == 4


def test_a_row_of_padding_says_nothing_of_the_schedule():
    attend = torch.tensor([[True, True], [True, False], [False, False]])
    given = torch.tensor([[False, False], [True, False], [False, False]])
    t = torch.ones(3)
    parts = LossParts.of(torch.tensor([2.0, 0.0, 0.0]), given, attend, t, t)
    assert parts.unconditional.tolist() == [True, False, False]


def test_a_schedule_observes_all_rows_once_a_step_in_the_order_of_their_slots():
    whole, parts = Toy(), Toy()
    trained(whole)
    trained(parts, micro_batch_size=5)
    assert len(whole.schedule.seen) == len(parts.schedule.seen) == 5
    for step, (one, other) in enumerate(zip(whole.schedule.seen, parts.schedule.seen, strict=True)):
        u = stratified(3, step, G, CPU)
        assert torch.equal(one[0], u.double())
        assert torch.equal(one[3], u < 0.3)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0.0)


def test_tokens_are_positions_that_are_not_padding():
    _, records = trained(micro_batch_size=5)
    everything = torch.arange(G)
    expected = [int(Rows().read(step, everything).attend.sum()) for step in range(5)]
    assert [r.tokens for r in records] == expected
    assert [r.step for r in records] == [1, 2, 3, 4, 5]


def test_a_non_finite_loss_stops_before_any_weight_is_touched():
    objective = Toy(poison=3)
    with pytest.raises(NonFiniteLossError) as error:
        trained(objective)
    reference = Toy()
    learner = Learner.begin(reference, config(), Single(CPU))
    steps = train(learner, Rows(), config(), 3, Single(CPU))
    next(steps), next(steps)
    assert torch.equal(objective.table, reference.table)
    u = stratified(3, 2, G, CPU)
    for slot in range(G):
        named = f"{slot} (t = {float(u[slot]):.4g})" in str(error.value)
        assert named == bool(u[slot] > 0.5)
    assert "step 3:" in str(error.value)


def test_a_gradient_that_overflows_is_told_apart():
    objective = Toy()
    objective.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLossError, match=r"every row's loss is finite .* overflowed"):
        trained(objective)


def test_the_loop_ends_between_steps_once_asked():
    taken = []
    learner = Learner.begin(Toy(), config(), Single(CPU))
    for record in train(learner, Rows(), config(), 3, Single(CPU), lambda: len(taken) == 2):
        taken.append(record.step)
    assert taken == [1, 2]
    assert learner.step == 2


def test_what_the_data_raises_reaches_the_caller():
    class Broken(Rows):
        def read(self, step, slots):
            if step == 2:
                raise ValueError("no such row")
            return super().read(step, slots)

    learner = Learner.begin(Toy(), config(), Single(CPU))
    with pytest.raises(ValueError, match="no such row"):
        list(train(learner, Broken(), config(), 3, Single(CPU)))
    assert learner.step == 2


@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_u_has_one_value_in_every_interval_in_an_unbiased_order(size):
    u = stratified(5, 9, size, CPU).double()
    assert bool((u >= 0).all() and (u < 1).all())
    gaps = u.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / size), rtol=0, atol=1e-6)
    assert not torch.equal(u, stratified(5, 10, size, CPU).double())
    assert not torch.equal(u, stratified(6, 9, size, CPU).double())
    if size == 1000:
        assert abs(float(u[:500].mean()) - 0.5) < 0.03
        assert abs(float(torch.corrcoef(torch.stack((u, torch.arange(1000.0))))[0, 1])) < 0.1


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("micro", [None, 1, 3, 4, 100])
def test_passes_partition_the_batch_and_share_its_first_rows_evenly(size, micro):
    passes = [p for rank in range(size) for p in micro_batches(24, micro, size, rank)]
    slots = [p.index() for p in passes]
    assert torch.equal(torch.cat(slots).sort().values, torch.arange(24))
    assert all(1 <= len(p) <= (micro or 24) for p in passes)
    assert [*map(len, slots)] == [*map(len, passes)]
    assert len({len(micro_batches(24, micro, size, rank)) for rank in range(size)}) == 1
    for share in (0.0, 0.25, 0.3, 0.5, 1.0):
        shown = [p.shown(share).rows for p in passes]
        first = torch.cat([s[:rows] for s, rows in zip(slots, shown, strict=True)])
        assert torch.equal(first.sort().values, torch.arange(math.ceil(share * 24)))
        assert max(shown) - min(shown) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("micro", [None, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_every_process_makes_first_predictions_in_the_same_passes(size, micro, share):
    passes = [micro_batches(30, micro, size, rank) for rank in range(size)]
    extra = 0
    for together in zip(*passes, strict=True):
        shown = [each.shown(share) for each in together]
        assert len({each.made > 0 for each in shown}) == 1
        assert any(each.rows for each in shown) or not any(each.made for each in shown)
        extra += sum(each.made - each.rows for each in shown)
    assert extra < size  # rows that are computed for the sake of keeping step, in a whole batch


def test_a_share_of_a_batch_is_exact_though_its_product_is_not():
    assert 0.55 * 100 > 55
    assert Slots(100).shown(0.55) == (55, 55)
    assert Slots(100).shown(0.551) == (56, 56)


@pytest.mark.parametrize(("rows", "size", "micro"), [(24, 3, 4), (23, 3, None), (9, 4, 2)])
def test_every_process_knows_how_many_rows_the_others_have(rows, size, micro):
    counts = [sum(map(len, micro_batches(rows, micro, size, rank))) for rank in range(size)]
    assert dealt(rows, size) == counts


def test_more_processes_than_rows_are_refused():
    with pytest.raises(RecipeError, match=r"train\.batch_size: 3 rows .* multiple of 4"):
        micro_batches(3, 1, 2, 0)


def test_noise_depends_on_the_slot_and_not_on_the_pass():
    u = stratified(1, 4, 8, CPU)
    whole = draws(1, 4, Slots(8), u)
    some = draws(1, 4, Slots(8, first=1, passes=5), u)
    assert torch.equal(some.u, whole.u[[1, 6]])
    assert torch.equal(some.noise.normal(0, (3,)), whole.noise.normal(0, (3,))[[1, 6]])


def test_the_rate_warms_up_and_follows_a_cosine():
    options = config(steps=10, warmup_steps=4, learning_rate=1.0, final_rate=0.1)
    rates = [learning_rate(step, options) for step in range(11)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[10] == pytest.approx(0.1)
    assert sorted(rates[4:], reverse=True) == rates[4:]
    flat = config(steps=10, warmup_steps=0, decay="constant", learning_rate=1.0)
    assert {learning_rate(step, flat) for step in range(10)} == {1.0}


def test_only_matrices_decay():
    objective = Toy()
    groups = build_optimiser(objective, config(weight_decay=0.3)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {id(objective.table): 0.3, id(objective.bias): 0.0}


def test_the_average_follows_the_weights_and_the_buffers():
    context = BuildContext(length=L)
    objective = Toy()
    objective.schedule = schedules.TimeWarpTable(configs.TimeWarpTable(), context)
    ema = Ema(objective, 0.9)
    expected = objective.table.detach().clone()
    for update in range(1, 40):
        with torch.no_grad():
            objective.table += torch.randn(7, 3, generator=torch.Generator().manual_seed(update))
            objective.schedule.means += 1.0
        ema.update(update, Single(CPU))
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * objective.table.detach()
        torch.testing.assert_close(ema.objective.table.data, expected)
        assert torch.equal(ema.objective.schedule.means, objective.schedule.means)
    assert not ema.objective.table.requires_grad
    assert warmed(0.9, 0) == 0.1
    assert warmed(0.9, 1000) == 0.9


class Twin(Single):
    """One of two processes that hold the same rows."""

    size = 2

    def gather(self, rows, counts):
        assert counts == [len(rows)] * 2
        return [rows, rows]


def test_gradients_averaged_over_processes_become_those_of_the_global_mean():
    objective, (record,) = trained(world=Twin(CPU), steps=1)
    rows = micro_batches(G, None, 2, 0)[0]
    alone = Toy()
    parts = alone(Rows().read(0, rows.index()), draws(3, 0, rows, stratified(3, 0, G, CPU)))
    mean = parts.loss_sum / parts.count
    mean.backward()
    norm = nn.utils.get_total_norm([alone.table.grad, alone.bias.grad])
    assert record.gradient_norm == pytest.approx(norm.item(), rel=1e-12)
    assert record.loss == pytest.approx(mean.item(), rel=1e-12)
    assert objective.schedule.seen[0][0].shape == (2 * len(rows),)
