"""Exit rules with one number left open."""

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.errors import RecipeError, UsageError
from dlmkit.exits.rules import OpenRule
from dlmkit.exits.trace import Trace
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry

REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=1)
BOTH = (
    "all:rules=[{use: entropy, with: {threshold: tuned}},"
    " {use: patience, with: {rule: {use: kl, with: {threshold: 0.5}}, steps: 2}}]"
)


def opened(text):
    return OpenRule.parse(text, REGISTRY, CONTEXT)


def test_a_bare_rule_is_open_at_its_only_required_option():
    assert opened("entropy").at(0.25) == Part(use="samplers:entropy", options={"threshold": 0.25})
    assert opened("samplers:fixed").at(3.2) == Part(use="samplers:fixed", options={"step": 3})
    assert opened("entropy")(0.25).value == 0.25


def test_the_open_number_may_lie_deep():
    part = opened(BOTH).at(0.25)
    first, second = part.options["rules"]
    assert (part.use, first["use"], second["use"]) == (
        "samplers:all",
        "samplers:entropy",
        "samplers:patience",
    )
    assert first["with"]["threshold"] == 0.25
    assert second["with"]["rule"] == {"use": "samplers:kl", "with": {"threshold": 0.5}}
    inner = "patience:rule={use: kl, with: {threshold: 0.5}};steps=tuned"
    assert opened(inner).at(4.0).options["steps"] == 4


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("entropi", RecipeError, "did you mean 'entropy'"),
        ("entropy:threshold=0.1", UsageError, "which number is to be found"),
        ("any:rules=[{use: entropy, with: {threshold: 0.1}}]", UsageError, "Write 'tuned'"),
        (BOTH.replace("0.5", "tuned"), UsageError, "write 'tuned' once"),
        ("entropy:treshold=tuned", RecipeError, "did you mean 'threshold'"),
        ("entropy:", UsageError, "expected a name"),
    ],
)
def test_unclear_rules_are_refused(text, error, what):
    with pytest.raises(error, match=what):
        opened(text)


def trace(**statistics):
    rows, steps = next(iter(statistics.values())).shape
    yes = torch.ones(rows, 1, dtype=torch.bool)
    numbers = {"step": torch.arange(1.0, steps + 1.0).expand(rows, -1)}
    ids = torch.zeros(rows, steps, 1, dtype=torch.int16)
    cost = torch.arange(1, steps + 1)
    return Trace(torch.arange(rows), ids, ~yes, yes, numbers | statistics, cost)


def test_candidates_follow_the_statistic_of_the_open_number():
    values = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    kl = torch.where(torch.arange(8) == 0, torch.inf, values * 1000.0)
    recorded = trace(entropy=values, kl=kl)
    for text, most in (("entropy", 1.0), (BOTH, 1.0), ("kl", 1000.0)):
        found = opened(text).candidates(recorded)
        assert len(found) > 50
        assert 0.0 <= found[0] < most / 50
        assert most * 0.95 < found[-1] <= most
    assert opened("fixed").candidates(recorded) == [float(step) for step in range(1, 9)]
    margins = trace(margin=torch.linspace(0.0, 1.0, 40).view(4, 10))
    assert {0.0, 1.0}.isdisjoint(opened("margin").candidates(margins))
    both = trace(switches=torch.zeros(9, 3), entropy=torch.full((9, 3), 0.5))
    assert opened("stable-and-confident").candidates(both) == [0.5]
    assert opened("switches:most=tuned").candidates(both) == [0.0]
    assert opened("patience:rule={use: kl, with: {threshold: 1.0}};steps=tuned").candidates(
        both
    ) == [1.0, 2.0, 3.0]
    nothing = trace(entropy=torch.full((4, 3), torch.nan))
    assert opened("entropy").candidates(nothing) == []
