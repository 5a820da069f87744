"""Exit rules as pure functions of named statistics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.plugin import Part
from dlmkit.recipe.load import resolve_text
from dlmkit.registry.lookup import Registry

NAN = float("nan")
REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=4)


def rule(use, **options):
    return REGISTRY.build("exit", Part(use=use, options=options), CONTEXT)


def nested(use, **options):
    """A rule as a recipe's text would hold it, to be put into another."""
    return {"use": use, "with": options}


def run(exit_rule, **series):
    """Halts by step for statistics given as one list of rows' values a step; and the memory."""
    steps = len(next(iter(series.values())))
    series.setdefault(
        "step", [[float(s + 1)] * len(next(iter(series.values()))[0]) for s in range(steps)]
    )
    memory = exit_rule.init(len(series["step"][0]))
    halts = []
    for index in range(steps):
        statistics = {name: torch.tensor(values[index]) for name, values in series.items()}
        halt, memory = exit_rule(statistics, memory)
        assert halt.dtype == torch.bool
        halts.append(halt.tolist())
    return halts, memory


def reason(exit_rule, memory, row=0):
    return exit_rule.reason(rows.take(memory, torch.tensor([row])))


def test_fixed_halts_every_row_at_its_step():
    fixed = rule("fixed", step=2)
    halts, memory = run(fixed, step=[[1.0, 3.0], [2.0, 1.0]])
    assert halts == [[False, True], [True, False]]
    assert reason(fixed, memory) == "step >= 2"


@pytest.mark.parametrize(
    ("shape", "thresholds"),
    [
        ("thirds", [7.5, 7.5, 5.0, 5.0, 2.5, 2.5]),
        ("linear", [6.67, 5.83, 5.0, 4.17, 3.33, 2.5]),
        ("cosine", [7.17, 6.25, 5.0, 3.75, 2.83, 2.5]),
    ],
)
def test_a_threshold_falls_with_progress(shape, thresholds):
    falling = rule("falling", threshold=7.5, shape=shape)
    done = [(i + 1) / 6 for i in range(6)]
    if shape == "thirds":  # a step that ends a third is of the next one
        done = [share - 0.05 for share in done]
    above = [[[t + 0.01] for t in thresholds], [[t - 0.01] for t in thresholds]]
    for values, holds in zip(above, (True, False), strict=True):
        halts, memory = run(falling, gap=values, fraction=[[share] for share in done])
        assert halts == [[holds]] * 6
    assert reason(falling, memory) == "gap >= 7.5 falling to 2.5"
    assert rule("falling", threshold=0.9, statistic="margin").needs == ("margin", "fraction")


@pytest.mark.parametrize("name", ["entropy", "kl", "jeffreys"])
def test_thresholds_are_strict_and_nan_goes_on(name):
    below = rule(name, threshold=0.5)
    assert below.needs == (name,)
    halts, memory = run(below, **{name: [[0.6, 0.5, 0.4, NAN, torch.inf]]})
    assert halts == [[False, False, True, False, False]]
    assert reason(below, memory) == f"{name} < 0.5"


@pytest.mark.parametrize(
    ("name", "option", "statistic", "words"),
    [
        ("fraction", "fraction", "fraction", "fraction >= 0.5"),
        ("margin", "threshold", "margin", "margin >= 0.5"),
    ],
)
def test_rules_that_wait_for_a_rise(name, option, statistic, words):
    above = rule(name, **{option: 0.5})
    assert above.needs == (statistic,)
    halts, memory = run(above, **{statistic: [[0.4, 0.5, 0.6, NAN]]})
    assert halts == [[False, True, True, False]]
    assert reason(above, memory) == words


def test_level_halts_at_a_noise_level():
    low = rule("level", sigma=0.5)
    halts, memory = run(low, sigma=[[0.6, 0.5, 0.4, NAN]])
    assert halts == [[False, True, True, False]]
    assert reason(low, memory) == "sigma <= 0.5"


def test_switches_is_token_switch_patience():
    """At most s switches for k steps in a row; at a row's first step they are infinite."""
    patient = rule("switches", most=1, steps=2)
    values = [[torch.inf] * 3, [1.0, 0.0, 2.0], [1.0, 2.0, 0.0], [NAN, 0.0, 1.0]]
    halts, memory = run(patient, switches=values)
    assert halts == [[False] * 3, [False] * 3, [True, False, False], [False, False, True]]
    assert reason(patient, memory) == "switches <= 1 for 2 steps"


def test_switches_is_patience_around_a_threshold():
    """The generic combinator says the same of a rule that holds below s + 1 / 2."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 4, (30, 5), generator=generator).double().tolist()
    for most in (0, 1, 2):
        for steps in (1, 2, 4):
            halts, _ = run(rule("switches", most=most, steps=steps), switches=values)
            expected = [
                [t + 1 >= steps and all(values[s][row] <= most for s in range(t + 1 - steps, t + 1))
                 for row in range(5)]
                for t in range(30)
            ]  # fmt: skip
            assert halts == expected


def test_stable_and_confident_needs_both_at_once():
    both = rule("stable-and-confident", threshold=0.5, steps=2)
    assert both.needs == ("switches", "entropy")
    halts, memory = run(
        both,
        switches=[[torch.inf, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        entropy=[[0.1, 0.9, 0.1], [0.1, 0.9, 0.1], [0.1, 0.4, 0.1], [0.1, NAN, 0.1]],
    )
    assert halts == [
        [False, False, False],
        [False, False, False],
        [True, True, False],
        [True, False, True],
    ]
    assert reason(both, memory) == "no switches for 2 steps and entropy < 0.5"


def test_any_halts_by_the_first_rule_that_holds():
    either = rule("any", rules=[nested("entropy", threshold=0.1), nested("kl", threshold=0.2)])
    assert either.needs == ("entropy", "kl")
    halts, memory = run(either, entropy=[[1.0, 0.0, 1.0, 0.0]], kl=[[1.0, 1.0, 0.0, 0.0]])
    assert halts == [[False, True, True, True]]
    assert [reason(either, memory, row) for row in (1, 2, 3)] == [
        "entropy < 0.1",
        "kl < 0.2",
        "entropy < 0.1",
    ]


def test_all_needs_every_rule_at_the_same_step():
    both = rule("all", rules=[nested("entropy", threshold=0.1), nested("kl", threshold=0.2)])
    halts, memory = run(both, entropy=[[0.0], [1.0], [0.0]], kl=[[1.0], [0.0], [0.0]])
    assert halts == [[False], [False], [True]]
    assert reason(both, memory) == "entropy < 0.1 and kl < 0.2"


def test_patience_counts_steps_in_a_row():
    patient = rule("patience", rule=nested("entropy", threshold=0.5), steps=2)
    values = [[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.1]]
    halts, memory = run(patient, entropy=values)
    assert halts == [[False, False], [True, False], [False, False], [False, True]]
    assert reason(patient, memory) == "entropy < 0.5 for 2 steps"


def test_nan_breaks_patience():
    patient = rule("patience", rule=nested("entropy", threshold=0.5), steps=2)
    halts, _ = run(patient, entropy=[[0.1], [NAN], [0.1], [0.1]])
    assert halts == [[False], [False], [False], [True]]


def test_after_waits_but_lets_the_inner_rule_watch():
    inner = nested("patience", rule=nested("entropy", threshold=0.5), steps=2)
    late = rule("after", rule=inner, step=3)
    assert late.needs == ("entropy", "step")
    halts, memory = run(late, entropy=[[0.1], [0.1], [0.1]])
    assert halts == [[False], [False], [True]]
    assert reason(late, memory) == "entropy < 0.5 for 2 steps after step 3"


THRESHOLDS = st.sampled_from([0.25, 0.5, 0.75])
LEAVES = st.builds(
    lambda name, value: nested(name, threshold=value),
    st.sampled_from(["entropy", "kl"]),
    THRESHOLDS,
)
RULES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda r: nested("any", rules=r), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda r: nested("all", rules=r), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda r, k: nested("patience", rule=r, steps=k), inner, st.integers(1, 3)),
        st.builds(lambda r, k: nested("after", rule=r, step=k), inner, st.integers(1, 3)),
    ),
    max_leaves=4,
)
VALUES = st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9, NAN]), min_size=3, max_size=3)
SERIES = st.lists(VALUES, min_size=4, max_size=4)


def expected(spec, entropy, kl, step):
    """Whether a rule holds at ``step`` (from 0) of one row, by its definition."""
    use, options = spec["use"], spec["with"]
    if use in ("entropy", "kl"):
        return (entropy if use == "entropy" else kl)[step] < options["threshold"]
    if use in ("any", "all"):
        holds = [expected(r, entropy, kl, step) for r in options["rules"]]
        return any(holds) if use == "any" else all(holds)
    if use == "after":
        return step + 1 >= options["step"] and expected(options["rule"], entropy, kl, step)
    steps = range(step - options["steps"] + 1, step + 1)
    return all(s >= 0 and expected(options["rule"], entropy, kl, s) for s in steps)


@given(RULES, SERIES, SERIES)
def test_nested_rules_mean_what_they_say(spec, entropy, kl):
    halts, memory = run(rule(spec["use"], **spec["with"]), entropy=entropy, kl=kl)
    for step, halted in enumerate(halts):
        for row in range(3):
            columns = [values[row] for values in entropy], [values[row] for values in kl]
            assert halted[row] == expected(spec, *columns, step)
    assert all(len(leaf) == 3 for leaf in _leaves(memory))


@given(RULES, SERIES, SERIES)
def test_rows_do_not_meet(spec, entropy, kl):
    exit_rule = rule(spec["use"], **spec["with"])
    together, _ = run(exit_rule, entropy=entropy, kl=kl)
    for row in range(3):
        one = [[values[row]] for values in entropy], [[values[row]] for values in kl]
        alone, _ = run(exit_rule, entropy=one[0], kl=one[1])
        assert [halt[row] for halt in together] == [halt[0] for halt in alone]


@given(RULES)
def test_nan_alone_never_halts(spec):
    halts, _ = run(rule(spec["use"], **spec["with"]), entropy=[[NAN]] * 4, kl=[[NAN]] * 4)
    assert halts == [[False]] * 4


def _leaves(memory):
    if isinstance(memory, torch.Tensor):
        return [memory]
    return [leaf for part in memory for leaf in _leaves(part)]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("entropy.with.threshold=0", "greater than 0"),
        ("patience.with={steps: 2}", "rule"),
        ("any.with={rules: []}", "at least 1"),
        ("any.with={rules: [{use: entropi}]}", "entropy"),
    ],
)
def test_bad_options_are_refused_when_a_recipe_is_checked(options, what):
    name, _, rest = options.partition(".")
    from dlmkit.errors import RecipeError

    with pytest.raises(RecipeError, match=what):
        resolve_text(BARE, "test.yaml", [f"exit.use={name}", f"exit.{rest}"], REGISTRY)


BARE = """
data: {use: "grammar:grammar"}
schedule: {use: "cdcd:variance-exploding"}
space: {use: "cdcd:normalised"}
network: {use: "cdcd:transformer"}
masking: {use: "cdcd:none"}
objective: {use: "cdcd:score-interpolation"}
train: {steps: 1}
"""
