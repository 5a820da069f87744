"""Distillation to few steps: an exact consistency function, and a teacher beside a run."""

import itertools
import shutil
import types
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import dlmkit.model
from dlmkit.cli.app import main
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Dropping, Normalised, Nothing
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.model import compose, load_model
from dlmkit.noise import Noise
from dlmkit.recipe.load import load_recipe
from dlmkit.testing import pretend
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.masking import NoMasking
from dlmkit_cdcd.schedules import FixedDensity
from dlmkit_distil import plugin
from dlmkit_distil.discrete import DiscreteConsistency
from dlmkit_distil.flow_map import FlowMap
from dlmkit_distil.objective import Consistency
from dlmkit_distil.sampler import MultistepGeodesic
from dlmkit_distil.student import points
from dlmkit_flow import flat, sphere
from dlmkit_flow import plugin as flow
from dlmkit_mdlm.configs import LogLinear as LogLinearConfig
from dlmkit_mdlm.schedule import LogLinear
from dlmkit_samplers.samplers import Euler
from dlmkit_uniform import configs as uniform
from dlmkit_uniform.curriculum import Softened
from dlmkit_uniform.objective import UniformBound
from dlmkit_uniform.space import UniformSpace

ROWS = 2000


class Says(ScoreNetwork):
    """The query whose logits are ``function(points, x, level, step)``."""

    def __init__(self, space, function):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.space, self.function = space, function

    def forward(self, read, level, conditioning, previous):
        points = self.space.embed(torch.arange(2)[None])[0].detach()
        x = read / self.space.corruption.input(torch.ones_like(read), level)
        logits = self.function(self.space, x, level, conditioning.step)
        return self.scale * logits @ torch.linalg.pinv(points.T)

    def shard_units(self):
        return ()


def exact(space, x, level, step):
    """What x says of its token, the context saying nothing."""
    points = space.embed(torch.arange(2)[None])[0].detach()
    return space.corruption.log_likelihood(points, x, level)


def end(space, x, level, step):
    """Where the path of that posterior leads: to the nearer token, for it is symmetric."""
    points = space.embed(torch.arange(2)[None])[0].detach()
    nearer = x @ points.T
    return 5.0 * torch.sign(nearer - nearer.mean(dim=-1, keepdim=True))


def nothing(space, x, level, step):
    return torch.zeros(*x.shape[:2], 2, dtype=x.dtype)


def on_a_line(context):
    space = NormalisedSpace(Normalised(dim=1), context).double()
    with torch.no_grad():
        space.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    times = VarianceExploding(t_min=0.05, t_max=20.0, density="log-uniform")
    return space, FixedDensity(times, context), Euler()


def one_hot(context):
    space = flat.OneHotSpace(flow.OneHot(dim=2), context).double()
    with torch.no_grad():
        space.table.weight.copy_(torch.eye(2))
    return space, flat.DecodingError(flow.DecodingError(), context), Euler()


def on_a_sphere(context):
    space = sphere.SphereSpace(Normalised(dim=3), context).double()
    with torch.no_grad():
        space.weight.copy_(torch.eye(3)[:2])
    parts = BuildContext(length=1, vocab_size=2, parts={"space": space})
    solver = sphere.GeodesicEuler(flow.Geodesic(), parts)
    return space, sphere.Truncated(flow.Truncated(), parts), solver


SPACES = [on_a_line, one_hot, on_a_sphere]


def two_tokens(place, function, objective):
    """``objective(context)`` of a model of two tokens, which says ``function``."""
    torch.manual_seed(0)
    context = BuildContext(length=1, vocab_size=2)
    space, schedule, solver = place(context)
    parts = {
        "space": space,
        "network": Says(space, function),
        "schedule": schedule,
        "masking": NoMasking(Nothing(), context),
    }
    build = lambda kind, part: solver  # noqa: E731
    return objective(BuildContext(length=1, vocab_size=2, parts=parts, build=build))


def student(kind, config, steps, **options):
    return lambda context: kind(config(passes=1, steps=steps, **options), context)


def loss(place, function, steps=256, kind=Consistency, config=plugin.Consistency, low=0.0, own=""):
    """Nats per position of rows at u from ``low`` on, by a teacher or of the student's ``own``."""
    options = {} if own else {"teacher": "never opened"}
    made = two_tokens(place, function, student(kind, config, steps, **options))
    if not own:
        theirs = two_tokens(place, exact, lambda c: flat.TokenCrossEntropy(Dropping(), c)).eval()
        made.teacher = types.SimpleNamespace(on=lambda device: theirs)
    slots = torch.arange(ROWS)
    ids = (slots % 2)[:, None]
    u = low + (1.0 - low) * (slots.double() + 0.5) / ROWS
    parts = made(Batch(ids, torch.ones_like(ids, dtype=torch.bool)), Draws(u, noise(slots)))
    return float(parts.loss_sum.detach() / parts.count)


def noise(slots):
    return Noise.keyed(1, slots, 0)


@pytest.mark.parametrize("place", SPACES)
def test_the_end_of_every_path_costs_nothing_and_what_the_teacher_says_does(place):
    """Given tokens of one teacher's paths, the token that is nearer is the fixed point; the
    posterior, which is the teacher itself, is none: a step changes it."""
    assert loss(place, end) < 1e-5
    assert loss(place, exact) > 2e-5
    assert loss(place, nothing) > 1e-3


@pytest.mark.parametrize("place", SPACES)
def test_steps_that_do_not_change_sides_leave_the_end_where_it_is(place):
    """A coarse teacher's steps never do either: x0 lies on x's side. Below the last of its four
    levels the teacher is asked, and left out."""
    assert abs(loss(place, end, steps=4, low=0.25)) < 1e-7
    assert loss(place, exact, steps=4, low=0.25) > 0.01


@pytest.mark.parametrize("place", SPACES[:2])
def test_without_a_teacher_the_loss_of_the_posterior_is_what_one_step_tells(place):
    """Consistency training: the path ends at the text, so that the nearer token, which paths of
    the noise do not keep, costs something at every level where it may be wrong."""
    assert loss(place, end, own="text") > 0.01


def test_no_step_goes_straight_to_the_text_on_a_sphere():
    with pytest.raises(RecipeError, match="name a teacher"):
        loss(on_a_sphere, end, own="text")


def flowed(space, x, level, step):
    """The exact flow map: what a step predicts that ends where 400 short ones do. Of x / alpha it
    keeps the share of the noise that is left, and takes the rest of the prediction."""
    here, there = (end.like(x).ratio for end in step or (level, level))
    y = start = x / level.like(x).alpha
    times = torch.linspace(0.0, 1.0, 400, dtype=x.dtype)[:, None, None, None]
    for s, lower in itertools.pairwise(here * (there / here).clamp(min=1e-4) ** times):
        halfway = y + (lower / s).log() / 2 * (y - mean(space, y, s))
        y = y + (lower / s).log() * (halfway - mean(space, halfway, (s * lower).sqrt()))
    x0 = (y - there / here * start) / (1.0 - there / here)
    first, second = space.embed(torch.arange(2)[None])[0].detach()
    p = ((x0 - second) @ (first - second) / (first - second).square().sum()).clamp(1e-9, 1 - 1e-9)
    return torch.stack((p, 1.0 - p), dim=-1).log()


def mean(space, y, s):
    """Of x0 by the posterior of x / alpha at the ratio s."""
    said = exact(space, y, Level.of_ratio(s[:, 0, 0]), None)
    return space.expect(said.softmax(dim=-1)).detach()


@pytest.mark.parametrize("place", SPACES[:2])
def test_two_steps_of_the_exact_flow_map_are_one(place):
    """s to u and u to t against s to t: by the mixture of predictions that FlowMap learns."""
    made = two_tokens(place, flowed, student(FlowMap, plugin.Continuous, 8, teacher="never opened"))
    slots = torch.arange(50)
    u = (slots.double() + 0.5) / 50
    ids = torch.ones(50, 1, dtype=torch.bool)
    noised = made.noised(Batch((slots % 2)[:, None], ids), Draws(u, noise(slots)))
    middle, there = (made.schedule.level(made.schedule.quantile(v * u)) for v in (0.7, 0.2))
    _, whole = made.step(noised, noised.x, noised.level, there)
    _, half = made.step(noised, noised.x, noised.level, middle)
    torch.testing.assert_close(made.halves(noised, middle, there), whole, atol=2e-4, rtol=0)
    assert (half - whole).abs().max() > 0.05


@pytest.mark.parametrize("place", SPACES[:2])
def test_the_exact_flow_map_costs_nothing_and_what_reads_one_end_of_a_step_does(place):
    cost = [loss(place, f, kind=FlowMap, config=plugin.Continuous) for f in (flowed, exact, end)]
    assert abs(cost[0]) < 1e-5
    assert min(cost[1:]) > 1e-3


def test_a_network_of_two_times_begins_as_one_of_one_time_and_reads_the_end_of_a_step():
    made = compose(**config("fmlm_grammar"))
    network, other = made.assembly.network, compose(**config("flm_grammar")).assembly.network
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    other.load_state_dict(network.state_dict(), strict=False)
    x = torch.randn(2, 12, 8)
    level, lower = (Level.of_ratio(torch.full((2,), s)) for s in (2.0, 0.3))
    clean = Level(torch.ones(2), torch.zeros(2))
    known = Conditioning.of(x, torch.zeros(2, 12).bool(), torch.ones(2, 12).bool())
    steps = [replace(known, step=(level, there)) for there in (level, lower, clean)]
    whole, *said = (network(x, level, c, 0 * x) for c in (known, *steps))
    torch.testing.assert_close(said[0], whole)
    assert (said[1] - whole).abs().max() > 1e-3
    assert (said[2] - said[1]).abs().max() > 1e-3
    torch.nn.init.zeros_(network.end[1].weight)
    for c in (known, *steps):
        torch.testing.assert_close(network(x, level, c, 0 * x), other(x, level, known, 0 * x))
    with pytest.raises(RecipeError, match="both ends of a step"):
        config("fmlm_grammar", "network.with.level=false")


V = 3


class Table(ScoreNetwork):
    """log p(token | x) of the one position, x found by its row of the space."""

    def __init__(self, space, rows):
        super().__init__()
        self.space, self.rows = space, torch.nn.Parameter(torch.tensor(rows))

    def forward(self, x, level, conditioning, previous):
        said = torch.cdist(x, self.space.table.weight.expand(len(x), -1, -1)).argmin(dim=-1)
        return self.rows[said]

    def shard_units(self):
        return ()


def uniform_model(kind, config, rows):
    torch.manual_seed(0)
    context = BuildContext(length=1, vocab_size=V)
    space = UniformSpace(uniform.States(dim=4), context)
    parts = {
        "space": space,
        "network": Table(space, rows),
        "schedule": LogLinear(LogLinearConfig(), context),
        "masking": NoMasking(Nothing(), context),
    }
    return kind(config, BuildContext(length=1, vocab_size=V, parts=parts))


SAID = [[2.0, 0.3, -1.0], [0.1, 1.0, 0.4], [-0.5, 0.2, 1.5]]


@pytest.mark.parametrize("steps", [2, 5])
def test_discrete_consistency_is_the_divergence_of_coupled_tokens(steps):
    """Against the sum over all pairs of x_t and x_s: the noise of a path is the same, so that what
    has become the token stays it further down, and what has not is the same other one."""
    theirs = uniform_model(UniformBound, uniform.Udlm(), SAID).eval()
    mine = [[0.2, 0.1, 0.0], [0.3, 0.4, -0.4], [0.0, 0.9, 1.0]]
    student = uniform_model(DiscreteConsistency, plugin.Taught(steps=steps), mine)
    student.teacher = types.SimpleNamespace(on=lambda device: theirs)
    n = 60_000
    slots = torch.arange(n)
    ids = (slots % V)[:, None]
    u = (slots.double() + 0.5) / n
    parts = student(Batch(ids, ids >= 0), Draws(u, Noise.keyed(4, slots, 0)))
    p, q = (torch.tensor(rows).double().log_softmax(dim=-1) for rows in (mine, SAID))
    nats = torch.stack([(p[x].exp() * (p[x] - q)).sum(dim=-1) for x in range(V)])  # (x_t, x_s)
    t, s = (student.schedule.quantile(v) for v in (u, (u - 1.0 / steps).clamp(min=0.0)))
    kept_t, kept_s = (1.0 - share * (V - 1) / V for share in (t, s))  # m(t) = t
    expected = 0.0
    for token in range(V):
        others = [x for x in range(V) if x != token]
        expected += (kept_t * nats[token, token]).mean() / V
        for x in others:
            became = (kept_s - kept_t) * nats[x, token] + (1.0 - kept_s) * nats[x, x]
            expected += (became / (V - 1)).mean() / V
    assert float(parts.loss_sum.detach() / parts.count) == pytest.approx(float(expected), rel=0.03)


def test_discrete_consistency_chooses_among_what_the_teacher_says():
    """What is right of each x_s by itself costs more in the mean of probabilities than in that of
    logits: KL(student || teacher), and not the other order, whose best answer is the first."""
    theirs = uniform_model(UniformBound, uniform.Udlm(), SAID).eval()
    q = torch.tensor(SAID).log_softmax(dim=-1)
    slots = torch.arange(3000)
    ids = (slots % V)[:, None]
    # one step of a path leads to its lowest level, where x_s is the token: any, by x_t of noise
    draws = Draws(torch.full((3000,), 0.999).double(), Noise.keyed(4, slots, 0))

    def loss(row):
        student = uniform_model(DiscreteConsistency, plugin.Taught(steps=1), [row.tolist()] * V)
        student.teacher = types.SimpleNamespace(on=lambda device: theirs)
        return float(student(Batch(ids, ids >= 0), draws).loss_sum.detach())

    assert loss(q.mean(dim=0)) < loss(q.exp().mean(dim=0).log())


def test_noise_of_a_path_is_one():
    softened, slots = Softened(V), torch.arange(4000)
    ids = (slots % V)[:, None]
    noise, shares = Noise.keyed(2, slots, 0), (0.9, 0.4)
    above, below = (
        softened.latent(ids, Level(torch.full((4000,), 1 - m), torch.full((4000,), m)), noise)
        for m in shares
    )
    above, below = above.argmax(dim=-1), below.argmax(dim=-1)
    for x, share in ((above, 0.9), (below, 0.4)):
        assert float((x == ids).double().mean()) == pytest.approx(1 - share * 2 / 3, abs=0.03)
    assert (below[above == ids] == ids[above == ids]).all()
    assert (above[below != ids] == below[below != ids]).all()


def test_what_places_tokens_is_told_from_what_reads_them_out():
    context = BuildContext(length=1, vocab_size=5)
    tied = NormalisedSpace(Normalised(dim=4), context)
    untied = NormalisedSpace(Normalised(dim=4, head="untied", head_width=3), context)
    assert [p.shape for p in points(tied)] == [(5, 4)]
    assert points(untied) == [untied.weight]
    assert points(NormalisedSpace(Normalised(dim=4, trained=False), context)) == []


SMALL = (
    "length=12",
    "space.with.dim=8",
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "train.steps=4",
    "train.warmup_steps=1",
    "train.batch_size=4",
    "train.checkpoint_every=2",
    "train.validate_every=4",
    "train.validation_rows=3",
    "train.sample_every=4",
    "train.threads=1",
    "sample.count=1",
    "sample.measured=1",
    "sample.steps=2",
    "metric=[]",
)


def config(name, *more):
    return load_recipe(name, [*SMALL, *more]).config.model_dump(mode="json", by_alias=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil") / "teacher"
    sets = [word for item in SMALL for word in ("--set", item)]
    assert main(["train", "ddlm_grammar", "--out", str(folder), *sets]) == 0
    return folder


def weights(objective):
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def test_a_student_begins_as_its_teacher_and_keeps_its_points(teacher, monkeypatch):
    opened, load = [], load_model
    monkeypatch.setattr(dlmkit.model, "load_model", lambda *a: opened.append(a) or load(*a))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    student = compose(**config("consistency_grammar", f"objective.with.teacher={teacher}"))
    theirs = weights(load(teacher).assembly.objective)
    objective = student.assembly.objective
    assert weights(objective).keys() == theirs.keys(), "nothing of the teacher is in the state"
    list(student.train())
    after = weights(student.assembly.objective)
    kept = {name for name in theirs if torch.equal(after[name], theirs[name])}
    assert {"space.weight", "schedule.means", "schedule.u_edges"} <= kept
    assert not any(name.startswith("network.query") for name in kept)
    assert opened == [(str(teacher),)], "opened once, whoever asks"
    held = student.assembly.objective.teacher.objective
    assert all(not p.requires_grad for p in held.parameters())
    for name, tensor in weights(held).items():
        assert torch.equal(tensor, theirs[name]), name
    torch.set_rng_state(before)
    assert student.sample(1, steps=1)[0].evaluations == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("space.with.dim=6", "another space"),
        ("network.with.width=24", "another network"),
        ("schedule.with.bins=9", "another schedule"),
        ("schedule.with.t_max=40.0", "t_min or t_max"),
    ],
)
def test_a_teacher_of_other_parts_is_refused(teacher, change, words):
    with pytest.raises(RecipeError, match=words):
        compose(**config("consistency_grammar", f"objective.with.teacher={teacher}", change))


def test_a_smaller_student_begins_at_random(teacher):
    smaller = ("network.with.width=8", "objective.with.start=random")
    student = compose(
        **config("consistency_grammar", f"objective.with.teacher={teacher}", *smaller)
    )
    list(student.train())


FLOWS = [("consistency_flm", "flm"), ("consistency_sflm", "sflm"), ("fmlm", "flm")]


@pytest.mark.parametrize(("name", "of"), FLOWS)
def test_flows_are_distilled_by_steps_of_their_own_samplers(name, of, tmp_path):
    """S-FLM's path bends along the sphere, and its teacher's step stays there."""
    theirs = compose(**config(f"{of}_grammar", "train.steps=1"))
    theirs.save(tmp_path / "teacher")
    teacher = f"objective.with.teacher={tmp_path / 'teacher'}"
    student = compose(**config(f"{name}_grammar", "train.steps=1", teacher))
    before = weights(student.assembly.objective)
    for kind, tensor in weights(theirs.assembly.objective).items():
        assert torch.equal(before[kind], tensor), kind
    assert all(0.0 <= record.loss < 1.0 for record in student.train())
    after = weights(student.assembly.objective)
    kept = {key for key in before if torch.equal(after[key], before[key])}
    assert ("space.weight" in kept) == (of == "sflm"), "one-hot vectors have no other place"
    texts = student.sample(2, steps=2)
    assert {text.evaluations for text in texts} == {2}
    assert student.sample(1, steps=2, prompt="the lamp")[0].text.startswith("the lamp")


def test_a_predicted_end_on_a_sphere_is_noised_as_a_token_is():
    """Its direction alone counts: what is predicted is a mean of points, and lies within."""
    space, schedule, _ = on_a_sphere(BuildContext(length=1, vocab_size=2))
    sampler = MultistepGeodesic(Nothing(), BuildContext(1, parts={"space": space}))
    slots = torch.arange(6)
    x0 = space.embed((slots % 2)[:, None]).detach()
    high, low = (schedule.level(torch.full((6,), t).double()) for t in (0.9, 0.4))
    clean = Level(high.alpha * 0 + 1, high.alpha * 0)
    denoise = lambda *_: Prediction(0.3 * x0, x0, x0[..., 0], x0, ())  # noqa: E731
    for there in (low, clean):
        step = Step.between(x0, high, there, noise(slots))
        moved, _, _ = sampler.step(denoise, x0, step, ())
        expected = space.corruption.corrupt(x0, low, noise(slots)) if there is low else 0.3 * x0
        torch.testing.assert_close(moved, expected)


def test_no_such_teacher_is_one_message(tmp_path, capsys):
    sets = [w for s in (*SMALL, "objective.with.teacher=nobody") for w in ("--set", s)]
    code = main(["train", "consistency_grammar", "--out", str(tmp_path / "run"), *sets])
    assert code == 3
    assert "nobody" in capsys.readouterr().err


def _state(run):
    return load_file(run / "checkpoints" / "step-00000004" / "model.safetensors")


STUDENTS = ["consistency_grammar", "consistency_duo_grammar", "consistency_sflm_grammar"]


@pytest.mark.parametrize("name", [*STUDENTS, "fmlm_grammar"])
def test_a_run_resumes_to_the_same_weights_with_its_teacher_on_its_device(name, tmp_path):
    """Also with recipes that cannot train without a teacher."""
    model = name.removeprefix("consistency_").removesuffix("grammar") or "ddlm_"
    teacher = tmp_path / "teacher"
    compose(**config({"fmlm_": "flm_"}.get(model, model) + "grammar")).save(teacher)
    sets = [w for s in (*SMALL, f"objective.with.teacher={teacher}") for w in ("--set", s)]

    def run(out, *more):
        words = ["train", name, "--out", str(tmp_path / out), *sets, *more]
        return main(words)

    pretend.set_up()
    assert run("straight") == 0
    assert run("halves", "--set", "train.stop_after=2") == 0
    assert run("halves", "--resume", "auto") == 0
    with pretend.accelerator():
        assert run("there") == 0
    expected, halves, there = (_state(tmp_path / out) for out in ("straight", "halves", "there"))
    assert all(torch.equal(halves[name], tensor) for name, tensor in expected.items())
    torch.testing.assert_close(there, expected)


def test_a_run_is_not_gone_on_with_by_another_teacher(teacher, tmp_path, capsys):
    """Also not under the same name: the checkpoint says which model it was."""
    first, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teacher, first)
    sets = [w for s in (*SMALL, f"objective.with.teacher={first}") for w in ("--set", s)]
    words = ["train", "consistency_grammar", "--out", str(run), *sets]
    assert main([*words, "--set", "train.stop_after=2"]) == 0
    shutil.rmtree(first)
    other = [word for item in (*SMALL, "seed=5") for word in ("--set", item)]
    assert main(["train", "ddlm_grammar", "--out", str(first), *other]) == 0
    capsys.readouterr()
    assert main([*words, "--resume", "auto"]) == 5
    assert f"{first}: this is not the teacher" in capsys.readouterr().err
    shutil.rmtree(first)
    shutil.copytree(teacher, first)
    assert main([*words, "--resume", "auto"]) == 0


def test_a_discrete_student_needs_a_teacher_that_predicts_tokens(tmp_path):
    """Scores of the uniform state have the same parts but for the objective."""
    states = config("duo_grammar", "train.steps=1", "objective.use=sedd:score-entropy")
    compose(**states).save(tmp_path / "scores")
    compose(**config("duo_grammar", "train.steps=1")).save(tmp_path / "tokens")

    def made(*teachers):
        sets = [f"objective.with.teacher={tmp_path / name}" for name in teachers]
        return compose(**config("consistency_duo_grammar", "train.steps=1", *sets))

    for teachers, words in (((), "needs a teacher"), (("scores",), "does not predict")):
        with pytest.raises(RecipeError, match=words):
            made(*teachers)
    student = made("tokens")
    assert all(0.0 <= record.loss < 1.0 for record in student.train())
    assert student.sample(1, steps=2)[0].evaluations == 2
